"""The runs of the paper's experiments: their overrides, folders, states and scores."""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from n2n_lightning.paper.experiments import EXPERIMENTS, TEST_NOISES, Experiment
from n2n_lightning.system.atomic import read_json
from n2n_lightning.system.command_words import quoted
from n2n_lightning.system.run_names import find_run_folder

ENDED = ("done", "dead")  # states of a run that has nothing left to train


class PaperSize(NamedTuple):
    """What ``size=`` changes beside the configuration: folder of the study, default net."""

    study: str
    net: str


PAPER_SIZES = {"small": PaperSize("paper", "nafnet32"), "full": PaperSize("paper_full", "unet")}


@dataclass(frozen=True)
class PaperRun:
    """An experiment with one seed, and the folder of its run."""

    experiment: Experiment
    seed: int
    overrides: tuple[str, ...]
    folder: Path

    @property
    def result(self) -> dict[str, Any]:
        """Content of ``result.json``; empty before the run has started."""
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
        """Return the PSNR in dB; None until the run has ended and its best weights are scored."""
        path = self.score_file(benchmark)
        if self.state not in ENDED or not path.exists() or path.stat().st_mtime < self.checkpoint.stat().st_mtime:
            return None
        return read_json(path).get("val/psnr")


def make_jobs(args: argparse.Namespace) -> list[PaperRun]:
    """Return the run of each chosen experiment with each seed."""
    size = PAPER_SIZES[args.size]
    jobs = []
    for experiment, seed in product(EXPERIMENTS, args.seeds):
        if experiment.noise in args.only:
            overrides = (
                f"experiment=paper/{experiment.noise}",
                f"size={args.size}",
                f"model={args.model}",
                f"data.root={quoted(str(args.root))}",
                f"loss={experiment.loss}",
                f"data.targets={experiment.targets}",
                f"data.draws={experiment.draws}",
                f"seed={seed}",
                *args.overrides,
            )
            folder = find_run_folder(Path("outputs") / size.study / experiment.noise, args.model, overrides)
            jobs.append(PaperRun(experiment, seed, overrides, folder))
    return jobs


def run_and_score(job: PaperRun, folders: dict[str, str]) -> int:
    """Train or resume a run, and score it on the benchmarks whose folders are given; return the worst exit code."""
    codes = [call("train", *job.overrides)]
    noise = job.experiment.noise
    for benchmark in job.experiment.benchmarks:
        if benchmark in folders and job.state in ENDED and job.psnr(benchmark) is None:
            arguments = (
                f"checkpoint={quoted(str(job.checkpoint))}",
                f"data={benchmark}",
                f"data.root={quoted(str(folders[benchmark]))}",
                f"noise={noise}",
                "noise.{}={}".format(*TEST_NOISES[noise]),
                "quantize=true",
                f"output={quoted(str(job.score_file(benchmark)))}",
            )
            codes.append(call("evaluate", *arguments))
    return max(codes)


def call(command: str, *arguments: str) -> int:
    """Run one of our commands in a process of its own, which handles signals itself; return its exit code."""
    with subprocess.Popen([sys.executable, "-m", f"n2n_lightning.{command}", *arguments]) as process:
        while True:
            try:
                code = process.wait()
                return code if code >= 0 else 128 - code
            except KeyboardInterrupt:  # the terminal sends SIGINT to the process too
                continue
            except SystemExit:  # SIGTERM, which was sent only to us
                process.terminate()
