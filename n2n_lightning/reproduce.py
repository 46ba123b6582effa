"""The experiments of Lehtinen et al. 2018, run or collected: ``python -m n2n_lightning.reproduce --root FOLDER``."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from n2n_lightning import cli

BENCHMARKS = ("bsds300", "kodak24", "set14")
TESTED_WITH = {  # the noise that the paper scores with
    "gaussian": ("noise=gaussian", "noise.sigma=25"),
    "brown": ("noise=brown", "noise.sigma=25"),
    "poisson": ("noise=poisson", "noise.lam=30"),
    "bernoulli": ("noise=bernoulli", "noise.p=0.5"),
    "text": ("noise=text", "noise.coverage=0.25"),
    "impulse": ("noise=impulse", "noise.p=0.7"),
}
STUDIES = {"small": "paper", "full": "paper_full"}
SUFFIXES = {"small": "_small", "full": ""}
TOLERANCE_DB = 0.1


@dataclass(frozen=True, eq=False)
class Experiment:
    """One training run of the paper, or its clean twin.

    Args:
        noise: of the experiment.
        loss: trained with.
        targets: "noisy" or "clean".
        draws: "fresh" or "fixed".
        paper: dB on each benchmark: table 1 of the paper, but for Gaussian and Poisson noise on BSD300 and Kodak the
            U-Net's figures in the official code's README; for text and impulses, on Kodak, those of one image.
    """

    noise: str
    loss: str
    targets: str
    draws: str
    paper: dict[str, float]

    @property
    def benchmarks(self) -> tuple[str, ...]:
        return tuple(self.paper) or BENCHMARKS


def experiments() -> tuple[Experiment, ...]:
    """In the paper's order."""

    def table_1(noise: str, clean: Sequence[float], noisy: Sequence[float]) -> tuple[Experiment, Experiment]:
        scores = [dict(zip(BENCHMARKS, row, strict=True)) for row in (clean, noisy)]
        return Experiment(noise, "l2", "clean", "fresh", scores[0]), Experiment(
            noise, "l2", "noisy", "fresh", scores[1]
        )

    def one_image(noise: str, loss: str, targets: str, score: float) -> Experiment:
        return Experiment(noise, loss, targets, "fresh", {"kodak24": score})

    return (
        *table_1("gaussian", (31.01, 32.38, 31.31), (31.02, 32.39, 31.28)),
        Experiment("gaussian", "l2", "clean", "fixed", {}),
        Experiment("gaussian", "l2", "noisy", "fixed", {}),
        Experiment("brown", "l2", "clean", "fresh", {}),
        Experiment("brown", "l2", "noisy", "fresh", {}),
        *table_1("poisson", (30.27, 31.66, 30.07), (30.26, 31.66, 30.06)),
        *table_1("bernoulli", (31.04, 33.01, 31.51), (31.16, 33.17, 31.72)),
        one_image("text", "l1", "clean", 35.82),
        one_image("text", "l1", "noisy", 35.75),
        one_image("text", "l2", "noisy", 26.89),
        one_image("impulse", "l0", "clean", 28.86),
        one_image("impulse", "l0", "noisy", 28.43),
        one_image("impulse", "l1", "noisy", 16.36),
        one_image("impulse", "l2", "noisy", 13.02),
    )


@dataclass(frozen=True)
class Job:
    """An experiment with one seed, and the folder of its run."""

    experiment: Experiment
    overrides: tuple[str, ...]
    folder: Path

    @property
    def result(self) -> dict[str, Any]:
        """``result.json``; empty before the run has started."""
        return read(self.folder / "result.json")

    def score_file(self, benchmark: str) -> Path:
        return self.folder / f"{benchmark}.json"

    @property
    def state(self) -> str:
        """ "done", or how far it is."""
        result = self.result
        if result.get("status") in ("done", "dead"):
            return str(result["status"])
        epochs = f"{result.get('epochs')} of {result.get('max_epochs')} epochs"
        return f"{result['status']}, {epochs}" if result else "not started"


