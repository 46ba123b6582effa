"""Check every name, argument and value of a configuration, and list all faults at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytorch_lightning as pl
import torch

from n2n_lightning.data.datamodule import NoisyPairDataModule
from n2n_lightning.losses import EXTRA_ARGUMENTS, LOSSES, MINIMUM_AT
from n2n_lightning.models.families import FAMILIES
from n2n_lightning.models.module import (
    OPTIMIZERS,
    SCHEDULERS,
    STEP_SCHEDULERS,
    build_from_spec,
    make_optimizer,
)
from n2n_lightning.noise.choices import NOISES, make_noise
from n2n_lightning.system.errors import suggest
from n2n_lightning.training.build import DATA, LOADER_KEYS, Config, build_datamodule, build_module, split_data
from n2n_lightning.training.signatures import check_arguments, check_spec, describe_type, fits

GROUPS = ("data", "noise", "loss", "scheduler", "optimizer", "model", "trainer")


TOP_LEVEL: dict[str, Any] = {
    "study": str,
    "seed": int,
    "resume": bool,
    "init_from": str | None,
    "patience": int | None,
    "ema": float | None,
    "compile": bool | Literal["reduce-overhead", "max-autotune"],
    "save_minutes": float | None,
    "save_steps": int | None,
}


TRAINER_OURS = (  # arguments of the Trainer that training.py gives, or that its record of every epoch rests on
    *("logger", "callbacks", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"),
    *("num_sanity_val_steps", "default_root_dir", "check_val_every_n_epoch", "val_check_interval", "fast_dev_run"),
    *("min_epochs", "min_steps", "max_steps", "max_time", "plugins"),
)


def check_config(config: Config) -> None:
    """Raise one ValueError that lists every fault; nothing is read or written."""
    missing = [group for group in GROUPS if not isinstance(config.get(group), dict)]
    if missing:
        raise ValueError(f"{', '.join(missing)} must be a group of settings; choose one, such as {missing[0]}=NAME")
    faults = check_top_level(config)
    optimizer, scheduler, model, trainer = (config[key] for key in ("optimizer", "scheduler", "model", "trainer"))
    weights = [torch.nn.Parameter(torch.zeros(1))]

    def make_scheduler() -> None:
        defaults = {"T_max": 1} if scheduler["name"] in STEP_SCHEDULERS else {}
        build_from_spec(SCHEDULERS, scheduler, torch.optim.SGD(weights), **defaults)

    def make_module() -> None:
        with torch.device("meta"):
            build_module(config | {"loss": {"name": "l2"}}, channels=3)

    def make_trainer() -> None:
        if not isinstance(trainer.get("max_epochs"), int) or trainer["max_epochs"] < 1:
            raise ValueError(
                f"max_epochs must be 1 or more, got {trainer.get('max_epochs')}; set trainer.max_epochs=20"
            )
        for key in ("limit_train_batches", "limit_val_batches"):
            if trainer.get(key) == 0:
                raise ValueError(f"{key} must be above 0, got 0; set trainer.{key}=null")
        if trainer.get("devices") != 1:
            raise ValueError(f"devices must be 1, got {trainer.get('devices')}; set trainer.devices=1")
        pl.Trainer(**trainer, logger=False, enable_checkpointing=False, enable_model_summary=False)

    faults += data_faults(config)
    faults += check_spec("loss", LOSSES, config["loss"], given=("estimate", "target", "progress", "source"))
    if config["loss"].get("name") == "neighbor2neighbor" and config["data"].get("name") != "single":
        faults.append("loss=neighbor2neighbor is for data=single alone; set loss=l2")
    if config["loss"].get("name") in EXTRA_ARGUMENTS and config["data"].get("name") == "single":
        faults.append(f"loss={config['loss']['name']} is not for data=single; set loss=neighbor2neighbor")
    if config["loss"].get("name") == "l0" and config["data"].get("overfit_steps"):
        faults.append("loss=l0 says nothing of a single batch, since it ends at 1 for any; set loss=l1")
    if isinstance(config["loss"].get("eps"), (int, float)) and not config["loss"]["eps"] > 0:
        faults.append(f"loss.eps must be above 0, got {config['loss']['eps']}; set loss.eps=0.001")
    found = check_spec("optimizer", OPTIMIZERS, optimizer, given=("params",))
    faults += found or construction_errors("optimizer", lambda: make_optimizer(optimizer, weights))
    if scheduler["name"] is not None:
        found = check_spec("scheduler", SCHEDULERS, scheduler, given=("optimizer", "T_max"))
        faults += found or construction_errors("scheduler", make_scheduler)
    found = check_spec("model", FAMILIES, model, key="family", given=("optimizer", "loss", "scheduler", "channels"))
    faults += found or construction_errors("model", make_module)
    found = check_arguments("trainer", pl.Trainer, trainer, given=TRAINER_OURS)
    faults += found or construction_errors("trainer", make_trainer)
    if faults:
        raise ValueError("\n".join(faults))


def check_top_level(config: Config) -> list[str]:
    """Faults of the configuration's own keys."""
    known = (*GROUPS, *TOP_LEVEL)
    faults = [f"{key} is no setting{suggest(key, known)}" for key in config if key not in known]
    for key, hint in TOP_LEVEL.items():
        if key not in config or not fits(config[key], hint):
            faults.append(f"{key} must be {describe_type(hint)}, got {config.get(key)!r}; leave it out for its default")
    if isinstance(config.get("patience"), int) and config["patience"] < 1:
        faults.append(f"patience must be 1 or more, got {config['patience']}; set patience=5, or null for no such end")
    for key, value in (("save_minutes", 5), ("save_steps", 1000)):
        if isinstance(config.get(key), (int, float)) and not config[key] > 0:
            faults.append(f"{key} must be above 0, got {config[key]}; set {key}={value}, or null for none")
    if isinstance(config.get("ema"), (int, float)) and not 0 < config["ema"] < 1:
        faults.append(f"ema must be above 0 and below 1, got {config['ema']}; set ema=0.999, or null for no averaging")
    if isinstance(config.get("seed"), int) and not 0 <= config["seed"] < 2**32:
        faults.append(f"seed must be from 0 to {2**32 - 1}, got {config['seed']}; set seed=0")
    return faults


