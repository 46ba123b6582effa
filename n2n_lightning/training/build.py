"""Compose a configuration, and build the data module and the model of the settings."""

from __future__ import annotations

import copy
import functools
from contextlib import nullcontext

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from n2n_lightning.data.choices import takes_noise
from n2n_lightning.data.datamodule import NoisyPairDataModule
from n2n_lightning.models.module import DenoiserModule, to_channels_last
from n2n_lightning.system.errors import suggest
from n2n_lightning.system.folders import config_folder
from n2n_lightning.system.hydra_app import group_choices, load_plugins, resolve_config
from n2n_lightning.training.settings import Config, DataSettings, RunSettings


def compose_model(model: str | None, *overrides: str) -> Config:
    """Compose the configuration of ``train`` with this model, None for the default; a ValueError if it is unknown."""
    load_plugins()
    names = group_choices("model")
    if model is not None and model not in names:
        raise ValueError(f"model must be one of {', '.join(names)}, got {model!r}{suggest(str(model), names)}")
    return copy.deepcopy(compose_known(*overrides, *([] if model is None else [f"model={model}"])))


@functools.cache  # it takes a tenth of a second, and every run needs it
def compose_known(*overrides: str) -> Config:
    """Compose the configuration of ``train`` with overrides that are right."""
    running = GlobalHydra.instance().is_initialized()  # inside a command that is a Hydra application itself
    with nullcontext() if running else initialize_config_dir(str(config_folder()), version_base="1.3"):
        return resolve_config(compose("train", [*overrides]))


def compose_own_images(model: str | None) -> RunSettings:
    """Compose the settings of ``train`` for pairs of one's own, with the model that suits these or another."""
    return RunSettings.unchecked(compose_model(model, "data=pairs", "data.source=null", "data.target=null"))


def build_datamodule(settings: DataSettings) -> NoisyPairDataModule:
    """Build the data module of the groups ``data`` and ``noise``."""
    noise = {"noise": settings.noise.values} if takes_noise(settings.data.name) else {}
    return NoisyPairDataModule(settings.data.build(**noise), seed=settings.seed, **settings.data.loader)


def build_module(settings: RunSettings, channels: int) -> DenoiserModule:
    """Build the module of the group ``model``, with its optimizer, loss and scheduler, for images of C channels."""
    scheduler = {"scheduler": settings.scheduler.values} if settings.scheduler.chosen else {}
    given = {"optimizer": settings.optimizer.values, "loss": settings.loss.values, "channels": channels}
    return to_channels_last(settings.model.build(**given, **scheduler))
