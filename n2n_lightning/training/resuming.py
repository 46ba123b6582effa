"""What an earlier run left in the folder: whether it is finished, where to resume it, what to delete."""

from __future__ import annotations

import sys
import time
from os.path import normpath
from pathlib import Path
from typing import Any

from n2n_lightning.models.checkpoint import read_checkpoint
from n2n_lightning.models.module import is_step_scheduler
from n2n_lightning.self_supervised.choices import is_annealed
from n2n_lightning.system.atomic import read_json
from n2n_lightning.system.command_words import TEXT_SETTINGS
from n2n_lightning.system.hydra_app import flatten
from n2n_lightning.system.run_names import SET_BY_MINUTES, another_folder, plain_values
from n2n_lightning.training.build import build_datamodule
from n2n_lightning.training.checkpointing import LAST, PREVIOUS
from n2n_lightning.training.run_metadata import RESULT_NEUTRAL
from n2n_lightning.training.settings import Config, RunSettings

LATER_SETTINGS: Config = {  # settings that earlier versions did not record -> their value in those versions
    **{"compile": False, "graph": False, "minutes": None, "callbacks": [], "plugins": []},
    **{"save_minutes": None, "save_steps": None},
    "data.targets": "noisy",
    "data.resident": None,
    **{"data.match_levels": False, "data.align": False, "data.val_areas": False},
}


CHANGED_DEFAULTS = ("init_from", "model", "optimizer", "scheduler")  # after 0.2.0, and these of ``data``:
CHANGED_DATA_DEFAULTS = ("batch_size", "train_pairs", "val_pairs", "augment")
NOT_COMPARED = ("model", "trainer.max_epochs")  # overrides: the folder is the model's, and a run may get more epochs


def recall_defaults(settings: RunSettings, folder: Path, labels: dict[str, Any]) -> RunSettings:
    """Return the settings with the defaults with which an earlier version began the same run in ``folder``.

    The model's name in ``labels`` is set too. Versions up to 0.2.0 recorded no ``minutes``. A run that failed starts
    over with today's defaults.
    """
    earlier = read_json(folder / "result.json")
    recorded = earlier.get("config") or {}
    if not recorded or "minutes" in recorded or earlier.get("status") == "failed" or not settings.resume:
        return settings
    then, now = (
        {key: value for key, value in found.items() if key not in NOT_COMPARED}
        for found in (plain_values(earlier.get("overrides", {})), labels.get("overrides", {}))
    )
    if then != now or recorded["data"]["name"] != settings.data.name:
        return settings
    config = settings.as_config()
    changes = {key: recorded.get(key) for key in CHANGED_DEFAULTS}
    changed_data = {key: recorded["data"][key] for key in CHANGED_DATA_DEFAULTS if key in recorded["data"]}
    labels["model"] = earlier.get("model", labels.get("model"))
    if any(config[key] != changes[key] for key in CHANGED_DEFAULTS[1:]):
        print(f"{folder.name}: going on with the defaults of the version that began it; resume=false starts over")
    return RunSettings.unchecked(config | changes | {"data": config["data"] | changed_data})


def is_finished(settings: RunSettings, folder: Path, *, in_search: bool = False) -> bool:
    """Return whether the folder holds this run, finished; refuse a run of another configuration.

    A search does not go on with a run that it has pruned; any other command trains it to its end.
    """
    earlier = read_json(folder / "result.json")
    if not earlier or not settings.resume:
        return False
    changes = changed_settings(earlier.get("config") or {}, settings.as_config())
    if extends_run(changes, settings):
        return False
    if changes:
        named = {
            key: values for key, values in changes.items() if "minutes" not in changes or key not in SET_BY_MINUTES
        }
        text = ", ".join(f"{key} ({before} there, {now} here)" for key, (before, now) in named.items())
        fix = f"{another_folder(folder, settings.study)}, or resume=false to replace that run"
        raise ValueError(f"{folder} holds a run of another configuration: {text}; {fix}")
    return earlier.get("status") in ("done", "dead", *(("pruned",) if in_search else ()))


