"""The choices of ``noise=``: every kind of noise by its name, and chains of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from n2n_lightning.losses import Statistic
from n2n_lightning.noise import kinds
from n2n_lightning.noise.kinds import Noise


class Chain(Noise):
    """Several corruptions, one after the other; ``noise=chain``.

    A chain preserves what all its steps preserve. But the median is preserved only if all steps before the last one
    preserve everything: noise after text spreads the values, which moves the median.

    Args:
        steps: for each step, its name in ``NOISES`` and its arguments.
    """

    def __init__(self, steps: Sequence[Mapping[str, Any]]) -> None:
        if not steps:
            raise ValueError("steps must name one corruption or more, got none; set noise.steps=[{name:gaussian}]")
        self.steps = [make_noise(step) for step in steps]
        if any(step.cell_px > 1 for step in self.steps[1:]):
            raise ValueError("pixelate can only be the first of noise.steps; put it there")
        for before, step in pairwise(self.steps):
            below_zero = isinstance(before, kinds.Gaussian | kinds.Brown | kinds.PoissonGaussian)
            if below_zero and isinstance(step, kinds.Poisson | kinds.PoissonGaussian):
                raise ValueError("photons cannot be counted after noise that goes below 0; put poisson before that")
        self.cell_px, self.masks = self.steps[0].cell_px, any(step.masks for step in self.steps)
        self.preserves = frozenset[Statistic].intersection(*(step.preserves for step in self.steps))
        if any(step.preserves != kinds.ALL for step in self.steps[:-1]):
            self.preserves -= {"median"}

    def clean(self, images: Tensor) -> Tensor:
        return self.steps[0].clean(images)

    def corrupt(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return self.corrupt_target(images, rng)[0]

    def corrupt_target(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        common: Tensor | None = None
        for step in self.steps:
            images, mask = step.corrupt_target(images, rng)
            if mask is not None:
                common = mask if common is None else common & mask
        return images, common

    def with_shared_strength(self, images: Tensor, rng: torch.Generator) -> Noise:
        chain = copy(self)
        chain.steps = [step.with_shared_strength(images, rng) for step in self.steps]
        return chain


NOISES: dict[str, Callable[..., Noise]] = {
    "gaussian": kinds.Gaussian,
    "brown": kinds.Brown,
    "poisson": kinds.Poisson,
    "poisson_gaussian": kinds.PoissonGaussian,
    "bernoulli": kinds.Bernoulli,
    "impulse": kinds.Impulse,
    "text": kinds.Text,
    "pixelate": kinds.Pixelate,
    "clip": kinds.Clip,
    "chain": Chain,
}


def make_noise(spec: Mapping[str, Any]) -> Noise:
    """Build the noise that ``{"name": a name in NOISES, argument: value, ...}`` describes."""
    return NOISES[spec["name"]](**{key: value for key, value in spec.items() if key != "name"})
