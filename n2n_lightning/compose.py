"""From a plain configuration to objects, after a check of every name, argument and value that lists all faults."""

from __future__ import annotations

import difflib
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch

from n2n_lightning.datamodule import NoisyPairDataModule
from n2n_lightning.ee559 import Ee559Data
from n2n_lightning.families import FAMILIES
from n2n_lightning.losses import LOSSES
from n2n_lightning.module import OPTIMIZERS, SCHEDULERS, DenoiserModule, build, channels_last
from n2n_lightning.pairs import PairData
from n2n_lightning.photos import PhotoData

Config = dict[str, Any]
DATA: dict[str, Callable[..., PairData]] = {"ee559": Ee559Data, "photos": PhotoData}
LOADER_KEYS = tuple(
    set(inspect.signature(NoisyPairDataModule).parameters) - {"data", "seed"}
)  # the rest of ``data`` is the data set's


def check_config(config: Config) -> None:
    """Raise one ValueError that lists every fault; nothing is read or written."""
    faults = data_faults(config)
    faults += check_spec("loss", LOSSES, config["loss"], given=("estimate", "target"))
    faults += check_spec("optimizer", OPTIMIZERS, config["optimizer"], given=("params",))
    if config["scheduler"]["name"] is not None:
        faults += check_spec("scheduler", SCHEDULERS, config["scheduler"], given=("optimizer",), optional=("T_max",))
    model_args = {key: value for key, value in config["model"].items() if value is not None}
    faults += check_spec("model", FAMILIES, model_args, key="family", given=("optimizer", "loss", "scheduler"))
    faults += check_arguments("trainer", pl.Trainer, config["trainer"])
    if not isinstance(config["seed"], int) or config["seed"] < 0:
        faults.append(f"seed must be a whole number from 0, got {config['seed']!r}; set seed=0")
    if not faults:  # names and types are right: now the values, as the constructors themselves see them
        faults += try_values(config)
    if faults:
        raise ValueError("\n".join(faults))


def check_data(config: Config) -> None:
    """``check_config`` for a configuration that only names data."""
    faults = data_faults(config)
    if not faults:
        build_datamodule(config)
    else:
        raise ValueError("\n".join(faults))


def data_faults(config: Config) -> list[str]:
    """Wrong names and types in the ``data`` group."""
    data_args, loader_args = split_data(config["data"])
    faults = check_spec("data", DATA, data_args)
    return faults + check_arguments("data", NoisyPairDataModule, loader_args, given=("data",))


def try_values(config: Config) -> list[str]:
    """Build all that can be built without data, and collect what the constructors say."""

    def make_optimizer() -> None:
        optimizer = build(OPTIMIZERS, config["optimizer"], [torch.nn.Parameter(torch.zeros(1))])
        if config["scheduler"]["name"] is not None:
            build(
                SCHEDULERS,
                config["scheduler"],
                optimizer,
                **({"T_max": 1} if config["scheduler"]["name"] == "cosine" else {}),
            )

    def make_module() -> None:
        with torch.device("meta"):
            build_module(config, channels=3)

    def make_trainer() -> None:
        epochs = config["trainer"]["max_epochs"]
        if not isinstance(epochs, int) or epochs < 1:
            raise ValueError(f"max_epochs must be 1 or more, got {epochs}; set trainer.max_epochs=20")
        pl.Trainer(
            **config["trainer"],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    faults = []
    for where, make in (
        ("data", lambda: build_datamodule(config)),
        ("optimizer", make_optimizer),
        ("model", make_module),
        ("trainer", make_trainer),
    ):
        try:
            make()
        except Exception as error:  # whatever a library's constructor objects to, the user has set it
            faults.append(f"{where}: {error}")
    return faults


def split_data(data: Config) -> tuple[Config, Config]:
    """The ``data`` group -> the data set's own settings (with its name), and the loader's."""
    return (
        {key: value for key, value in data.items() if key not in LOADER_KEYS},
        {key: value for key, value in data.items() if key in LOADER_KEYS},
    )


def build_datamodule(config: Config) -> NoisyPairDataModule:
    data_args, loader_args = split_data(config["data"])
    return NoisyPairDataModule(build(DATA, data_args), **{"seed": config.get("seed", 0)} | loader_args)


def build_module(config: Config, channels: int) -> DenoiserModule:
    """The family's module; ``channels`` is the data's, which ``model.channels`` may override."""
    arguments = {"channels": channels} | {k: v for k, v in config["model"].items() if v is not None and k != "family"}
    scheduler = config["scheduler"] if config["scheduler"]["name"] is not None else None
    family = FAMILIES[config["model"]["family"]]
    return channels_last(family(optimizer=config["optimizer"], loss=config["loss"], scheduler=scheduler, **arguments))


def check_spec(
    where: str,
    table: Mapping[str, Callable[..., Any]],
    spec: Config,
    *,
    key: str = "name",
    given: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> list[str]:
    """Faults of ``{key: name, argument: value, ...}``: the name is in the table, the arguments fit what it names."""
    name = str(spec.get(key))
    if name not in table:
        return [f"{where}.{key} must be one of {', '.join(table)}, got {name!r}{near_match(name, table)}"]
    arguments = {k: v for k, v in spec.items() if k != key}
    return check_arguments(where, table[name], arguments, given=given, optional=optional)


def check_arguments(
    where: str,
    function: Callable[..., Any],
    arguments: Config,
    *,
    given: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> list[str]:
    """Faults of calling ``function`` with ``arguments`` beside those that are ``given`` otherwise."""
    parameters = {name: p for name, p in inspect.signature(function).parameters.items() if name not in given}
    hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    faults = []
    for name, value in arguments.items():
        if name not in parameters:
            takes = ", ".join(parameters) or "no settings"
            faults.append(f"{where}.{name} is no setting here{near_match(name, parameters)}; {where} takes {takes}")
        elif not fits(value, hints.get(name, Any)):
            expected = describe(hints[name])
            faults.append(f"{where}.{name} must be {expected}, got {value!r}; set {where}.{name} to such a value")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in arguments and name not in optional:
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
        return "a list"
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", types.NoneType: "null"}
    return words.get(hint, str(hint))


def fits_plain(hint: Any) -> bool:
    """Whether YAML can express a type."""
    return typing.get_origin(hint) is not None or hint in (int, float, str, bool, types.NoneType)


def near_match(name: str, names: typing.Iterable[str]) -> str:
    """ "; did you mean 'x'?", or nothing."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
