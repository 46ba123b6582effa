"""Check every name, argument and value of a configuration, and list all faults at once."""

from __future__ import annotations

from typing import Any, Literal

import torch

from n2n_lightning.data.choices import DATA, takes_noise
from n2n_lightning.data.datamodule import NoisyPairDataModule
from n2n_lightning.losses import GIVEN_ARGUMENTS, LOSSES, MINIMUM_AT, extra_arguments
from n2n_lightning.models.families import FAMILIES
from n2n_lightning.models.module import (
    MODULE_ARGUMENTS,
    OPTIMIZERS,
    SCHEDULERS,
    build_from_spec,
    is_step_scheduler,
    make_optimizer,
)
from n2n_lightning.noise.choices import NOISES, make_noise
from n2n_lightning.system.errors import suggest
from n2n_lightning.system.plugins import plugin_of
from n2n_lightning.training.build import LOADER_KEYS, Config, build_datamodule, build_module, split_data
from n2n_lightning.training.callback_choices import callback_faults
from n2n_lightning.training.loggers import logger_faults
from n2n_lightning.training.signatures import argument_faults, construction_faults, describe_type, fits, spec_faults
from n2n_lightning.training.trainer_settings import trainer_faults

GROUPS = ("data", "noise", "loss", "scheduler", "optimizer", "model", "trainer", "logger")
TOP_LEVEL: dict[str, Any] = {
    "plugins": list[str],
    "study": str,
    "seed": int,
    "resume": bool,
    "init_from": str | None,
    "minutes": float | None,
    "patience": int | None,
    "ema": float | None,
    "compile": bool | Literal["reduce-overhead", "max-autotune"],
    "save_minutes": float | None,
    "save_steps": int | None,
    "callbacks": list[dict[str, Any]],
}


def check_config(config: Config) -> None:
    """Raise one ValueError that lists every fault. Nothing is read or written."""
    missing = [group for group in GROUPS if not isinstance(config.get(group), dict)]
    if missing:
        raise ValueError(f"{', '.join(missing)} must be a group of settings; choose one, such as {missing[0]}=NAME")
    checks = (
        *(top_level_faults, data_faults, loss_faults, optimizer_faults, model_faults),
        *(trainer_faults, logger_faults, callback_faults),
    )
    refuse([fault for find_faults in checks for fault in find_faults(config)])


def check_data(config: Config) -> None:
    """Do the same for a configuration that has only the groups ``data`` and ``noise``."""
    refuse(data_faults(config))


def refuse(faults: list[str]) -> None:
    """Raise a ValueError with one line for each fault, if there are any."""
    if faults:
        raise ValueError("\n".join(faults))


def top_level_faults(config: Config) -> list[str]:
    """Return the faults of the keys that are in no group."""
    known = (*GROUPS, *TOP_LEVEL)
    faults = [f"{key} is no setting{suggest(key, known)}" for key in config if key not in known]
    for key, hint in TOP_LEVEL.items():
        if key not in config or not fits(config[key], hint):
            faults.append(f"{key} must be {describe_type(hint)}, got {config.get(key)!r}; leave it out for its default")
    if isinstance(config.get("patience"), int) and config["patience"] < 1:
        faults.append(f"patience must be 1 or more, got {config['patience']}; set patience=5, or null for no early end")
    for key, value in (("minutes", 5), ("save_minutes", 5), ("save_steps", 1000)):
        if isinstance(config.get(key), (int, float)) and not config[key] > 0:
            faults.append(f"{key} must be above 0, got {config[key]}; set {key}={value}, or null for none")
    if isinstance(config.get("ema"), (int, float)) and not 0 < config["ema"] < 1:
        faults.append(f"ema must be above 0 and below 1, got {config['ema']}; set ema=0.999, or null for no averaging")
    if config.get("minutes"):
        faults += length_faults(config)
    if isinstance(config.get("seed"), int) and not 0 <= config["seed"] < 2**32:
        faults.append(f"seed must be from 0 to {2**32 - 1}, got {config['seed']}; set seed=0")
    return faults


def length_faults(config: Config) -> list[str]:
    """Return the settings that set another length than ``minutes``."""
    lengths = {"trainer.limit_train_batches": config["trainer"].get("limit_train_batches")}
    lengths["data.overfit_steps"] = config["data"].get("overfit_steps") or None
    return [
        f"minutes={config['minutes']:g} sets the length, and so does {key}={value}; leave out one (debug= sets it too)"
        for key, value in lengths.items()
        if value is not None
    ]


def data_faults(config: Config) -> list[str]:
    """Return the faults of the groups ``data`` and ``noise``."""
    data, loader = split_data(config["data"])
    faults = spec_faults("data", DATA, data, given=("noise",), also=LOADER_KEYS)
    faults += argument_faults("data", NoisyPairDataModule, loader, given=("data",))
    if takes_noise(data.get("name")):
        faults += noise_faults("noise", config["noise"]) or val_noise_faults(data.get("val_noise"), config["noise"])
    elif config["noise"]["name"] is not None:
        name = config["noise"]["name"]
        rule = f"noise={name} is only for data=clean, other data has its own noise"
        faults.append(f"{rule}; set noise=none, or data=clean")
    return faults or construction_faults("data", lambda: build_datamodule(config))


