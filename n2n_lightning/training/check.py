"""Check every name, argument and value of a configuration, and list all faults at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from n2n_lightning.data.choices import takes_noise
from n2n_lightning.losses import MINIMUM_AT, extra_arguments
from n2n_lightning.self_supervised.choices import ASKED_ARGUMENTS, SINGLE_LOSSES, arguments_taken
from n2n_lightning.system.errors import suggest
from n2n_lightning.system.plugin_loading import plugin_of
from n2n_lightning.training.build import build_datamodule, build_module
from n2n_lightning.training.callback_choices import callback_faults
from n2n_lightning.training.graph_choice import graph_faults
from n2n_lightning.training.loggers import logger_faults
from n2n_lightning.training.settings import Config, DataSettings, LossChoice, NoiseChoice, RunSettings, setting_types
from n2n_lightning.training.signatures import construction_faults, describe_type, fits
from n2n_lightning.training.trainer_settings import trainer_faults


def check_config(config: Config) -> RunSettings:
    """Return the settings of a configuration; raise one ValueError that lists every fault. Nothing is read."""
    groups, others = setting_types()
    missing = [group for group in groups if not isinstance(config.get(group), dict)]
    if missing:
        raise ValueError(f"{', '.join(missing)} must be a group of settings; choose one, such as {missing[0]}=NAME")
    settings = RunSettings.unchecked(dict.fromkeys(others) | config)
    faults = top_level_faults(config) + length_faults(settings) + data_faults(settings) + loss_faults(settings)
    faults += settings.optimizer.faults() + settings.scheduler.faults() + model_faults(settings)
    faults += trainer_faults(settings.trainer) + logger_faults(settings.logger) + callback_faults(settings.callbacks)
    refuse(faults or graph_faults(settings))
    return settings


def check_data(config: Config) -> DataSettings:
    """Do the same for a configuration that has only the groups ``data`` and ``noise``."""
    settings = DataSettings.unchecked(config)
    refuse(data_faults(settings))
    return settings


def refuse(faults: list[str]) -> None:
    """Raise a ValueError with one line for each fault, if there are any."""
    if faults:
        raise ValueError("\n".join(faults))


def top_level_faults(config: Config) -> list[str]:
    """Return the faults of the keys that are in no group."""
    groups, others = setting_types()
    known = (*groups, *others)
    faults = [f"{key} is no setting{suggest(key, known)}" for key in config if key not in known]
    for key, hint in others.items():
        if key not in config or not fits(config[key], hint):
            faults.append(f"{key} must be {describe_type(hint)}, got {config.get(key)!r}; leave it out for its default")
    if isinstance(config.get("patience"), int) and config["patience"] < 1:
        faults.append(f"patience must be 1 or more, got {config['patience']}; set patience=5, or null for no early end")
    for key, value in (("minutes", 5), ("save_minutes", 5), ("save_steps", 1000)):
        if isinstance(config.get(key), (int, float)) and not config[key] > 0:
            faults.append(f"{key} must be above 0, got {config[key]}; set {key}={value}, or null for none")
    if isinstance(config.get("ema"), (int, float)) and not 0 < config["ema"] < 1:
        faults.append(f"ema must be above 0 and below 1, got {config['ema']}; set ema=0.999, or null for no averaging")
    if isinstance(config.get("seed"), int) and not 0 <= config["seed"] < 2**32:
        faults.append(f"seed must be from 0 to {2**32 - 1}, got {config['seed']}; set seed=0")
    return faults


def length_faults(settings: RunSettings) -> list[str]:
    """Return the settings that set another length than ``minutes``."""
    lengths = {"trainer.limit_train_batches": settings.trainer.get("limit_train_batches")}
    lengths["data.overfit_steps"] = settings.data.values.get("overfit_steps") or None
    return [
        f"minutes={settings.minutes:g} sets the length, and so does {key}={value}; leave out one (debug= sets it too)"
        for key, value in lengths.items()
        if settings.minutes and value is not None
    ]


def data_faults(settings: DataSettings) -> list[str]:
    """Return the faults of the groups ``data`` and ``noise``."""
    data, noise = settings.data, settings.noise
    faults = data.faults()
    if takes_noise(data.name):
        faults += noise.faults() or val_noise_faults(data.values.get("val_noise"), noise)
    elif noise.name is not None:
        rule = f"noise={noise.name} is only for data=clean, other data has its own noise"
        faults.append(f"{rule}; set noise=none, or data=clean")
    return faults or construction_faults("data", lambda: build_datamodule(settings))


def val_noise_faults(changed: Any, noise: NoiseChoice) -> list[str]:
    """Return the faults of the strengths that ``data.val_noise`` changes in ``noise``."""
    if not changed:
        return []
    if not isinstance(changed, dict) or {"name", "cell_px"} & set(changed):
        return [f"data.val_noise must be strengths of the noise, got {changed!r}; write {{sigma: 25}}"]
    return NoiseChoice("data.val_noise", noise.values | changed).faults()


def loss_faults(settings: RunSettings) -> list[str]:
    """Return the faults of the group ``loss``, and of losses that do not suit the data."""
    loss, data = settings.loss.values, settings.data.values
    name, single = settings.loss.name, settings.data.name == "single"
    faults = settings.loss.faults()
    if name in SINGLE_LOSSES and not single:
        faults.append(f"loss={name} is only for data=single; set loss=l2")
    if loss.get("mask") in ("rows", "columns") and "rotate" in (data.get("augment") or ()):
        rule = f"data.augment must not rotate images whose noise lies along {loss['mask']}, got {data['augment']}"
        faults.append(f"{rule}; set data.augment=[flip]")
    if name in SINGLE_LOSSES and not faults:
        faults += construction_faults("loss", lambda: try_single_loss(settings.loss))
    if extra_arguments(str(name)) and single:
        faults.append(f"loss={name} is not for data=single; set loss=neighbor2neighbor")
    if name == "l0" and data.get("overfit_steps"):
        faults.append("loss=l0 ends at 1 for any estimate, so it cannot show overfitting; set loss=l1")
    if name in ("charbonnier", "l2_by_noise") and isinstance(loss.get("eps"), (int, float)) and not loss["eps"] > 0:
        faults.append(f"loss.eps must be above 0, got {loss['eps']}; set loss.eps=0.001")
    return faults


def try_single_loss(loss: LossChoice) -> None:
    """Call a loss for single images with its settings, on a small image; it raises ValueError for a wrong one."""
    chosen = {"mask": "none"} if loss.values.get("mask") == "auto" else {}  # train chooses it when it sees the images
    method = SINGLE_LOSSES[str(loss.name)]
    given = {"progress": 0.0, "variance": ([0.0], [1.0])}
    asked = {name: given[name] for name in arguments_taken(method, ASKED_ARGUMENTS)}
    method(
        lambda noisy: noisy,
        torch.zeros(1, 1, 16, 16),
        torch.zeros(1, dtype=torch.int64),
        **asked | loss.arguments | chosen,
    )


def model_faults(settings: RunSettings) -> list[str]:
    """Return the faults of the group ``model``."""

    def make_module() -> None:
        # "meta" takes no memory for the weights, but has no values, which a plugin's net may compute with
        with torch.device("cpu" if plugin_of("model", settings.model.name) else "meta"):
            build_module(replace(settings, loss=LossChoice("loss", {"name": "l2"})), channels=3)

    return settings.model.faults() or construction_faults("model", make_module)


def loss_advice(settings: RunSettings) -> str | None:
    """Return advice if the loss looks for a statistic of the targets that the noise changes, else None.

    L2 looks for the mean, L1 for the median, L0 for the mode. Each kind of noise keeps some of them at the clean value.
    """
    data, name = settings.data, str(settings.loss.name)
    added = takes_noise(data.name)
    if data.values.get("targets", "noisy") == "clean" or not (added or data.name in ("photos", "ee559")):
        return None
    noise = settings.noise if added else NoiseChoice("noise", {"name": "pixelate"})
    keeps, finds = noise.build().preserves, MINIMUM_AT.get(name)
    if finds is None or finds in keeps:
        return None
    if not keeps:
        return f"{noise.name} noise keeps neither mean, median nor mode: set data.targets=clean"
    suitable = " or ".join(f"loss={loss}" for loss in ("l2", "l1", "l0") if MINIMUM_AT[loss] in keeps)
    kept = f"{noise.name} noise keeps the {' and the '.join(sorted(keeps))} of the target"
    return f"{kept}, and loss={name} looks for the {finds}: try {suitable}"
