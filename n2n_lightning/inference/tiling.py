"""Large images through a net in tiles that overlap far enough to give the result of the whole image.

A net is local when each output pixel depends on a bounded part of the input, its reach. Tiles start at multiples of the
net's stride. Around its own pixels each tile sees a margin (halo) of at least the reach, so that what lies beyond makes
no difference. Stride and reach are properties of the net; ``measure_reach`` finds the reach by experiment.
"""

from __future__ import annotations

import math
import weakref
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from n2n_lightning.image_io.image_file import Array

MIN_PROBE_PX, MAX_PROBE_PX = 1024, 4096  # a net whose reach is half of it counts as global
GLOBAL_HALO_PX = 64  # of tiles for a global net, when there is no memory for the whole image
PROBE_PX = 256


class Reach(NamedTuple):
    """How a net's output depends on its input."""

    stride: int  # px; the output shifts with the input in steps of it
    halo: int  # px, a multiple of the stride: margin that a tile must see around its own pixels
    is_local: bool  # False: every output pixel depends on the whole image, and the result of tiles differs


class Plan(NamedTuple):
    """Size of the tiles: rows and columns without the halo, px, multiples of the stride."""

    rows: int
    columns: int


@torch.inference_mode()
def measure_reach(net: Callable[[Tensor], Tensor], stride: int, channels: int) -> Reach:
    """Measure how far NaN spreads through the net.

    Args:
        net: takes (N, C, H, W) of any size.
        stride: px; the output shifts with the input in steps of it.
        channels: C.
    """
    size = math.ceil(MIN_PROBE_PX / 2 / stride) * 2 * stride
    while size <= MAX_PROBE_PX:
        spread = max(nan_spread(net, channels, stride, size, axis, flipped) for axis in (2, 3) for flipped in (0, 1))
        if spread < size // 2:
            return Reach(stride, max(math.ceil(spread / stride), 1) * stride, is_local=True)
        size *= 2
    return Reach(stride, math.ceil(GLOBAL_HALO_PX / stride) * stride, is_local=False)


def nan_spread(net: Callable[[Tensor], Tensor], channels: int, across: int, size: int, axis: int, flipped: int) -> int:
    """Return how many px NaN spreads from one half of an image into the other.

    The image has ``size`` px along ``axis``, 2 or 3, and ``across`` px along the other. The second half holds the NaN,
    or the first where ``flipped`` is 1.
    """
    shape = [1, channels, across, across]
    shape[axis] = size
    image = torch.zeros(shape)
    image.narrow(axis, 0 if flipped else size // 2, size // 2).fill_(math.nan)
    touched = net(image).isnan().any(dim=1)[0].any(dim=3 - axis).nonzero()
    return int(touched.max()) + 1 - size // 2 if flipped else size // 2 - int(touched.min())


class PeakBytes(TorchDispatchMode):
    """Measures the most bytes that tensors created inside take at one time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}  # by address

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        self.peak = max(self.peak, self.now)
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        address = storage.data_ptr()
        if address and address not in self._sizes:
            self._sizes[address] = storage.nbytes()
            self.now += storage.nbytes()
            weakref.finalize(storage, self._free, address)

    def _free(self, address: int) -> None:
        self.now -= self._sizes.pop(address)


@torch.inference_mode()
def bytes_per_px(net: Callable[[Tensor], Tensor], channels: int) -> float:
    """Return the most memory that the net needs for an image on the CPU, divided by the image's pixels."""
    image = torch.zeros(1, channels, PROBE_PX, PROBE_PX).contiguous(memory_format=torch.channels_last)
    with PeakBytes() as memory:
        net(image)
    return float(memory.peak + image.nbytes) / PROBE_PX**2


def plan_tiles(height: int, width: int, reach: Reach, fits: Callable[[int, int], bool]) -> Plan | None:
    """Return the tiles that fit and need the least computing; None when not even the smallest fit.

    Args:
        height, width: of the image, px.
        reach: of the net.
        fits: whether there is memory for a tile of these rows and columns, halo included.
    """
    side = reach.stride + 2 * reach.halo
    if not fits(min(height, side), min(width, side)):
        return None
    best: tuple[int, Plan] | None = None
    for parts in range(1, math.ceil(height / reach.stride) + 1):
        rows = math.ceil(height / parts / reach.stride) * reach.stride
        down = math.ceil(height / rows)
        tall = min(rows + 2 * reach.halo, height)
        columns = most_columns(tall, width, reach, fits)
        if columns is None:
            continue
        across = math.ceil(width / columns)
        columns = math.ceil(width / across / reach.stride) * reach.stride  # all of about the same size
        wide = min(columns + 2 * reach.halo, width)
        cost = down * tall * across * wide
        if best is None or cost < best[0]:
            best = cost, Plan(rows, columns)
        if across == 1:
            break  # lower tiles would only add to the overlap
    return best and best[1]


def most_columns(rows: int, width: int, reach: Reach, fits: Callable[[int, int], bool]) -> int | None:
    """Return the width, without halo, of the widest tile of ``rows`` rows, with halo, that fits; by bisection."""
    if fits(rows, width):
        return width
    strides = range(1, math.ceil(width / reach.stride))
    fitting = bisect_left(strides, True, key=lambda n: not fits(rows, min(n * reach.stride + 2 * reach.halo, width)))
    return fitting * reach.stride or None


def denoise_in_tiles(
    read: Callable[[int, int], Array],
    denoise: Callable[[Array], Array],
    height: int,
    width: int,
    reach: Reach,
    plan: Plan,
) -> Iterator[tuple[int, Array]]:
    """Denoise images tile by tile from the top down.

    Args:
        read: returns rows ``top`` to ``bottom`` of the noisy images: (images, rows, W, C).
        denoise: (images, h, w, C) -> same shape.
        height, width: of the images, px.
        reach: of the net in ``denoise``.
        plan: size of the tiles.

    Yields:
        The first row's number, and (images, rows, W, C).
    """
    for top in range(0, height, plan.rows):
        bottom = min(top + plan.rows, height)
        above, below = max(top - reach.halo, 0), min(bottom + reach.halo, height)
        band = read(above, below)
        rows: list[Array] = []
        for left in range(0, width, plan.columns):
            right = min(left + plan.columns, width)
            start, end = max(left - reach.halo, 0), min(right + reach.halo, width)
            tile = denoise(band[:, :, start:end])
            # a copy, because a slice would keep the whole tile in memory
            rows.append(tile[:, top - above : bottom - above, left - start : right - start].copy())
        yield top, np.concatenate(rows, axis=2) if len(rows) > 1 else rows[0]
