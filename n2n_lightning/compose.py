"""From a plain configuration to objects, after a check of every name, argument and value that lists all faults."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir

from n2n_lightning.cli import config_folder, nearest, plain
from n2n_lightning.datamodule import NoisyPairDataModule
from n2n_lightning.families import FAMILIES
from n2n_lightning.losses import EXTRA_ARGUMENTS, FINDS, LOSSES
from n2n_lightning.module import BY_STEP, OPTIMIZERS, SCHEDULERS, DenoiserModule, build, channels_last, make_optimizer
from n2n_lightning.noise import NOISES, make_noise
from n2n_lightning.pairs import PairData
from n2n_lightning.sources.clean import CleanData
from n2n_lightning.sources.ee559 import Ee559Data
from n2n_lightning.sources.paired import BurstData, PairsData
from n2n_lightning.sources.photos import PhotoData
from n2n_lightning.sources.single import SingleData

Config = dict[str, Any]
DATA: dict[str, Callable[..., PairData]] = {
    "burst": BurstData,
    "clean": CleanData,
    "ee559": Ee559Data,
    "pairs": PairsData,
    "photos": PhotoData,
    "single": SingleData,
}
LOADER_KEYS = tuple(
    name for name in inspect.signature(NoisyPairDataModule).parameters if name not in ("data", "seed")
)  # the rest of ``data`` is the data set's

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
        defaults = {"T_max": 1} if scheduler["name"] in BY_STEP else {}
        build(SCHEDULERS, scheduler, torch.optim.SGD(weights), **defaults)

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
    faults += found or what_it_says("optimizer", lambda: make_optimizer(optimizer, weights))
    if scheduler["name"] is not None:
        found = check_spec("scheduler", SCHEDULERS, scheduler, given=("optimizer", "T_max"))
        faults += found or what_it_says("scheduler", make_scheduler)
    found = check_spec("model", FAMILIES, model, key="family", given=("optimizer", "loss", "scheduler", "channels"))
    faults += found or what_it_says("model", make_module)
    found = check_arguments("trainer", pl.Trainer, trainer, given=TRAINER_OURS)
    faults += found or what_it_says("trainer", make_trainer)
    if faults:
        raise ValueError("\n".join(faults))


def check_top_level(config: Config) -> list[str]:
    """Faults of the configuration's own keys."""
    known = (*GROUPS, *TOP_LEVEL)
    faults = [f"{key} is no setting{nearest(key, known)}" for key in config if key not in known]
    for key, hint in TOP_LEVEL.items():
        if key not in config or not fits(config[key], hint):
            faults.append(f"{key} must be {describe(hint)}, got {config.get(key)!r}; leave it out for its default")
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
    return found or what_it_says("data", lambda: build_datamodule(config))


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


def advice(config: Config) -> str | None:
    """What to say where the loss looks for a statistic of the noisy targets that is not the clean image."""
    data, name = config["data"], config["loss"]["name"]
    if data.get("targets", "noisy") == "clean" or data["name"] not in ("clean", "photos", "ee559"):
        return None
    noise = config["noise"] if data["name"] == "clean" else {"name": "pixelate"}
    keeps, finds = make_noise(noise).keeps, FINDS[name]
    if finds in keeps:
        return None
    if not keeps:
        return f"{noise['name']} noise keeps neither mean, median nor mode: set data.targets=clean"
    suiting = " or ".join(f"loss={loss}" for loss in ("l2", "l1", "l0") if FINDS[loss] in keeps)
    what = " and the ".join(sorted(keeps))
    return f"{noise['name']} noise keeps the {what} of the target, and loss={name} looks for the {finds}: try {suiting}"


def what_it_says(where: str, make: Callable[[], object]) -> list[str]:
    """Build something without data, and pass on what its constructor objects to."""
    try:
        make()
    except Exception as error:  # whatever a library's constructor objects to, the user has set it
        return [f"{where}: {error}"]
    return []


def split_data(data: Config) -> tuple[Config, Config]:
    """The ``data`` group -> the data set's own settings (with its name), and the loader's."""
    return (
        {key: value for key, value in data.items() if key not in LOADER_KEYS},
        {key: value for key, value in data.items() if key in LOADER_KEYS},
    )


