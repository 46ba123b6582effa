"""The table of the paper's experiments, with its verdicts."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from n2n_lightning.paper.experiments import Experiment, claims
from n2n_lightning.paper.jobs import ENDED, PaperRun

TOLERANCE_DB = 0.1


NOTHING = "–"


def budget(result: dict[str, Any]) -> str:
    """How much a run was trained on, and how long."""
    if not result:
        return NOTHING
    crops = result["epochs"] * result["train_pairs"]
    _, height, width = result["image_shape"]
    return f"{crops:,} of {width}x{height}, {result['seconds'] / 60:.0f} min"


@dataclass(frozen=True)
class TableRow:
    """An experiment on a benchmark, over all seeds."""

    jobs: tuple[PaperRun, ...]
    benchmark: str

    @property
    def experiment(self) -> Experiment:
        return self.jobs[0].experiment

    @property
    def scores(self) -> dict[int, float]:
        """Seed -> dB, of those that are done."""
        return {job.seed: psnr for job in self.jobs if (psnr := job.psnr(self.benchmark)) is not None}

    @property
    def difference(self) -> float | None:
        """Our mean less the paper's figure."""
        paper = self.experiment.paper_db(self.benchmark)
        return statistics.fmean(self.scores.values()) - paper if self.scores and paper is not None else None

    @property
    def verdict(self) -> str:
        unfinished = [job.state for job in self.jobs if job.state not in ENDED]
        if unfinished or len(self.scores) < len(self.jobs):
            return "; ".join(dict.fromkeys(unfinished)) or f"{len(self.scores)} of {len(self.jobs)} seeds scored"
        if self.difference is None or self.experiment.one_image:
            return "done"
        return "as the paper" if self.difference >= -TOLERANCE_DB else "below the paper"

    @property
    def cells(self) -> dict[str, str]:
        """Title -> text."""
        experiment, scores = self.experiment, list(self.scores.values())
        paper = experiment.paper_db(self.benchmark)
        ours = f"{statistics.fmean(scores):.2f}" if scores else NOTHING
        if len(scores) > 1:
            ours += f" ± {statistics.stdev(scores):.2f} ({len(scores)})"
        return {
            "experiment": f"{experiment.noise}, {experiment.loss}",
            "targets": experiment.targets,
            "draws": experiment.draws,
            "scored on": self.benchmark,
            "paper (dB)": NOTHING
            if paper is None
            else f"{paper:.2f}" + (" (one image)" if experiment.one_image else ""),
            "ours (dB)": ours,
            "difference": NOTHING if self.difference is None else f"{self.difference:+.2f}",
            "budget": budget(self.jobs[0].result),
            "verdict": self.verdict,
        }


def make_rows(jobs: Sequence[PaperRun]) -> list[TableRow]:
    """A row for every experiment and benchmark."""
    experiments = dict.fromkeys(job.experiment for job in jobs)
    return [
        TableRow(tuple(job for job in jobs if job.experiment == experiment), benchmark)
        for experiment in experiments
        for benchmark in experiment.benchmarks
    ]


def judge_paper_claims(rows: Sequence[TableRow]) -> list[str]:
    """What the paper says of the rows among themselves, over the seeds that both have."""
    known = {(row.experiment.key, row.benchmark): row.scores for row in rows}
    lines = []
    for claim in claims():
        run, other = (known.get((key, claim.benchmark), {}) for key in (claim.run, claim.other))
        gains = [run[seed] - other[seed] for seed in run if seed in other]
        if gains:
            mean = statistics.fmean(gains)
            spread = f" ({min(gains):+.2f} to {max(gains):+.2f} over {len(gains)} seeds)" if len(gains) > 1 else ""
            verdict = "holds" if mean >= claim.least_db else "does not hold"
            found = f"{claim.text} on {claim.benchmark}: {mean:+.2f} dB{spread}"
            lines.append(f"{found}, at least {claim.least_db:+g} expected: {verdict}")
    return lines


def paper_markdown(rows: Sequence[TableRow], lines: Sequence[str]) -> str:
    table = [list(row.cells.values()) for row in rows]
    titles = list(rows[0].cells)
    text = [f"| {' | '.join(cells)} |" for cells in (titles, ["---"] * len(titles), *table)]
    return "\n".join([*text, "", *(f"* {line}" for line in lines)]) + "\n"


def print_rows(rows: Sequence[TableRow], lines: Sequence[str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(*rows[0].cells, box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(*row.cells.values())
    Console(width=max(Console().width, 150)).print(table)
    print("\n".join(lines))
