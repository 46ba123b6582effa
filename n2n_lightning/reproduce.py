"""The experiments of Lehtinen et al. 2018, run or collected: ``python -m n2n_lightning.reproduce --root FOLDER``."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from n2n_lightning import cli
from n2n_lightning.aside import read_json
from n2n_lightning.paper import BENCHMARKS, EXPERIMENTS, TESTED_WITH, Experiment, claims

STUDIES = {"small": "paper", "full": "paper_full"}
SUFFIXES = {"small": "_small", "full": ""}
NETS = {"small": "nafnet32", "full": "unet"}
OURS = ("experiment", "study", "model", "loss", "seed", "resume", "data.root", "data.targets", "data.draws", "data")
TOLERANCE_DB = 0.1
ENDED = ("done", "dead")
STOPPED = (cli.SIGINT, cli.SIGTERM, cli.BAD_INPUT)  # exit codes of a run that no other follows
NOTHING = "–"
PICTURED = 7  # which of Kodak's photographs: a flower before shutters, smooth and fine


@dataclass(frozen=True)
class Job:
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


def make_jobs(args: argparse.Namespace) -> list[Job]:
    """Every chosen experiment with every seed."""
    jobs = []
    for experiment, seed in product(EXPERIMENTS, args.seeds):
        if experiment.noise in args.only:
            overrides = (
                f"experiment=paper/{experiment.noise}{SUFFIXES[args.size]}",
                f"model={args.model}",
                f"data.root={quoted(args.root)}",
                f"loss={experiment.loss}",
                f"data.targets={experiment.targets}",
                f"data.draws={experiment.draws}",
                f"seed={seed}",
                *args.overrides,
            )
            folder = Path("outputs") / STUDIES[args.size] / experiment.noise / cli.run_name(args.model, overrides)
            jobs.append(Job(experiment, seed, overrides, folder))
    return jobs


def run(job: Job, folders: dict[str, str]) -> int:
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


def budget(result: dict[str, Any]) -> str:
    """How much a run was trained on, and how long."""
    if not result:
        return NOTHING
    crops = result["epochs"] * result["train_pairs"]
    _, height, width = result["image_shape"]
    return f"{crops:,} of {width}x{height}, {result['seconds'] / 60:.0f} min"


@dataclass(frozen=True)
class Row:
    """An experiment on a benchmark, over all seeds."""

    jobs: tuple[Job, ...]
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


def make_rows(jobs: Sequence[Job]) -> list[Row]:
    """A row for every experiment and benchmark."""
    experiments = dict.fromkeys(job.experiment for job in jobs)
    return [
        Row(tuple(job for job in jobs if job.experiment == experiment), benchmark)
        for experiment in experiments
        for benchmark in experiment.benchmarks
    ]


def judge(rows: Sequence[Row]) -> list[str]:
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


def markdown(rows: Sequence[Row], lines: Sequence[str]) -> str:
    table = [list(row.cells.values()) for row in rows]
    titles = list(rows[0].cells)
    text = [f"| {' | '.join(cells)} |" for cells in (titles, ["---"] * len(titles), *table)]
    return "\n".join([*text, "", *(f"* {line}" for line in lines)]) + "\n"


def show(rows: Sequence[Row], lines: Sequence[str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(*rows[0].cells, box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(*row.cells.values())
    Console(width=max(Console().width, 150)).print(table)
    print("\n".join(lines))


def draw_pictures(jobs: Sequence[Job], kodak: Path, path: Path) -> bool:
    """One photograph with each noise, and what the first seed's runs that have ended make of it.

    Returns:
        Whether there was anything to draw.

    Raises:
        ValueError, OSError: the photograph cannot be read, or a run is not of colour images.
    """
    import numpy as np
    from PIL import Image

    from n2n_lightning.images import list_images
    from n2n_lightning.noise import make_noise
    from n2n_lightning.reporting.restored import draw_restored

    ended = [job for job in jobs if job.seed == jobs[0].seed and job.state in ENDED and job.checkpoint.is_file()]
    rows = {}
    for noise, (name, strength) in TESTED_WITH.items():
        nets = {job.experiment.title: job.checkpoint for job in ended if job.experiment.noise == noise}
        if nets:
            rows[f"{noise} {strength:g}"] = make_noise({"name": noise, name: strength}), nets
    if rows:
        with Image.open(list_images(kodak)[:PICTURED][-1]) as photograph:
            path.write_bytes(draw_restored(np.array(photograph.convert("RGB")), rows))
    return bool(rows)


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
    parser.add_argument("--model", help=f"default: {NETS['full']}, the paper's; {NETS['small']} for two cores")
    parser.add_argument("--only", default=",".join(TESTED_WITH), metavar="NOISE,...", help="default: %(default)s")
    parser.add_argument("--seeds", default="0", metavar="SEED,...", help="default: %(default)s")
    parser.add_argument("--collect", action="store_true", help="run nothing, print what there is")
    args, overrides = parser.parse_known_args(words)
    for word in overrides:
        key = word.lstrip("+~").partition("=")[0]
        if word.startswith("-") or "=" not in word:
            parser.error(f"{word} is neither an option nor an override such as trainer.max_epochs=2")
        if key in OURS or key.split(".")[0] in ("noise", "hydra"):
            parser.error(f"{word} is set by this command for each run; leave it out, or run train yourself")
    seeds = args.seeds.split(",")
    if not all(seed.isdigit() for seed in seeds):
        parser.error(f"--seeds takes whole numbers, got {args.seeds}")
    args.model = args.model or NETS[args.size]
    args.overrides, args.only, args.seeds = overrides, args.only.split(","), sorted(set(map(int, seeds)))
    unknown = sorted(set(args.only) - set(TESTED_WITH))
    if unknown:
        parser.error(f"--only takes {', '.join(TESTED_WITH)}, got {', '.join(unknown)}")
    for option in ("root", *BENCHMARKS):
        folder = getattr(args, option)
        if folder is not None and not args.collect and not Path(folder).is_dir():
            parser.error(f"--{option} must be a folder, got {folder}")
    return args


def main() -> int:
    args = parse()
    folders = {name: getattr(args, name) for name in BENCHMARKS if getattr(args, name)}
    jobs = make_jobs(args)
    codes = [cli.DONE]
    for number, job in enumerate(() if args.collect else jobs, 1):
        print(f"{number} of {len(jobs)}: {' '.join(job.overrides)}", flush=True)
        codes.append(run(job, folders))
        if codes[-1] in STOPPED:
            break
    rows = make_rows(jobs)
    lines = judge(rows)
    show(rows, lines)
    table = Path("outputs") / STUDIES[args.size] / "table.md"
    if set(args.only) == set(TESTED_WITH) and table.parent.is_dir():
        table.write_text(markdown(rows, lines))
        print(table)
        pictures = table.with_name("pictures.png")
        if args.kodak24 and codes[-1] not in STOPPED:
            try:
                drawn = draw_pictures(jobs, Path(args.kodak24), pictures)
                print(pictures if drawn else "no run to draw pictures of yet")
            except (ValueError, OSError) as error:
                print(f"no pictures: {error}")
    return max(codes)


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