def make_jobs(size: str, root: str, noises: Sequence[str], seeds: Sequence[str], more: Sequence[str]) -> list[Job]:
    """Every chosen experiment with every seed; ``more`` are overrides of all of them."""
    jobs = []
    for experiment, seed in product(experiments(), seeds):
        if experiment.noise in noises:
            overrides = (
                f"experiment=paper/{experiment.noise}{SUFFIXES[size]}",
                f"data.root={root}",
                f"loss={experiment.loss}",
                f"data.targets={experiment.targets}",
                f"data.draws={experiment.draws}",
                f"seed={seed}",
                *more,
            )
            folder = Path("outputs") / STUDIES[size] / experiment.noise / cli.run_name("unet", overrides)
            jobs.append(Job(experiment, overrides, folder))
    return jobs


def run(job: Job, folders: dict[str, str]) -> int:
    """Train, or go on, and score on the benchmarks whose folders are given; the exit code."""
    code = call("train", *job.overrides)
    for benchmark, folder in folders.items():
        checkpoint, output = job.folder / "checkpoints" / "best.ckpt", job.score_file(benchmark)
        if code == cli.DONE and benchmark in job.experiment.benchmarks and not output.exists():
            code = call(
                "evaluate",
                f"checkpoint='{checkpoint}'",
                f"data={benchmark}",
                f"data.root={folder}",
                *TESTED_WITH[job.experiment.noise],
                "quantize=true",
                f"output='{output}'",
            )
    return code


def call(command: str, *arguments: str) -> int:
    """One of our commands, in a process of its own."""
    return subprocess.run([sys.executable, "-m", f"n2n_lightning.{command}", *arguments], check=False).returncode


def read(path: Path) -> dict[str, Any]:
    """A JSON file's content; empty where there is none."""
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return content


def budget(result: dict[str, Any]) -> str:
    """How much a run was trained on, and how long."""
    if not result:
        return "–"
    crops = result["epochs"] * result["train_pairs"]
    _, height, width = result["image_shape"]
    return f"{crops:,} of {width}x{height}, {result['seconds'] / 60:.0f} min"


Row = dict[str, Any]


def rows(jobs: Sequence[Job]) -> Iterator[Row]:
    """A row for every experiment and benchmark, the mean over the seeds that are done."""
    for experiment in dict.fromkeys(job.experiment for job in jobs):
        own = [job for job in jobs if job.experiment is experiment]
        for benchmark in experiment.benchmarks:
            scores = [score["val/psnr"] for job in own if (score := read(job.score_file(benchmark)))]
            ours = statistics.fmean(scores) if scores else None
            paper = experiment.paper.get(benchmark)
            difference = None if ours is None or paper is None else ours - paper
            states = [job.state for job in own if job.state != "done"]
            if states:
                verdict = "; ".join(dict.fromkeys(states))
            elif ours is None:
                verdict = "not scored"
            else:
                near = difference is None or difference >= -TOLERANCE_DB
                verdict = "done" if difference is None else "reached" if near else "below the paper"
            yield {
                "experiment": f"{experiment.noise}, {experiment.loss}",
                "targets": experiment.targets,
                "draws": experiment.draws,
                "benchmark": benchmark,
                "paper": paper,
                "ours": ours,
                "spread": statistics.stdev(scores) if len(scores) > 1 else None,
                "seeds": len(scores),
                "difference": difference,
                "budget": budget(own[0].result),
                "verdict": verdict,
            }


def claims(found: Sequence[Row]) -> list[str]:
    """What the paper says of the rows among themselves, and whether it holds here."""

    def ours(noise: str, benchmark: str, targets: str = "noisy", draws: str = "fresh") -> float | None:
        for row in found:
            if (row["experiment"], row["benchmark"], row["targets"], row["draws"]) == (
                noise,
                benchmark,
                targets,
                draws,
            ):
                value: float | None = row["ours"]
                return value
        return None

    lines = []
    for noise, draws in (
        ("gaussian", "fresh"),
        ("gaussian", "fixed"),
        ("brown", "fresh"),
        ("poisson", "fresh"),
        ("bernoulli", "fresh"),
    ):
        clean, noisy = (ours(f"{noise}, l2", "bsds300", targets, draws) for targets in ("clean", "noisy"))
        if clean is not None and noisy is not None:
            verdict = "holds" if noisy - clean >= -TOLERANCE_DB else "does not hold"
            compared = f"noisy targets {noisy - clean:+.2f} dB to clean ones, at least -{TOLERANCE_DB}"
            lines.append(f"{noise}, {draws} draws, BSD300: {compared}: {verdict}")
    for noise, better, worse, least in (
        ("impulse", "l0", "l1", 5),
        ("impulse", "l1", "l2", 0),
        ("text", "l1", "l2", 4),
    ):
        high, low = (ours(f"{noise}, {loss}", "kodak24") for loss in (better, worse))
        if high is not None and low is not None:
            verdict = "holds" if high - low >= least else "does not hold"
            lines.append(f"{noise}, Kodak: {better} {high - low:+.2f} dB to {worse}, at least +{least}: {verdict}")
    return lines


