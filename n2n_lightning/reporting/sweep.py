"""How the jobs of a sweep ended, and what is printed about them at its end. Imports neither torch nor matplotlib."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from n2n_lightning.reporting.comparison import compare_runs
from n2n_lightning.reporting.printing import TextTable
from n2n_lightning.reporting.runs import read_run
from n2n_lightning.reporting.table import print_comparison, score_text

JOBS = "N2N_JOBS"  # environment of a sweep: its main process's id, and a file for the outcomes of others' jobs
FINISHED = ("done", "dead", "skipped")  # states of jobs whose runs have reached their end


class Outcome(NamedTuple):
    """How a job ended."""

    folder: Path  # of the run
    state: str  # "done", "dead", "pruned", "skipped", "failed", "refused" or "interrupted"
    code: int  # exit code
    text: str  # the best score, or the reason


def outcomes_file() -> Path:
    """Return the file for the outcomes of jobs that run in other processes than the sweep's."""
    return Path(os.environ[JOBS].partition(":")[2])


def is_worker() -> bool:
    """Return whether another process launched the sweep and this one runs jobs of it, as with joblib."""
    return int(os.environ.get(JOBS, f"{os.getpid()}:").partition(":")[0]) != os.getpid()


def append_outcome(path: Path, number: int | None, outcome: Outcome) -> None:
    """Append a job to the file at ``path``, which has one line for each job, also for those of other processes.

    Raises:
        OSError: the file cannot be written; without its line the job would seem to have gone well.
    """
    line = json.dumps([number, str(outcome.folder), *outcome[1:]]) + "\n"
    with path.open("ab", buffering=0) as file:  # one write, so that lines of parallel jobs are not mixed
        file.write(line.encode())


def read_outcomes(path: Path) -> dict[int | None, Outcome]:
    """Read number -> job, in the order of the sweep; jobs that have not ended are missing."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    jobs = {number: Outcome(Path(folder), *rest) for number, folder, *rest in rows}
    return dict(sorted(jobs.items(), key=lambda job: job[0] or 0))


def best_text(folder: Path) -> tuple[str, str]:
    """Return a finished run's status, and its best score as text, with a better filter and what else is said of it."""
    run = read_run(folder)
    best, filters = run.number(run.monitor), run.filter_scores
    score = "" if best is None else f"best {run.monitor} {score_text(run.monitor, best)}"
    if score and filters and filters.net_loses:
        score += f", {filters.difference}"
    return run.status, ": ".join(filter(None, [score, run.reason]))


def job_value(outcome: Outcome) -> float | str:
    """Return what a sweeper optimizes: the best value of the run's monitor; the state of a job that has none.

    A run that was pruned returns "pruned", also where it was skipped.
    """
    run = read_run(outcome.folder) if outcome.state in FINISHED else None
    if run is not None and run.status == "pruned":
        return run.status
    best = None if run is None else run.number(run.monitor)
    return outcome.state if best is None else best


def outcome_lines(outcomes: Sequence[Outcome]) -> str:
    """Return one line for each job, and a last line that counts them."""
    table = TextTable((), [(outcome.state, outcome.folder.name, outcome.text) for outcome in outcomes])
    counts = ", ".join(f"{number} {state}" for state, number in Counter(o.state for o in outcomes).items())
    jobs = "1 job" if len(outcomes) == 1 else f"{len(outcomes)} jobs"
    return "\n".join([*table.text().splitlines(), f"{jobs} of the sweep: {counts or 'none ended'}"])


def print_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Print the comparison of the finished runs, best first, and then all jobs, of which there is at least one."""
    finished = [outcome.folder for outcome in outcomes if outcome.state in FINISHED]
    if len(finished) > 1:
        comparison = compare_runs([read_run(folder) for folder in finished])
        print_comparison(comparison, reasons=False)  # the list of jobs has them
    print(f"\nJobs in {os.path.relpath(outcomes[0].folder.parent)}:\n{outcome_lines(outcomes)}", flush=True)