def check_data_unchanged(settings: RunSettings, folder: Path) -> None:
    """Refuse to skip the finished run in ``folder`` if its data has changed or is gone.

    The hashes of image files come from the cache, so nothing is read again.
    """
    try:
        fingerprint = build_datamodule(settings).data.fingerprint()
    except (ValueError, OSError) as error:
        fix = f"put the data back; for other data, {another_folder(folder, settings.study)}"
        raise ValueError(f"the data that {folder} was trained on cannot be read now: {error}\n{fix}") from error
    check_fingerprint(fingerprint, folder, settings.study)


def check_fingerprint(fingerprint: str, folder: Path, study: str) -> None:
    """Refuse data with another fingerprint than that of the run in ``folder``; early versions recorded none."""
    if read_json(folder / "result.json").get("data", {}).get("fingerprint") not in (None, fingerprint):
        fix = f"{another_folder(folder, study)}, or resume=false to replace that run"
        raise ValueError(f"the data is not what {folder} was trained on; {fix}")


def changed_settings(earlier: Config, config: Config) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ and can change the result: dotted key -> value then and now.

    ``imgs/`` and ``./imgs`` are the folder ``imgs``.
    """
    before, now = (
        {key: normpath(value) if key in TEXT_SETTINGS and value else value for key, value in flatten(found).items()}
        for found in (earlier, config)
    )
    before |= {key: value for key, value in LATER_SETTINGS.items() if key in now and key not in before}
    keys = [key for key in sorted(before | now) if key not in RESULT_NEUTRAL and not key.startswith("logger.")]
    return {key: (before.get(key), now.get(key)) for key in keys if before.get(key) != now.get(key)}


def extends_run(changes: dict[str, tuple[Any, Any]], settings: RunSettings) -> bool:
    """Return whether the run only gets more epochs, and its learning rate and loss have not reached their end."""
    before, now = changes.get("trainer.max_epochs", (0, 0))
    scheduler = settings.scheduler.name
    ended = (scheduler is not None and is_step_scheduler(scheduler)) or is_annealed(str(settings.loss.name))
    return len(changes) == 1 and now > before and not ended


def find_resume_checkpoint(folder: Path) -> tuple[Path | None, int]:
    """Return the checkpoint to resume from and its global step: the last one, or if damaged the one before.

    Raises:
        ValueError: there are checkpoints, and none can be read.
    """
    paths, faults = [folder / "checkpoints" / name for name in (LAST, PREVIOUS)], []
    for path in filter(Path.exists, paths):
        try:
            step = read_checkpoint(path).get("global_step")
            if not isinstance(step, int):
                raise ValueError(f"{path} holds no state of training; it was stripped, or is of another kind")
        except ValueError as error:
            faults.append(str(error))
            continue
        if faults:
            print(f"warning: {faults[0]}; going on from {path.name}, step {step}", file=sys.stderr, flush=True)
        return path, step
    if faults:
        raise ValueError(f"{'; '.join(faults)}; set resume=false to start over")
    return None, 0


def remove_stale_results(folder: Path) -> None:
    """Delete the results of an earlier run, so that they are not taken for results of this one if it is cut off."""
    for pattern in ("result.json", "checkpoints/*.ckpt", "events.out.tfevents.*"):
        for stale in folder.glob(pattern):
            stale.unlink()


def wait_for_next_second(folder: Path) -> None:
    """Wait until a new event file gets a later second in its name: TensorBoard reads the files in order of names."""
    seconds = [int(path.name.split(".")[3]) for path in folder.glob("events.out.tfevents.*")]
    while time.time() < max(seconds, default=0) + 1 < time.time() + 2:  # do not wait for a clock that was set back
        time.sleep(0.05)
