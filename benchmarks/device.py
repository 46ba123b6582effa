"""Show what this machine's accelerator can do: ``python -m benchmarks.device --images FOLDER``.

Each part is a process with a time limit of its own. A part that fails leaves the others their turn. After each part,
``device.json`` in the output folder holds all that was found so far. ``--tiny`` tries every part in a minute on a CPU.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.device_results import graph_scores, last_line, log_lines, runs, saved
from benchmarks.measuring import machine
from benchmarks.tables import show
from n2n_lightning.data.photos import list_photographs
from n2n_lightning.system.atomic import write_json
from n2n_lightning.system.errors import run_command

ROOT = Path(__file__).parents[1]
SECONDS = 470  # of all parts together
GRACE_SECONDS = 10  # for a part that was asked to end
TWO, FIVE = "model=unet,convtrans_relu", "model=unet,nn_relu,nn_sigmoid,convtrans_relu,convtrans_sigmoid"
BF16 = "trainer.precision=bf16-mixed"
TINY_RUN = ("data.train_pairs=16", "data.val_pairs=4", "trainer.max_epochs=1")
TRAIN, VAL = "photographs/train", "photographs/val"  # folders of links, below WORK
COMMAND = "n2n_lightning.train"
WORK = "device_parts"  # folder below the output folder, made anew each time
PHOTOS = (f"data.root={TRAIN}", f"data.val_root={VAL}", "resume=false")


class Part(NamedTuple):
    """A part: a module and its arguments, in full and tiny; how long it may take; who reads what it has found."""

    name: str
    seconds: float
    module: str
    arguments: Sequence[str]
    full: Sequence[str]
    tiny: Sequence[str]
    find: Callable[[Path], list[str]]


def jobs(number: int) -> tuple[str, ...]:
    """Return the settings of a sweep with so many runs at a time."""
    return "hydra/launcher=joblib", f"hydra.launcher.n_jobs={number}"


TEST_FILES = str(ROOT / "tests/data/test_device_cache.py")
PARTS = (
    Part(
        "CUDA tests",
        *(100, "pytest", ("-p", "no:cacheprovider", "-m", "cuda")),
        *((str(ROOT / "tests"),), (TEST_FILES,), last_line("CUDA tests")),
    ),
    Part(
        "steps",
        *(150, "benchmarks.device_steps", ("--root", TRAIN), ()),
        ("--steps", "2", "--nets", "unet,convtrans_relu", "data.train_pairs=16", "data.batch_size=4"),
        saved("device_steps"),
    ),
    Part(
        "side by side",
        *(90, "benchmarks.device_side_by_side", (), ()),
        ("--nets", "convtrans_relu,convtrans_sigmoid", "--steps", "2", "--batch-size", "4"),
        saved("device_side_by_side"),
    ),
    Part(
        "building",
        *(60, "benchmarks.building", ("--root", TRAIN, "--cores", str(os.cpu_count()))),
        *((), ("--pairs", "64"), saved("building")),
    ),
    Part(  # before the study, which finds its pairs built
        "graph scores",
        *(75, COMMAND, ("-m", "experiment=five_models", "hydra.sweep.dir=graph", *PHOTOS, "graph=auto,false")),
        (TWO, "data.train_pairs=50000", "trainer.max_epochs=2", "scheduler=cosine", "seed=0,1,2", BF16, *jobs(12)),
        *(("model=convtrans_relu", *TINY_RUN), graph_scores),
    ),
    Part(
        "study",
        *(120, COMMAND, ("-m", "experiment=five_models", "hydra.sweep.dir=study", *PHOTOS, "graph=auto")),
        (FIVE, "data.train_pairs=50000", BF16, *jobs(5)),
        *((TWO, *TINY_RUN), runs("study")),
    ),
    Part(
        "predict",
        *(45, "benchmarks.device_predict", ("--images", TRAIN), (), ("--files", "2"), saved("device_predict")),
    ),
    Part(
        "big image",
        *(60, "benchmarks.device_predict", (), ("--big", "12000"), ("--big", "300"), saved("device_predict_big")),
    ),
    Part(
        "time to quality",
        *(90, "benchmarks.time_to_quality", ("--root", TRAIN, "--val-root", VAL), ("--seeds", "3")),
        *(("--seeds", "1", "--target", "1", *TINY_RUN), saved("time_to_quality")),
    ),
    Part(
        "paper",
        *(60, COMMAND, ("experiment=paper/gaussian", "hydra.run.dir=paper/unet", PHOTOS[0], PHOTOS[2])),
        ("data.train_pairs=4000", "trainer.max_epochs=2", BF16),
        *((*TINY_RUN, "data.crop_px=64"), runs("paper")),
    ),
)


def run_part(part: Part, folder: Path, seconds: float, *, tiny: bool) -> dict[str, Any]:
    """Run a part for at most so many seconds; return its status, the reason of a failure, and what it has found."""
    words = ["-m", part.module, *part.arguments, *(part.tiny if tiny else part.full)]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    log = folder / f"{part.name.replace(' ', '_')}.log"
    if not seconds:
        return {"status": "failed", "reason": "no time was left", "found": []}
    started, reason = time.perf_counter(), ""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": path, "COLUMNS": "200"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(seconds)
            if code:
                reason = [f"exit code {code}", *log_lines(folder, part.name)][-1]
        except subprocess.TimeoutExpired:
            reason = f"ended after its {seconds:.0f} s"
        finally:
            end(process)
    return {
        "status": "failed" if reason else "done",
        "reason": reason,
        "seconds": time.perf_counter() - started,
        "command": ["python", *words],
        "found": part.find(folder),
    }


def end(process: subprocess.Popen[bytes]) -> None:
    """End a part and all that it has started: it may save its state first."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):  # all have ended
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)


