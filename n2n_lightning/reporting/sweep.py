"""How the jobs of a sweep ended: what is printed last. Imports nothing heavy."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

LONGEST = 300  # characters of a reason in the table; the error message before it has all of them


class Outcome(NamedTuple):
    """How a job ended: "done", "dead", "skipped", "failed", "refused" or "interrupted"; its exit code; and more."""

    folder: Path
    state: str
    code: int
    text: str


def append_outcome(path: Path, number: int | None, outcome: Outcome) -> None:
    """Add a job to the file at ``path``, a line a job, where jobs of other processes are noted too.

    Raises:
        OSError: it cannot be written; the job must not seem to have gone well.
    """
    line = json.dumps([number, str(outcome.folder), *outcome[1:]]) + "\n"
    with path.open("ab", buffering=0) as file:  # one write, so that lines of jobs side by side stay whole
        file.write(line.encode())


def read_outcomes(path: Path) -> dict[int | None, Outcome]:
    """Number -> job, in the sweep's order; those that began and did not end are not among them."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    jobs = {number: Outcome(Path(folder), *rest) for number, folder, *rest in rows}
    return dict(sorted(jobs.items(), key=lambda job: job[0] or 0))


def one_line(error: object) -> str:
    """An error's message without line breaks, of bearable length."""
    text = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def best_text(folder: Path) -> tuple[str, str]:
    """A finished run's status, and its best score in words, with the reason where it is dead."""
    from n2n_lightning.reporting.runs import read_run
    from n2n_lightning.reporting.table import score_text

    run = read_run(folder)
    best = run.number(run.monitor)
    score = "" if best is None else f"best {run.monitor} {score_text(run.monitor, best)}"
    return run.status, ": ".join(filter(None, [score, run.reason]))


def outcome_lines(outcomes: Sequence[Outcome]) -> str:
    """A line for every job, and a last one that counts them. Never cut: paths in it are to be copied."""
    rows = [(o.state, o.folder.name, o.text) for o in outcomes]
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    lines = [f"{state:<{widths[0]}}  {name:<{widths[1]}}  {text}".rstrip() for state, name, text in rows]
    counts = ", ".join(f"{number} {state}" for state, number in Counter(o.state for o in outcomes).items())
    jobs = "1 job" if len(outcomes) == 1 else f"{len(outcomes)} jobs"
    return "\n".join([*lines, f"{jobs} of the sweep: {counts or 'none ended'}"])


def print_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Print the finished runs in comparison, best first, and then the table of every job, of which there is one."""
    finished = [o.folder for o in outcomes if o.state in ("done", "dead", "skipped")]
    if len(finished) > 1:
        from rich.console import Console

        from n2n_lightning.reporting.comparison import compare_runs
        from n2n_lightning.reporting.runs import read_run
        from n2n_lightning.reporting.table import console_table

        Console().print(console_table(compare_runs([read_run(folder) for folder in finished])))
    print(f"\nJobs in {os.path.relpath(outcomes[0].folder.parent)}:\n{outcome_lines(outcomes)}", flush=True)
