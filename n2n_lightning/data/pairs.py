"""``NoisyPair``, what gives batches of it, and pairs that are held in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from n2n_lightning.data.seeding import generator_on
from n2n_lightning.noise.pixelation import draw_cell_pixels

Stage = Literal["train", "val"]
STAGES: tuple[Stage, ...] = ("train", "val")
Targets = Literal["noisy", "clean"]


class NoisyPair(NamedTuple):
    """A batch of two noisy images of the same scenes, (N, C, H, W) each, and what else is known of the scenes.

    A source gives stored values: uint8 or float32 in 0..peak. A training step gets float32, 1 for the range.
    """

    source: Tensor
    target: Tensor | None  # a second image with noise of its own; None if there is only one
    clean: Tensor | None = None
    third: Tensor | None = None  # in validation: the mean of further noisy images
    group: Tensor | None = None  # in validation: (N,) int64, images of the same group are resampled together
    mask: Tensor | None = None  # (N, 1, H, W) bool: the pixels of the target to learn from; None for all
    seeds: Tensor | None = None  # single images: int64 for what their loss draws, (N,) in validation, (1,) in training
    weight: float = 1.0  # of the loss among the ranks of a run; 0 for an image that only keeps a rank busy

    def map(self, change: Callable[[Tensor], Tensor], *names: str) -> NoisyPair:
        """Return the pair with its tensors changed, all or those of ``names``; None stays None."""
        fields = {name: getattr(self, name) for name in names or self._fields}
        changed: dict[str, Any] = {n: change(value) for n, value in fields.items() if isinstance(value, Tensor)}
        return self._replace(**changed)

    @classmethod
    def joined(cls, parts: Sequence[NoisyPair]) -> NoisyPair:
        """Return one batch of all the images of several."""
        names = [name for name in cls._fields if isinstance(getattr(parts[0], name), Tensor)]
        joined: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        return parts[0]._replace(**joined)

    @property
    def counted(self) -> int:
        """The number of images that count."""
        return len(self.source) if self.weight else 0


class PairSource(Protocol):
    """An indexed set of pairs that gives whole batches."""

    image_shape: tuple[int, int, int]  # (C, H, W); of the first image where sizes differ
    one_size: bool  # whether a batch can hold several images
    has_clean: bool  # whether batches hold the clean images
    has_pairs: bool  # whether batches hold a second noisy image that may change places with the first

    @property
    def nbytes(self) -> int:
        """Size that ``to`` takes of a device's memory, bytes."""

    def to(self, device: torch.device) -> None:
        """Keep all images on ``device``, and make batches there."""

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor, rng: torch.Generator) -> NoisyPair:
        """Return the pairs at (B,) int64 indices; everything new is drawn from ``rng``, a CPU generator."""


class PairData(Protocol):
    """A data set, which reads nothing before one of its stages is loaded."""

    @property
    def peak(self) -> float:
        """The value that becomes 1.0."""

    @property
    def sample_type(self) -> str:
        """Type of the stored values: "uint8", "uint16", ..., or "float"."""

    def load(self, stage: Stage) -> PairSource: ...

    def fingerprint(self) -> str: ...


def check_at_least(least: int, example: int, **settings: int | None) -> None:
    """Raise ValueError if one of the settings of ``data`` is below ``least``; None passes."""
    for name, value in settings.items():
        if value is not None and value < least:
            raise ValueError(f"{name} must be {least} or more, got {value}; set data.{name}={example}")


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Move values without waiting for what the device still computes, where torch can do so."""
    return values.to(device, non_blocking=device.type == "cuda")  # MPS would give wrong values (pytorch#83015)


class TensorPairs:
    """Pairs held in memory as tensors of one shape and type.

    Args:
        source: (N, C, H, W) of any type; ``target`` and ``clean`` are like it, or None.
        targets: what ``target`` holds.
    """

    one_size = True

    def __init__(
        self, source: Tensor, target: Tensor | None, clean: Tensor | None = None, *, targets: Targets = "noisy"
    ) -> None:
        assert source.ndim == 4 and all(other is None or other.shape == source.shape for other in (target, clean))
        self.source, self.target, self.clean = source, target, clean
        channels, height, width = source.shape[1:]
        self.image_shape = (channels, height, width)
        self.has_clean, self.has_pairs = clean is not None, target is not None and targets == "noisy"

    def __len__(self) -> int:
        return len(self.source)

    @property
    def nbytes(self) -> int:
        return sum(images.nbytes for images in (self.source, self.target, self.clean) if images is not None)

    def to(self, device: torch.device) -> None:
        self.source = self.source.to(device)
        self.target, self.clean = (None if x is None else x.to(device) for x in (self.target, self.clean))

    def batch(self, indices: Tensor, rng: torch.Generator) -> NoisyPair:
        indices = to_device(indices, self.source.device)
        target, clean = (None if images is None else images[indices] for images in (self.target, self.clean))
        return NoisyPair(self.source[indices], target, clean)


class CellPairs:
    """Pairs that are drawn anew each time from the cells of photographs (see ``pixelation.draw_cell_pixels``).

    Args:
        cells: (N, H, W, K, C) uint8, may be memory-mapped; 192 KiB an image for 32x32 cells of 8x8 px in RGB.
        targets: "noisy", a second draw, or "clean", the cells' means.
    """

    has_clean, one_size = False, True

    def __init__(self, cells: Tensor, targets: Targets = "noisy") -> None:
        self.cells, self.has_pairs = cells, targets == "noisy"
        _, height, width, _, channels = cells.shape
        self.image_shape = (channels, height, width)

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def nbytes(self) -> int:
        return self.cells.nbytes

    def to(self, device: torch.device) -> None:
        self.cells = self.cells.to(device)

    def batch(self, indices: Tensor, rng: torch.Generator) -> NoisyPair:
        device = self.cells.device
        cells, rng = self.cells[to_device(indices, device)], generator_on(device, rng)
        source = draw_cell_pixels(cells, rng)
        if not self.has_pairs:
            return NoisyPair(source, cells.float().mean(3).round_().permute(0, 3, 1, 2).byte())
        return NoisyPair(source, draw_cell_pixels(cells, rng))