def noise_faults(where: str, noise: Config) -> list[str]:
    """Return the faults of a corruption, and of the steps of a chain."""
    faults = spec_faults(where, NOISES, noise)
    steps = noise["steps"] if noise["name"] == "chain" and not faults else ()
    for number, step in enumerate(steps):
        place = f"{where}.steps[{number}]"
        if isinstance(step, dict):
            faults += noise_faults(place, step)
        else:
            faults.append(f"{place} must be a corruption and its settings, got {step!r}; write {{name: gaussian, ...}}")
    return faults or construction_faults(where, lambda: make_noise(noise))


def val_noise_faults(changed: Any, noise: Config) -> list[str]:
    """Return the faults of the strengths that ``data.val_noise`` changes in ``noise``."""
    if not changed:
        return []
    if not isinstance(changed, dict) or {"name", "cell_px"} & set(changed):
        return [f"data.val_noise must be strengths of the noise, got {changed!r}; write {{sigma: 25}}"]
    return noise_faults("data.val_noise", noise | changed)


def loss_faults(config: Config) -> list[str]:
    """Return the faults of the group ``loss``, and of losses that do not suit the data."""
    loss, data = config["loss"], config["data"]
    name, single = loss.get("name"), data.get("name") == "single"
    faults = spec_faults("loss", LOSSES, loss, given=("estimate", "target", *GIVEN_ARGUMENTS))
    if name == "neighbor2neighbor" and not single:
        faults.append("loss=neighbor2neighbor is only for data=single; set loss=l2")
    if extra_arguments(str(name)) and single:
        faults.append(f"loss={name} is not for data=single; set loss=neighbor2neighbor")
    if name == "l0" and data.get("overfit_steps"):
        faults.append("loss=l0 ends at 1 for any estimate, so it cannot show overfitting; set loss=l1")
    if name in ("charbonnier", "l2_by_noise") and isinstance(loss.get("eps"), (int, float)) and not loss["eps"] > 0:
        faults.append(f"loss.eps must be above 0, got {loss['eps']}; set loss.eps=0.001")
    return faults


def optimizer_faults(config: Config) -> list[str]:
    """Return the faults of the groups ``optimizer`` and ``scheduler``."""
    optimizer, scheduler = config["optimizer"], config["scheduler"]
    weights = [torch.nn.Parameter(torch.zeros(1))]
    faults = spec_faults("optimizer", OPTIMIZERS, optimizer, given=("params", "differentiable"))
    faults = faults or construction_faults("optimizer", lambda: make_optimizer(optimizer, weights))
    if scheduler["name"] is None:
        return faults
    found = spec_faults("scheduler", SCHEDULERS, scheduler, given=("optimizer", "T_max"))
    if isinstance(scheduler.get("step_size"), int) and scheduler["step_size"] < 1:
        found.append(
            f"scheduler: step_size must be 1 or more, got {scheduler['step_size']}; set scheduler.step_size=10"
        )
    if not found:
        steps, sgd = {"T_max": 1} if is_step_scheduler(scheduler["name"]) else {}, torch.optim.SGD(weights)
        found = construction_faults("scheduler", lambda: build_from_spec(SCHEDULERS, scheduler, sgd, **steps))
    return faults + found


def model_faults(config: Config) -> list[str]:
    """Return the faults of the group ``model``."""

    def make_module() -> None:
        # "meta" takes no memory for the weights, but has no values, which a plugin's net may compute with
        with torch.device("cpu" if plugin_of("model", config["model"]["family"]) else "meta"):
            build_module(config | {"loss": {"name": "l2"}}, channels=3)

    given = (*MODULE_ARGUMENTS, "channels")
    faults = spec_faults("model", FAMILIES, config["model"], key="family", given=given)
    return faults or construction_faults("model", make_module)


def loss_advice(config: Config) -> str | None:
    """Return advice if the loss looks for a statistic of the targets that the noise changes, else None.

    L2 looks for the mean, L1 for the median, L0 for the mode. Each kind of noise keeps some of them at the clean value.
    """
    data, name = config["data"], config["loss"]["name"]
    added = takes_noise(data["name"])
    if data.get("targets", "noisy") == "clean" or not (added or data["name"] in ("photos", "ee559")):
        return None
    noise = config["noise"] if added else {"name": "pixelate"}
    keeps, finds = make_noise(noise).preserves, MINIMUM_AT.get(name)
    if finds is None or finds in keeps:
        return None
    if not keeps:
        return f"{noise['name']} noise keeps neither mean, median nor mode: set data.targets=clean"
    suitable = " or ".join(f"loss={loss}" for loss in ("l2", "l1", "l0") if MINIMUM_AT[loss] in keeps)
    kept = f"{noise['name']} noise keeps the {' and the '.join(sorted(keeps))} of the target"
    return f"{kept}, and loss={name} looks for the {finds}: try {suitable}"
