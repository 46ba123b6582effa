"""Train a run again from its record, and compare the two: ``python -m n2n_lightning.repeat RUN [--study NAME]``."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from n2n_lightning.reporting.runs import Run, read_run
from n2n_lightning.system import errors, plugin_loading
from n2n_lightning.system.arguments import add_plugins_option, make_parser
from n2n_lightning.system.folders import suggest_path

TOLERANCE = 0.01  # relative, of the best values; with other versions or devices, rounding errors add up
ENVIRONMENT = ("device", "git_commit")  # beside the versions; the device of a CPU includes the number of threads
SCORES = ("val/psnr", "val/psnr_pooled", "val/psnr_pairs", "val/ssim", "val/loss", "noisy_psnr")

Difference = tuple[float, str]  # the largest difference of two sets of numbers, and the number that it is of


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 the runs are as equal as their environments allow, 1 not, 2 RUN cannot be repeated."""

    def run() -> int:
        arguments = parse(argv)
        return repeat(read_original(arguments.run), arguments.study)

    return errors.run_command(run)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(
        "repeat",
        "Train a finished run again with its recorded configuration, and compare the results. A repeat "
        "that is finished already is only compared.",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="a run's folder, or its result.json")
    parser.add_argument("--study", metavar="NAME", default="repeats", help="folder below outputs (default: repeats)")
    add_plugins_option(parser)
    return parser.parse_args(argv)


def read_original(path: Path) -> Run:
    """Read the run to repeat; an InputError if there is none, or if it has not ended."""
    if not path.exists():
        fault = f"{path}, which does not exist{suggest_path(path)}"
        raise errors.InputError(f"RUN must be a run's folder or its result.json, got {fault}")
    try:
        run = read_run(path.parent if path.name == "result.json" else path)
    except (OSError, ValueError) as error:
        raise errors.InputError(f"RUN must be a run's folder or its result.json, got {path}: {error}") from error
    if run.status not in ("done", "dead") or not run.part("config"):
        rule = f"RUN must be a finished run, {path} is {run.status}"
        raise errors.InputError(f"{rule}; give one that is done, or finish it")
    plugin_loading.load()
    used = run.part("plugins")  # group=name -> plugin
    if missing := [key for key in used if plugin_loading.plugin_of(*key.partition("=")[::2]) is None]:
        plugin = used[missing[0]]
        names = ", ".join(key for key in missing if used[key] == plugin)
        how = plugin_loading.how_to_name(plugin, ways=("--plugins {}",))
        raise errors.InputError(f"{path} was trained with {names}; {how}")
    return run


def repeat(original: Run, study: str) -> int:
    """Train as ``train`` does, print the comparison, and return the exit code."""
    from n2n_lightning.train import run_job, save_hydra_files
    from n2n_lightning.training.resuming import LATER_SETTINGS

    folder = Path("outputs") / study / original.folder.resolve().name
    if folder.resolve() == original.folder.resolve():
        raise errors.InputError(f"{folder} is the original itself; give another --study NAME")
    # settings that did not exist yet in the version that trained the original
    later = {key: value for key, value in LATER_SETTINGS.items() if "." not in key}
    other = {"study": study, "resume": True, "minutes": None, "logger": {}}
    config: dict[str, Any] = later | original.part("config") | other
    task = [f"{key}={value}" for key, value in original.overrides.items()]
    names = {"model": original.model, "overrides": original.overrides}
    outcome = run_job(folder, names, lambda: config, lambda config: save_hydra_files(folder, config, task))
    if outcome.code != errors.DONE:
        return outcome.code
    good, lines = compare_repeat(original, read_run(folder))
    print("\n".join(lines), flush=True)
    return errors.DONE if good else errors.FAILED


def compare_repeat(original: Run, again: Run) -> tuple[bool, list[str]]:
    """Return whether the second run is as equal to the first as their environments allow, and lines that say why."""
    same_data = original.part("data").get("fingerprint") == again.part("data").get("fingerprint")
    found = {
        "metrics.csv": largest_difference(metric_values(original), metric_values(again)),
        "best values": largest_difference(best_values(original), best_values(again)),
        **weight_differences(original, again),
    }
    there, here = (
        run.part("versions") | {key: run.record.get(key) for key in ENVIRONMENT} for run in (original, again)
    )
    changed = [key for key in sorted(there | here) if there.get(key) != here.get(key)]
    lines = [f"data: {'the same' if same_data else 'not what the original was trained on'}"]
    for name, (difference, where) in found.items():
        lines.append(f"{name}: {f'differ, most by {difference:.3g}: {where}' if difference else 'equal'}")
    changes = [f"{key} {there.get(key)} there, {here.get(key)} here" for key in changed]
    lines.append(f"environment: {'; '.join(changes) or 'the same versions, device, threads and git commit'}")

    on_cpu = str(here["device"]).endswith(" threads")
    repeatable = on_cpu or original.part("config")["trainer"].get("deterministic")
    if not any(difference for difference, _ in found.values()):
        good, verdict = True, "the repeat is the original, bit for bit"
    elif repeatable and set(changed) <= {"git_commit"}:
        good, verdict = False, "the repeat is not the original, though versions and device are the same"
    else:
        values, others = best_values(original), best_values(again)
        good = all(math.isclose(value, others.get(key, math.inf), rel_tol=TOLERANCE) for key, value in values.items())
        verdict = f"best values are {'' if good else 'not '}within {TOLERANCE:.0%}; the environment promises no more"
    return good and same_data, [*lines, verdict]


def metric_values(run: Run) -> dict[str, float]:
    """Return every number of ``metrics.csv`` except the seconds."""
    columns = {name: curve for name, curve in run.history.items() if name != "seconds"}
    return {f"{name} in epoch {epoch}": value for name, curve in columns.items() for epoch, value in curve.items()}


def best_values(run: Run) -> dict[str, float]:
    return {key: number for key in SCORES if (number := run.number(key)) is not None}


def largest_difference(there: dict[str, float], here: dict[str, float]) -> Difference:
    """Return the largest difference of numbers with the same name; infinite if a name is missing on one side."""
    differences = ((abs(there.get(key, math.inf) - here.get(key, -math.inf)), key) for key in there | here)
    return max(differences, default=(0.0, ""))


def weight_differences(original: Run, again: Run) -> dict[str, Difference]:
    """Return checkpoint -> largest difference of its weights, for the checkpoints that the original still has."""
    from n2n_lightning.models.checkpoint import read_checkpoint

    found = {}
    for name in ("best.ckpt", "last.ckpt"):
        paths = [run.folder / "checkpoints" / name for run in (original, again)]
        if paths[0].exists():
            there, here = (read_checkpoint(path)["state_dict"] for path in paths)
            if there.keys() == here.keys():
                found[name] = max(((there[key].double() - here[key].double()).abs().max().item(), key) for key in there)
            else:
                found[name] = (math.inf, "names of the weights")
    return found


if __name__ == "__main__":
    sys.exit(main())