def compose_model(model: str) -> Config:
    """The configuration of ``train`` with a model of ``conf/model`` and all else as it is by default.

    Raises:
        ValueError: there is no such model.
    """
    folder = config_folder()
    names = sorted(path.stem for path in (folder / "model").glob("*.yaml"))
    if model not in names:
        raise ValueError(f"model must be one of {', '.join(names)}, got {model!r}{nearest(model, names)}")
    with initialize_config_dir(str(folder), version_base="1.3"):
        return plain(compose("train", [f"model={model}"]))


def build_datamodule(config: Config) -> NoisyPairDataModule:
    data_args, loader_args = split_data(config["data"])
    noise = {"noise": config["noise"]} if data_args["name"] == "clean" else {}
    return NoisyPairDataModule(build(DATA, data_args, **noise), **{"seed": config.get("seed", 0)} | loader_args)


def build_module(config: Config, channels: int) -> DenoiserModule:
    """The model's family for images of so many channels."""
    parts = {"optimizer": config["optimizer"], "loss": config["loss"], "channels": channels}
    if config["scheduler"]["name"] is not None:
        parts["scheduler"] = config["scheduler"]
    arguments = {key: value for key, value in config["model"].items() if key != "family"}
    return channels_last(FAMILIES[config["model"]["family"]](**parts, **arguments))


def check_spec(
    where: str,
    table: Mapping[str, Callable[..., Any]],
    spec: Config,
    *,
    key: str = "name",
    given: Sequence[str] = (),
    also: Sequence[str] = (),
) -> list[str]:
    """Faults of ``{key: name, argument: value, ...}``: the name is in the table, the arguments fit what it names."""
    name = str(spec.get(key))
    if name not in table:
        return [f"{where}.{key} must be one of {', '.join(table)}, got {name!r}{nearest(name, table)}"]
    arguments = {k: v for k, v in spec.items() if k != key}
    return check_arguments(where, table[name], arguments, given=given, also=also)


def check_arguments(
    where: str,
    function: Callable[..., Any],
    arguments: Config,
    *,
    given: Sequence[str] = (),
    also: Sequence[str] = (),
) -> list[str]:
    """Faults of calling ``function`` with ``arguments`` beside those that are ``given`` otherwise.

    ``also`` are settings of the same group that another part takes; a misspelt one may have been meant.
    """
    parameters = {name: p for name, p in inspect.signature(function).parameters.items() if name not in given}
    hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    faults = []
    for name, value in arguments.items():
        if name not in parameters:
            names = [*parameters, *also]
            takes = ", ".join(names) or "no settings"
            faults.append(f"{where}.{name} is no setting here{nearest(name, names)}; {where} takes {takes}")
        elif not fits(value, hints.get(name, Any)):
            expected = describe(hints[name])
            faults.append(f"{where}.{name} must be {expected}, got {value!r}; set {where}.{name} to such a value")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in arguments:
            faults.append(f"{where}.{name} is needed and not set; set {where}.{name}=...")
    return faults


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value (of YAML) suits a type hint; hints that YAML cannot express let everything through."""
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, choice) for choice in choices)
    if origin is typing.Literal:
        return value in choices
    if origin in (list, tuple, Sequence):
        items = [choice for choice in choices if choice is not Ellipsis]
        if origin is tuple and Ellipsis not in choices and isinstance(value, (list, tuple)):
            return len(value) == len(items) and all(map(fits, value, items))
        return isinstance(value, (list, tuple)) and all(fits(item, items[0]) for item in value)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (str, bool, types.NoneType):
        return isinstance(value, hint)
    return hint is Any or not inspect.isclass(hint)


def describe(hint: Any) -> str:
    """A type hint in words."""
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " or ".join(map(repr, choices))
    if origin in (typing.Union, types.UnionType):
        plain = [describe(choice) for choice in choices if fits_plain(choice)]
        return " or ".join(plain)
    if origin in (list, tuple, Sequence):
        return "a list" if origin is not tuple or Ellipsis in choices else f"a list of {len(choices)}"
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", types.NoneType: "null"}
    return words.get(hint, str(hint))


def fits_plain(hint: Any) -> bool:
    """Whether YAML can express a type."""
    return typing.get_origin(hint) is not None or hint in (int, float, str, bool, types.NoneType)
