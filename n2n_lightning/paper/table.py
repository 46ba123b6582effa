"""The table of the paper's experiments, and the paper's claims judged by our runs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from n2n_lightning.paper.experiments import Experiment, paper_claims
from n2n_lightning.paper.jobs import ENDED, PaperRun
from n2n_lightning.reporting.printing import EMPTY_CELL, TextTable

TOLERANCE_DB = 0.1


@dataclass(frozen=True)
class BenchmarkRow:
    """The runs of an experiment, one for each seed, scored on a benchmark."""

    jobs: tuple[PaperRun, ...]
    benchmark: str

    @property
    def experiment(self) -> Experiment:
        return self.jobs[0].experiment

    @property
    def scores(self) -> dict[int, float]:
        """Seed -> PSNR in dB, for the runs that are scored."""
        return {job.seed: psnr for job in self.jobs if (psnr := job.psnr(self.benchmark)) is not None}

    @property
    def difference(self) -> float | None:
        """Mean of our scores minus the paper's score."""
        paper = self.experiment.paper_db(self.benchmark)
        return statistics.fmean(self.scores.values()) - paper if self.scores and paper is not None else None

    @property
    def verdict(self) -> str:
        """Our scores compared with the paper's, or what is still missing."""
        unfinished = [job.state for job in self.jobs if job.state not in ENDED]
        if unfinished or len(self.scores) < len(self.jobs):
            return "; ".join(dict.fromkeys(unfinished)) or f"{len(self.scores)} of {len(self.jobs)} seeds scored"
        if self.difference is None or self.experiment.one_image:
            return "done"
        return "as the paper" if self.difference >= -TOLERANCE_DB else "below the paper"

    @property
    def cells(self) -> dict[str, str]:
        """Title of the column -> text."""
        experiment, scores = self.experiment, list(self.scores.values())
        paper = experiment.paper_db(self.benchmark)
        ours = f"{statistics.fmean(scores):.2f}" if scores else EMPTY_CELL
        if len(scores) > 1:
            ours += f" ± {statistics.stdev(scores):.2f} ({len(scores)})"
        one_image = " (one image)" if experiment.one_image else ""
        return {
            "experiment": f"{experiment.noise}, {experiment.loss}",
            "targets": experiment.targets,
            "draws": experiment.draws,
            "scored on": self.benchmark,
            "paper (dB)": EMPTY_CELL if paper is None else f"{paper:.2f}{one_image}",
            "ours (dB)": ours,
            "difference": EMPTY_CELL if self.difference is None else f"{self.difference:+.2f}",
            "budget": budget_text(self.jobs[0].result),
            "verdict": self.verdict,
        }


def budget_text(result: dict[str, Any]) -> str:
    """Return how many crops a run was trained on, and for how long."""
    if not result:
        return EMPTY_CELL
    crops = result["epochs"] * result["train_pairs"]
    _, height, width = result["image_shape"]
    return f"{crops:,} of {width}x{height}, {result['seconds'] / 60:.0f} min"


def make_rows(jobs: Sequence[PaperRun]) -> list[BenchmarkRow]:
    """Return a row for each experiment and benchmark."""
    experiments = dict.fromkeys(job.experiment for job in jobs)
    return [
        BenchmarkRow(tuple(job for job in jobs if job.experiment == experiment), benchmark)
        for experiment in experiments
        for benchmark in experiment.benchmarks
    ]


def judge_paper_claims(rows: Sequence[BenchmarkRow]) -> list[str]:
    """Return a line for each claim about two of the rows, over the seeds that both have."""
    known = {(row.experiment.key, row.benchmark): row.scores for row in rows}
    lines = []
    for claim in paper_claims():
        run, other = (known.get((key, claim.benchmark), {}) for key in (claim.run, claim.other))
        gains = [run[seed] - other[seed] for seed in run if seed in other]
        if gains:
            mean = statistics.fmean(gains)
            spread = f" ({min(gains):+.2f} to {max(gains):+.2f} over {len(gains)} seeds)" if len(gains) > 1 else ""
            verdict = "holds" if mean >= claim.least_db else "does not hold"
            found = f"{claim.text} on {claim.benchmark}: {mean:+.2f} dB{spread}"
            lines.append(f"{found}, at least {claim.least_db:+g} expected: {verdict}")
    return lines


def benchmark_table(rows: Sequence[BenchmarkRow]) -> TextTable:
    return TextTable(list(rows[0].cells), [list(row.cells.values()) for row in rows])
