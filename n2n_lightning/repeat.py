"""A run once more, from its own record, and compared with it: ``python -m n2n_lightning.repeat RUN [--study NAME]``."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from n2n_lightning.reporting.runs import Run, read_run
from n2n_lightning.system import errors

TOLERANCE = 0.01  # of the best values, relative, where versions or device differ: rounding adds up over a training
ELSE = ("device", "git_commit")  # of the environment, beside versions; a processor's device counts its threads
SCORES = ("val/psnr", "val/psnr_pooled", "val/psnr_pairs", "val/ssim", "val/loss", "noisy_psnr")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 equal as far as the environment promises, 1 not so, 2 the record cannot be repeated."""
    about = (
        "Train a finished run again with its recorded configuration, and compare; a finished repeat is only compared."
    )
    parser = argparse.ArgumentParser(prog="python -m n2n_lightning.repeat", description=about)
    parser.add_argument("run", metavar="RUN", type=Path, help="a run's folder, or its result.json")
    parser.add_argument("--study", metavar="NAME", default="repeats", help="folder below outputs (default: repeats)")
    args = parser.parse_args(argv)
    return errors.run_command(lambda: repeat(read_original(args.run), args.study))


def read_original(path: Path) -> Run:
    """The run to repeat; an InputError where there is none that has ended."""
    try:
        run = read_run(path.parent if path.name == "result.json" else path)
    except (OSError, ValueError) as error:
        raise errors.InputError(f"RUN must be a run's folder or its result.json, got {path}: {error}") from error
    if run.status not in ("done", "dead") or not run.part("config"):
        raise errors.InputError(
            f"RUN must be a finished run, {path} is {run.status}; give one that is done, or finish it"
        )
    return run


def repeat(original: Run, study: str) -> int:
    """Train as ``train`` does, print the comparison, and judge."""
    from n2n_lightning.train import run_job, save_hydra_files
    from n2n_lightning.training.resuming import LATER_SETTINGS

    folder = Path("outputs") / study / original.folder.resolve().name
    if folder.resolve() == original.folder.resolve():
        raise errors.InputError(f"{folder} is the original itself; give another --study NAME")
    older = {
        key: value for key, value in LATER_SETTINGS.items() if "." not in key
    }  # settings that its version may not have had
    config: dict[str, Any] = older | original.part("config") | {"study": study, "resume": True}
    task = [f"{key}={value}" for key, value in original.overrides.items()]
    names = {"model": original.model, "overrides": original.overrides}
    outcome = run_job(folder, names, lambda: config, lambda config: save_hydra_files(folder, config, task))
    if outcome.code != errors.DONE:
        return outcome.code
    good, lines = compare_repeat(original, read_run(folder))
    print("\n".join(lines), flush=True)
    return errors.DONE if good else errors.FAILED


def compare_repeat(original: Run, again: Run) -> tuple[bool, list[str]]:
    """Whether the second run is what the environment promises of it, and what there is to say."""
    prints = {run.part("data").get("fingerprint") for run in (original, again)}
    sets = {"metrics.csv": (table_cells(original), table_cells(again)), "best values": (best(original), best(again))}
    found = {name: largest(*both) for name, both in sets.items()} | weights(original, again)
    there, here = (run.part("versions") | {key: run.record.get(key) for key in ELSE} for run in (original, again))
    other = [key for key in sorted(there | here) if there.get(key) != here.get(key)]
    lines = [f"data: {'the same' if len(prints) == 1 else 'not what the original was trained on'}"]
    told = {name: f"differ, most by {by:.3g}: {where}" if by else "equal" for name, (by, where) in found.items()}
    lines += [f"{name}: {text}" for name, text in told.items()]
    changes = [f"{key} {there.get(key)} there, {here.get(key)} here" for key in other]
    lines.append(f"environment: {'; '.join(changes) or 'the same versions, device, threads and git commit'}")

    device, trainer = str(here["device"]), original.part("config")["trainer"]
    repeatable = device.endswith(" threads") or trainer.get("deterministic")  # a processor, or told to be
    if not any(by for by, _ in found.values()):
        verdict, good = "the repeat is the original, bit for bit", True
    elif repeatable and set(other) <= {"git_commit"}:
        verdict, good = "the repeat is not the original, though versions and device are the same", False
    else:
        good = all(math.isclose(v, best(again).get(k, math.inf), rel_tol=TOLERANCE) for k, v in best(original).items())
        verdict = f"best values are {'' if good else 'not '}within {TOLERANCE:.0%}; the environment promises no more"
    return good and len(prints) == 1, [*lines, verdict]


def table_cells(run: Run) -> dict[str, float]:
    """Every cell of ``metrics.csv``, but for the seconds."""
    columns = {name: curve for name, curve in run.history.items() if name != "seconds"}
    return {f"{name} in epoch {epoch}": value for name, curve in columns.items() for epoch, value in curve.items()}


def best(run: Run) -> dict[str, float]:
    return {key: number for key in SCORES if (number := run.number(key)) is not None}


def largest(there: dict[str, float], here: dict[str, float]) -> tuple[float, str]:
    """The largest difference of two sets of numbers, and where it is; infinite for what one of them lacks."""
    by = {key: abs(there.get(key, math.inf) - here.get(key, -math.inf)) for key in there | here}
    return max(((number, key) for key, number in by.items()), default=(0.0, ""))


def weights(original: Run, again: Run) -> dict[str, tuple[float, str]]:
    """Checkpoint -> the largest difference of its weights; of those that the original still has."""
    from n2n_lightning.models.checkpoint import read_checkpoint

    found = {}
    for name in ("best.ckpt", "last.ckpt"):
        paths = [run.folder / "checkpoints" / name for run in (original, again)]
        if paths[0].exists():
            there, here = (read_checkpoint(path)["state_dict"] for path in paths)
            by = [((there[key].double() - here[key].double()).abs().max().item(), key) for key in there.keys() & here]
            found[name] = max(by) if there.keys() == here.keys() else (math.inf, "names of the weights")
    return found


if __name__ == "__main__":
    sys.exit(main())