def link_photographs(images: Path, folder: Path) -> None:
    """Make folders of links to the photographs: every fifth is for validation."""
    for number, path in enumerate(list_photographs(images)):
        link = folder / (TRAIN if number % 5 else VAL) / f"{number:05}{path.suffix}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(path.resolve())


def rows(name: str, result: dict[str, Any]) -> list[list[str]]:
    """Return the table's rows of a part: its name and seconds beside the first line of what it has found."""
    told = [*result["found"], *([f"{result['status']}: {result['reason']}"] if result["reason"] else [])]
    first = [name, f"{result.get('seconds', 0):.0f}"]
    return [[*(first if not number else ("", "")), text] for number, text in enumerate(told or ["nothing was found"])]


def main() -> int:
    parser = argparse.ArgumentParser(description="Show what this machine's accelerator can do.")
    parser.add_argument("--images", type=Path, required=True, metavar="FOLDER", help="at least 6 photographs")
    parser.add_argument("--output", type=Path, default=Path("outputs/device"), metavar="DIR")
    parser.add_argument("--parts", default="", help="names of the parts to run, with commas between; default: all")
    parser.add_argument("--tiny", action="store_true", help="try every part in a minute on a CPU")
    args = parser.parse_args()
    names = [name.strip() for name in args.parts.split(",")] if args.parts else [part.name for part in PARTS]
    if unknown := set(names) - {part.name for part in PARTS}:
        parser.error(f"--parts must be of {', '.join(part.name for part in PARTS)}, got {', '.join(sorted(unknown))}")
    chosen = [part for part in PARTS if part.name in names]
    work = args.output.absolute() / WORK
    shutil.rmtree(work, ignore_errors=True)  # its results are not this time's
    link_photographs(args.images, work)
    found: dict[str, dict[str, Any]] = {}
    started = time.perf_counter()
    for part in chosen:
        limit = max(0.0, min(part.seconds, SECONDS - (time.perf_counter() - started)))
        print(f"{part.name}: at most {limit:.0f} s", file=sys.stderr, flush=True)
        found[part.name] = run_part(part, work, limit, tiny=args.tiny)
        write_json(args.output / "device.json", {"machine": machine(), "tiny": args.tiny, "parts": found})
    print(f"{machine()}; {time.perf_counter() - started:.0f} s; {args.output / 'device.json'}")
    show(
        ["part", "seconds", "found"], [row for name, result in found.items() for row in rows(name, result)], right=False
    )
    return int(any(result["reason"] for result in found.values()))


if __name__ == "__main__":
    sys.exit(run_command(main))