def check_data(config: Config) -> None:
    """``check_config`` for a configuration that only names data."""
    faults = data_faults(config)
    if faults:
        raise ValueError("\n".join(faults))


def data_faults(config: Config) -> list[str]:
    """Faults of the ``data`` and ``noise`` groups."""
    data_args, loader_args = split_data(config["data"])
    noise, noisy = config["noise"], data_args.get("name") == "clean"
    found = check_spec("data", DATA, data_args, given=("noise",), also=LOADER_KEYS)
    found += check_arguments("data", NoisyPairDataModule, loader_args, given=("data",))
    if noisy:
        changed = data_args.get("val_noise") or {}
        if not isinstance(changed, dict) or {"name", "cell_px"} & set(changed):
            found.append(f"data.val_noise must be strengths of the noise, got {changed!r}; write {{sigma: 25}}")
        else:
            found += noise_faults("noise", noise) or noise_faults("data.val_noise", noise | changed)
    elif noise["name"] is not None:
        found.append(f"noise={noise['name']} is for data=clean alone, other data brings its own; set noise=none")
    return found or construction_errors("data", lambda: build_datamodule(config))


def noise_faults(where: str, noise: Config) -> list[str]:
    """Faults of a corruption, and of the steps of a chain."""
    found = check_spec(where, NOISES, noise)
    if noise["name"] != "chain" or found:
        return found
    steps = [(f"{where}.steps[{number}]", step) for number, step in enumerate(noise["steps"])]
    return [
        fault
        for place, step in steps
        for fault in (
            noise_faults(place, step)
            if isinstance(step, dict)
            else [f"{place} must be a corruption and its settings, got {step!r}; write {{name: gaussian, sigma: 25}}"]
        )
    ]


def loss_advice(config: Config) -> str | None:
    """What to say where the loss looks for a statistic of the noisy targets that is not the clean image."""
    data, name = config["data"], config["loss"]["name"]
    if data.get("targets", "noisy") == "clean" or data["name"] not in ("clean", "photos", "ee559"):
        return None
    noise = config["noise"] if data["name"] == "clean" else {"name": "pixelate"}
    keeps, finds = make_noise(noise).preserves, MINIMUM_AT[name]
    if finds in keeps:
        return None
    if not keeps:
        return f"{noise['name']} noise keeps neither mean, median nor mode: set data.targets=clean"
    suiting = " or ".join(f"loss={loss}" for loss in ("l2", "l1", "l0") if MINIMUM_AT[loss] in keeps)
    what = " and the ".join(sorted(keeps))
    return f"{noise['name']} noise keeps the {what} of the target, and loss={name} looks for the {finds}: try {suiting}"


def construction_errors(where: str, make: Callable[[], object]) -> list[str]:
    """Build something without data, and pass on what its constructor objects to."""
    try:
        make()
    except Exception as error:  # whatever a library's constructor objects to, the user has set it
        return [f"{where}: {error}"]
    return []
