"""The losses for single noisy images by their names, and all choices of ``loss=``."""

from __future__ import annotations

import inspect
from collections import ChainMap
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from n2n_lightning.losses import LOSSES
from n2n_lightning.self_supervised.neighbor2neighbor import neighbor2neighbor
from n2n_lightning.self_supervised.noise2void import noise2void
from n2n_lightning.self_supervised.r2r import r2r
from n2n_lightning.self_supervised.zs_n2n import zs_n2n

SINGLE_LOSSES: dict[str, Callable[..., Tensor]] = {
    method.__name__: method for method in (neighbor2neighbor, noise2void, r2r, zs_n2n)
}
ALL_LOSSES = ChainMap(LOSSES, SINGLE_LOSSES)  # a view, which also has the losses that plugins register
ASKED_ARGUMENTS = ("progress", "variance")  # what a loss for single images can ask for
OF_SINGLE_LOSSES = ("net", "noisy", "seeds", *ASKED_ARGUMENTS)  # the arguments that are no settings


def arguments_taken(function: Callable[..., Any], names: Iterable[str]) -> tuple[str, ...]:
    """Return which of the names are arguments of a function."""
    taken = inspect.signature(function).parameters
    return tuple(name for name in names if name in taken)


def is_annealed(name: str) -> bool:
    """Return whether a loss changes over the training, so that a finished run cannot be made longer."""
    return name in ALL_LOSSES and bool(arguments_taken(ALL_LOSSES[name], ["progress"]))
