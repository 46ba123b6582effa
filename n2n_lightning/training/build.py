"""Build the data module and the model from a plain configuration."""

from __future__ import annotations

import copy
import functools
import inspect
from contextlib import nullcontext
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from n2n_lightning.data.choices import DATA, takes_noise
from n2n_lightning.data.datamodule import NoisyPairDataModule
from n2n_lightning.models.families import FAMILIES
from n2n_lightning.models.module import DenoiserModule, build_from_spec, to_channels_last
from n2n_lightning.system.errors import suggest
from n2n_lightning.system.folders import config_folder
from n2n_lightning.system.hydra_app import group_choices, load_plugins, resolve_config

Config = dict[str, Any]
LOADER_KEYS = tuple(
    name for name in inspect.signature(NoisyPairDataModule).parameters if name not in ("data", "seed")
)  # the other keys of the group ``data`` belong to the data set


def split_data(data: Config) -> tuple[Config, Config]:
    """Split the group ``data`` into the settings of the data set, with its name, and those of the loader."""
    return (
        {key: value for key, value in data.items() if key not in LOADER_KEYS},
        {key: value for key, value in data.items() if key in LOADER_KEYS},
    )


def compose_model(model: str | None, *overrides: str) -> Config:
    """Compose the configuration of ``train`` with this model, None for the default; a ValueError if it is unknown."""
    load_plugins()
    names = group_choices("model")
    if model is not None and model not in names:
        raise ValueError(f"model must be one of {', '.join(names)}, got {model!r}{suggest(model, names)}")
    return copy.deepcopy(compose_known(*overrides, *([] if model is None else [f"model={model}"])))


@functools.cache  # it takes a tenth of a second, and every run needs it
def compose_known(*overrides: str) -> Config:
    """Compose the configuration of ``train`` with overrides that are right."""
    running = GlobalHydra.instance().is_initialized()  # inside a command that is a Hydra application itself
    with nullcontext() if running else initialize_config_dir(str(config_folder()), version_base="1.3"):
        return resolve_config(compose("train", [*overrides]))


def compose_own_images(model: str | None) -> Config:
    """Compose the configuration of ``train`` for pairs of one's own, with the model that suits these or another."""
    return compose_model(model, "data=pairs", "data.source=null", "data.target=null")


def build_datamodule(config: Config) -> NoisyPairDataModule:
    """Build the data module of the groups ``data`` and ``noise``."""
    data_args, loader_args = split_data(config["data"])
    noise = {"noise": config["noise"]} if takes_noise(data_args["name"]) else {}
    return NoisyPairDataModule(
        build_from_spec(DATA, data_args, **noise), **{"seed": config.get("seed", 0)} | loader_args
    )


def build_module(config: Config, channels: int) -> DenoiserModule:
    """Build the module of the group ``model``, with its optimizer, loss and scheduler, for images of C channels."""
    arguments = {key: value for key, value in config["model"].items() if key != "family"}
    arguments |= {"optimizer": config["optimizer"], "loss": config["loss"], "channels": channels}
    if config["scheduler"]["name"] is not None:
        arguments["scheduler"] = config["scheduler"]
    return to_channels_last(FAMILIES[config["model"]["family"]](**arguments))
