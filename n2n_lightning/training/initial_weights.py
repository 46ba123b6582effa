"""The weights that a run starts from: drawn, of a checkpoint, or by default trained ones that fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from n2n_lightning.models.checkpoint import load_denoiser
from n2n_lightning.models.module import MODULE_ARGUMENTS, DenoiserModule
from n2n_lightning.models.trained import GENERAL, find_trained
from n2n_lightning.training.build import build_module
from n2n_lightning.training.settings import RunSettings

OWN_IMAGES = ("burst", "clean", "pairs", "single")  # choices of data= that start from it
LEARNT_NOISES = ("gaussian", "poisson", "poisson_gaussian", None)  # None: the noise of the images themselves
FOLDED = ("unet", "nafnet", "dncnn")  # families whose nets for colours serve grey images exactly
NOT_OF_THE_NET = (*MODULE_ARGUMENTS, "channels")  # arguments of a family that describe no net


def find_initial(settings: RunSettings) -> DenoiserModule | None:
    """Return the denoiser that ``init_from`` names, or with "auto" the general one if it is of this model.

    Raises:
        ValueError: there is no such checkpoint, or it cannot be used.
    """
    name = settings.init_from
    if name != "auto":
        return None if name is None else load_denoiser(name)
    if settings.data.name not in OWN_IMAGES or settings.noise.name not in LEARNT_NOISES:
        return None
    path = find_trained().get(GENERAL)
    if path is None:
        return None
    initial = load_denoiser(path)
    return initial if initial.family == settings.model.name else None


def starts_trained(settings: RunSettings, initial: DenoiserModule | None, channels: int) -> bool:
    """Return whether a run on images of C channels starts from the weights that ``find_initial`` has found."""
    return initial is not None and bool(start_from(initial, build_module(settings, channels), str(settings.init_from)))


def net_arguments(module: DenoiserModule) -> dict[str, Any]:
    """Return what describes the module's net, but for its channels."""
    return {key: value for key, value in dict(module.hparams).items() if key not in NOT_OF_THE_NET}


def start_from(initial: DenoiserModule, module: DenoiserModule, name: str) -> str | None:
    """Copy the weights of ``initial`` into the module; return a line about it, or None if the default does not fit.

    Args:
        initial: of as many channels as the module, or of 3 for a module of 1: then the result is the mean over the
            channels of what it gives for an image whose channels are equal.
        name: ``init_from``.

    Raises:
        ValueError: the weights do not fit.
    """
    channels, theirs = (m.hparams["channels"] for m in (module, initial))
    fits = channels == theirs or (channels, theirs, initial.family in FOLDED) == (1, 3, True)
    if name == "auto" and not (fits and net_arguments(module) == net_arguments(initial)):
        return None
    if not fits:
        raise ValueError(
            f"init_from={name} is for images of {theirs} channels, the data has {channels}; set init_from=null"
        )
    weights = initial.net.state_dict()
    try:
        module.net.load_state_dict(weights if channels == theirs else for_grey(weights, module.net.state_dict()))
    except RuntimeError as error:
        raise ValueError(
            f"init_from={name} holds a {initial.family} net that does not fit this model; set model=... to its model"
        ) from error
    source = f"weights/{GENERAL}" if name == "auto" else Path(name).as_posix()
    return f"starting from {source}"


def for_grey(weights: dict[str, Tensor], shapes: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a net for one channel, from those of a net for three.

    Its layers add up what three equal channels would give, and its last one takes the mean of three. So the result is
    the mean over the channels, but for nets that do more than add at the end, such as ``red30``.
    """

    def fold(weight: Tensor, shape: tuple[int, ...]) -> Tensor:
        for axis in range(min(weight.ndim, 2)):
            if weight.shape[axis] == shape[axis] + 2:  # the image's channels come last where others are beside them
                others, image = weight.split([shape[axis] - 1, 3], axis)
                image = image.sum(1, keepdim=True) if axis == 1 else image.mean(0, keepdim=True)
                weight = torch.cat([others, image], axis)
        return weight

    return {name: fold(weight, tuple(shapes[name].shape)) for name, weight in weights.items() if name in shapes}
