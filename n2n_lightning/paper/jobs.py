"""Runs of the paper's experiments: their overrides, folders and states."""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from n2n_lightning.paper.experiments import EXPERIMENTS, TESTED_WITH, Experiment
from n2n_lightning.system.atomic import read_json
from n2n_lightning.system.folders import run_name

STUDIES = {"small": "paper", "full": "paper_full"}


NETS = {"small": "nafnet32", "full": "unet"}


OURS = (
    "experiment",
    "size",
    "study",
    "model",
    "loss",
    "seed",
    "resume",
    "data.root",
    "data.targets",
    "data.draws",
    "data",
)


ENDED = ("done", "dead")


@dataclass(frozen=True)
class PaperRun:
    """An experiment with one seed, and the folder of its run."""

    experiment: Experiment
    seed: int
    overrides: tuple[str, ...]
    folder: Path

    @property
    def result(self) -> dict[str, Any]:
        """``result.json``; empty before the run has started."""
        return read_json(self.folder / "result.json")

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "best.ckpt"

    @property
    def state(self) -> str:
        """How the run ended, or how far it is."""
        result = self.result
        if not result or result["status"] in ENDED:
            return str(result.get("status", "not started"))
        return f"{result['status']}, {result['epochs']} of {result['max_epochs']} epochs"

    def score_file(self, benchmark: str) -> Path:
        return self.folder / f"{benchmark}.json"

    def psnr(self, benchmark: str) -> float | None:
        """dB, once the run has ended and its best weights are scored."""
        path = self.score_file(benchmark)
        if self.state not in ENDED or not path.exists() or path.stat().st_mtime < self.checkpoint.stat().st_mtime:
            return None
        return read_json(path).get("val/psnr")


def make_jobs(args: argparse.Namespace) -> list[PaperRun]:
    """Every chosen experiment with every seed."""
    jobs = []
    for experiment, seed in product(EXPERIMENTS, args.seeds):
        if experiment.noise in args.only:
            overrides = (
                f"experiment=paper/{experiment.noise}",
                f"size={args.size}",
                f"model={args.model}",
                f"data.root={quoted(args.root)}",
                f"loss={experiment.loss}",
                f"data.targets={experiment.targets}",
                f"data.draws={experiment.draws}",
                f"seed={seed}",
                *args.overrides,
            )
            folder = Path("outputs") / STUDIES[args.size] / experiment.noise / run_name(args.model, overrides)
            jobs.append(PaperRun(experiment, seed, overrides, folder))
    return jobs


def run_and_score(job: PaperRun, folders: dict[str, str]) -> int:
    """Train, or go on, and score on the benchmarks whose folders are given; the worst exit code."""
    codes = [call("train", *job.overrides)]
    for benchmark in job.experiment.benchmarks:
        if benchmark in folders and job.state in ENDED and job.psnr(benchmark) is None:
            codes.append(
                call(
                    "evaluate",
                    f"checkpoint={quoted(job.checkpoint)}",
                    f"data={benchmark}",
                    f"data.root={quoted(folders[benchmark])}",
                    f"noise={job.experiment.noise}",
                    "noise.{}={}".format(*TESTED_WITH[job.experiment.noise]),
                    "quantize=true",
                    f"output={quoted(job.score_file(benchmark))}",
                )
            )
    return max(codes)


def call(command: str, *arguments: str) -> int:
    """One of our commands in a process of its own, which answers signals for itself; its exit code."""
    with subprocess.Popen([sys.executable, "-m", f"n2n_lightning.{command}", *arguments]) as process:
        while True:
            try:
                code = process.wait()
                return code if code >= 0 else 128 - code
            except KeyboardInterrupt:  # the terminal has told the process too
                continue
            except SystemExit:  # SIGTERM, which came to us alone
                process.terminate()


def quoted(path: str | Path) -> str:
    """A path as a value of Hydra's override grammar."""
    return "'" + str(path).replace("'", "\\'") + "'"