TITLES = {
    "experiment": "experiment",
    "targets": "targets",
    "draws": "draws",
    "benchmark": "scored on",
    "paper": "paper (dB)",
    "ours": "ours (dB)",
    "difference": "difference",
    "budget": "budget",
    "verdict": "verdict",
}


def cells(row: Row) -> list[str]:
    """A row as text."""

    def text(key: str) -> str:
        value = row[key]
        if value is None:
            return "–"
        if key == "ours" and row["spread"] is not None:
            return f"{value:.2f} ± {row['spread']:.2f} ({row['seeds']} seeds)"
        return f"{value:+.2f}" if key == "difference" else f"{value:.2f}" if isinstance(value, float) else str(value)

    return [text(key) for key in TITLES]


def markdown(found: Sequence[Row], lines: Sequence[str]) -> str:
    table = [list(TITLES.values()), ["---"] * len(TITLES), *(cells(row) for row in found)]
    return "\n".join([*(f"| {' | '.join(row)} |" for row in table), "", *(f"* {line}" for line in lines)]) + "\n"


def show(found: Sequence[Row], lines: Sequence[str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(*TITLES.values(), box=SIMPLE_HEAD)
    for row in found:
        table.add_row(*cells(row))
    Console(width=max(Console().width, 150)).print(table)
    print("\n".join(lines))


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m n2n_lightning.reproduce",
        description="Run the experiments of the Noise2Noise paper, those that are not done yet, and print what became "
        "of each beside the paper's figures. Further words are overrides of every run: trainer.max_epochs=2",
    )
    parser.add_argument("--root", required=True, help="folder of the clean training images")
    for benchmark in BENCHMARKS:
        parser.add_argument(f"--{benchmark}", metavar="FOLDER", help="of its images, to score on them")
    parser.add_argument("--size", choices=tuple(STUDIES), default="small", help="for two cores or for an accelerator")
    parser.add_argument("--only", default=",".join(TESTED_WITH), metavar="NOISE,...", help="default: %(default)s")
    parser.add_argument("--seeds", default="0", metavar="SEED,...", help="default: %(default)s")
    parser.add_argument("--collect", action="store_true", help="run nothing, print what there is")
    args, overrides = parser.parse_known_args(words)
    wrong = [word for word in overrides if word.startswith("-") or "=" not in word]
    if wrong:
        parser.error(f"{wrong[0]} is neither an option nor an override such as trainer.max_epochs=2")
    args.overrides, args.only, args.seeds = overrides, args.only.split(","), args.seeds.split(",")
    unknown = sorted(set(args.only) - set(TESTED_WITH))
    if unknown:
        parser.error(f"--only takes {', '.join(TESTED_WITH)}, got {', '.join(unknown)}")
    if not all(seed.isdigit() for seed in args.seeds):
        parser.error(f"--seeds takes whole numbers, got {','.join(args.seeds)}")
    return args


def main() -> int:
    args = parse()
    folders = {name: getattr(args, name) for name in BENCHMARKS if getattr(args, name)}
    jobs = make_jobs(args.size, args.root, args.only, args.seeds, args.overrides)
    code = cli.DONE
    for number, job in enumerate(jobs if not args.collect else (), 1):
        print(f"{number} of {len(jobs)}: {' '.join(job.overrides)}", flush=True)
        ended = run(job, folders)
        if ended in (cli.SIGINT, cli.SIGTERM, cli.BAD_INPUT):
            return ended
        code = max(code, ended)
    found = list(rows(jobs))
    lines = claims(found)
    show(found, lines)
    table = Path("outputs") / STUDIES[args.size] / "table.md"
    if table.parent.is_dir():
        table.write_text(markdown(found, lines))
        print(table)
    return code


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
