"""``Denoiser``: a trained net for arrays of any size and type; large ones go through it in tiles."""

from __future__ import annotations

import copy
import math
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.data.array_forms import FEW_CHANNELS, as_nhwc, find_axes, from_nhwc, to_numpy
from n2n_lightning.image_io.image_file import Array
from n2n_lightning.image_io.net_scale import Scale, find_offset, find_scale
from n2n_lightning.image_io.value_range import (
    clip_bounds,
    clipping_text,
    covering_range,
    find_span,
    finite_limits,
    image_limits,
    known_range,
    scale_fault,
)
from n2n_lightning.inference.passes import Passes
from n2n_lightning.inference.tiling import Plan, Reach, bytes_per_px, denoise_in_tiles, measure_reach, plan_tiles
from n2n_lightning.models.checkpoint import find_checkpoint, load_denoiser, save_denoiser
from n2n_lightning.models.grey import knows_grey
from n2n_lightning.models.module import DenoiserModule

WORKING_BYTES = 3.5e9  # default of the memory that denoising may take
FLOATS_BESIDE_NET = 4  # per channel: copies of a tile on its way in and out
FLOATS_BESIDE_PASSES = 6  # per channel: the sum, and copies that are flipped, padded or cut into sub-images
FLOATS_TO_255 = 256.0  # the range that floats in 0..255 have, see ``covering_range``
BATCH_PX = 2**18  # small images go through the net together
DEVICE_SHARE = 0.5  # of the free memory of a device, for a tile; its libraries need some, too
device_turn = threading.Lock()  # one tile at a time on a device: its memory is planned so


class DeviceMemoryError(ValueError):
    """The memory of the net's device is too small even for the smallest tiles."""


class Denoiser:
    """Denoise arrays, and train on pairs of noisy ones.

    Example, with two noisy images of each scene, ``first`` and ``second``:

        >>> from n2n_lightning import Denoiser
        >>> denoiser = Denoiser().fit(first, second, minutes=5)
        >>> clean = denoiser.denoise(first)
        >>> denoiser.save("mine.ckpt")
        >>> same = Denoiser.load("mine.ckpt").denoise(first)

    Before any training it denoises with the weights that training would start from, and warns.

    Args:
        model: a name in ``conf/model`` for a net to be trained by ``fit``, or a module (``Denoiser.load``). None: the
            net that suits one's own images, nafnet32. Training starts from ``weights/general`` where these fit (that
            net, 1 or 3 channels), otherwise from random weights; ``start`` tells which.
        per_channel: put each channel through the net by itself, as an image whose channels are all equal. A denoiser
            that was loaded and has learnt grey images does so by itself where the number of channels is another.
        bf16: let the net compute in bfloat16: faster on some CPUs, to about 3 digits.
        working_bytes: memory for denoising; larger images go through in tiles.
        passes: how often, and in which forms, an image goes through the net. ``Passes(spacings=(2,))`` is for noise
            that is correlated between neighbours, ``Passes(turns=8)`` averages over flips and rotations.
    """

    def __init__(
        self,
        model: str | DenoiserModule | None = None,
        *,
        per_channel: bool = False,
        bf16: bool = False,
        working_bytes: float = WORKING_BYTES,
        passes: Passes = Passes(),  # noqa: B008  # frozen
    ) -> None:
        self.model = model.family if isinstance(model, DenoiserModule) else model
        self._module = model if isinstance(model, DenoiserModule) else None
        self.start: str | None = None  # what training started from
        self.is_trained = self._module is not None
        self.per_channel, self.bf16, self.working_bytes, self.passes = per_channel, bf16, working_bytes, passes
        self.has_learnt_grey = False

    @classmethod
    def load(cls, checkpoint: str | Path, **options: Any) -> Self:
        """Load the denoiser of a checkpoint, or of a name under ``weights/``; ``options`` as for the class.

        Raises:
            ValueError: the checkpoint does not exist, or cannot be used.
        """
        path = find_checkpoint(checkpoint)
        denoiser = cls(load_denoiser(path), **options)
        denoiser.start = f"starting from {Path(checkpoint).as_posix()}"
        denoiser.has_learnt_grey = knows_grey(path)
        return denoiser

    @property
    def module(self) -> DenoiserModule:
        """The Lightning module of the net.

        Raises:
            ValueError: there is none before training.
        """
        if self._module is None:
            raise ValueError("the denoiser is not trained; call fit(source, target), or start from Denoiser.load(path)")
        return self._module

    @property
    def channels(self) -> int:
        """Number of channels of the net's images."""
        return int(self.module.hparams["channels"])

    @cached_property
    def net_reach(self) -> Reach:
        """How the net's output depends on its input, in one pass."""
        return measure_reach(self._put_through, self.net_stride, self.channels)

    @property
    def reach(self) -> Reach:
        """How the estimate depends on the image."""
        return self.passes.reach(self.net_reach)

    @property
    def net_stride(self) -> int:
        """Number of px that the input shifts by for the net's output to shift with it."""
        return int(self.module.net.stride)  # type: ignore[arg-type]  # a number

    @cached_property
    def net_bytes_per_px(self) -> float:
        """Memory that the net takes for a tile, divided by its pixels."""
        return bytes_per_px(self._put_through, self.channels)

    @property
    def bytes_per_px(self) -> float:
        """Memory that a tile takes, divided by its pixels."""
        floats = FLOATS_BESIDE_NET + (FLOATS_BESIDE_PASSES if self.passes.count > 1 else 0)
        return self.net_bytes_per_px + 4 * floats * self.channels

    @cached_property
    def device_bytes(self) -> float | None:
        """Memory that a tile may take on the net's device, as far as it was free at first; None without its own."""
        device = self.module.device
        if device.type != "cuda":
            return None
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, for later
        return DEVICE_SHARE * (torch.cuda.mem_get_info(device)[0] + kept)

    def with_passes(self, passes: Passes, module: DenoiserModule | None = None) -> Self:
        """Return a denoiser with other passes, and with another net of the same form if one is given."""
        other = copy.copy(self)
        other.passes, other._module = passes, module or self.module
        return other

    def fit(
        self,
        source: Any,
        target: Any | None = None,
        *,
        epochs: int | None = None,
        minutes: float | None = None,
        batch_size: int | None = None,
        device: str = "auto",
        progress: bool = True,
        seed: int = 0,
    ) -> Self:
        """Train on pairs of noisy images of the same scenes, or on single ones; a second call goes on from the first.

        Training takes crops of 64x64 px, or as large as the smallest image allows, and the optimizer and the schedule
        of ``train data=pairs``. The value that is 1 to the net is found as for files: see ``denoise``.

        Args:
            source: (N, C, H, W), (N, H, W, C), (N, H, W), (H, W, C) or (H, W) of numpy or torch, integers or floats;
                or a list of images of any sizes. (C, H, W) where the net's channels are known.
            target: the same scenes once more, with noise of their own. None: the noise is measured in the images, and
                training is by Recorrupted-to-Recorrupted (Pang et al. 2021) if it is independent and a mixture of
                Gaussian and Poisson noise; for other noise a warning says so, and Neighbor2Neighbor takes its place.
            epochs: passes over all pixels. None: 20 epochs of as many pixels as 640 crops of 64x64 have.
            minutes: length of the training instead, measured at its start.
            batch_size: crops in a step. None: as many pixels as 8 crops of 64x64 have, at most 64 crops.
            device: "auto", "cpu", "cuda", "cuda:1", ...
            progress: show a progress bar, and print what the training starts from.
            seed: of random weights, of the crops and of their order.

        Raises:
            ValueError: source and target are no pairs, or an argument is wrong. Pairs that are copies of each other,
                and dead images, are left out while others remain; what is left out is printed.
        """
        from n2n_lightning.training.array_fit import fit_arrays

        module, start = fit_arrays(
            self._module if self.is_trained else None,
            self.model,
            source,
            target,
            epochs=epochs,
            minutes=minutes,
            batch_size=batch_size,
            device=device,
            progress=progress,
            seed=seed,
        )
        self._use(module)
        self.is_trained, self.start = True, start or self.start
        self.has_learnt_grey = False  # of these images it may not have seen any
        return self

    def save(self, path: str | Path) -> None:
        """Write the trained net as a checkpoint, which ``Denoiser.load`` and the command ``predict`` read.

        Raises:
            ValueError: the denoiser is not trained.
        """
        if not self.is_trained:
            raise ValueError("a denoiser must be trained before it is saved; call fit(source, target)")
        start = {"start": self.start} if self.start else {}
        save_denoiser(self.module, path, grey=self.has_learnt_grey, **start)

    def _use(self, module: DenoiserModule) -> None:
        """Take a net, and forget what was measured of the one before."""
        self._module = module
        for name in ("net_reach", "net_bytes_per_px", "device_bytes"):
            self.__dict__.pop(name, None)

    def _use_first_weights(self, channels: int) -> None:
        """Take the net as it is before training, for images of ``channels``, and warn."""
        from n2n_lightning.training.array_fit import first_module
        from n2n_lightning.training.build import compose_own_images

        if self._module is None or self.channels != channels:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                module, self.start = first_module(compose_own_images(self.model), channels)
                self._use(module)
        name = "" if self.model is None else repr(self.model)
        warnings.warn(
            f"Denoiser({name}) is not trained and denoises with its first weights ({self.start}); "
            "call fit(source, target), or start from Denoiser.load(path)",
            stacklevel=4,
        )

    def predict(self, images: Any) -> Any:
        """Denoise images and clip them to their range: 0..255, or for floats that of a training on floats.

        Args:
            images: as for ``denoise``, uint8 or floats.

        Returns:
            The same kind of array, same shape and type; a list for a list.

        Raises:
            ValueError: the images are of another form.
        """
        if is_list_of_images(images):
            return [self.predict(image) for image in images]
        images = images if isinstance(images, Tensor) else to_numpy(images)
        is_float = images.is_floating_point() if isinstance(images, Tensor) else images.dtype.kind == "f"
        if not is_float and images.dtype not in (torch.uint8, np.uint8):
            raise ValueError(f"images must be uint8 or floats, got {images.dtype}; denoise(images) takes other types")
        if not is_float:
            return self.denoise(images)
        if self.is_trained and (peak := self.known_range(np.dtype(np.float32))):
            low, high = self.module.span or (0.0, peak)
            return self.denoise(images).clip(low, 255.0 if high == FLOATS_TO_255 else high)
        if 0 < float(images.max()) <= 1:
            warnings.warn("predict takes floats for 0..255, got 0..1; use denoise(images)", stacklevel=2)
        return self.denoise(images, range=255.0).clip(0, 255)

    def denoise(self, images: Any, *, range: float | None = None) -> Any:
        """Denoise an array of numpy or a tensor of torch.

        Args:
            images: (H, W), (H, W, C), (N, C, H, W) or (N, H, W, C), integers or floats; (C, H, W) where C is the
                number of the net's channels, and (N, H, W) for a net of one channel or one that has learnt grey images.
                Or a list of such arrays, of any sizes: each is denoised for itself.
            range: the value that is 1 to the net. None: 255 for uint8; the training's range where that was on values
                of the same kind (integers of more than 8 bits, floats); else the least 2^k - 1 (integers) or 2^k
                (floats) that no absolute value exceeds. Then a few values far out are clipped to the range. Where
                the image lies below 0 by more than its noise, and the training had no such values, an offset is
                subtracted first, and added to the result. Where the range is found, images that reach less
                than a quarter of it are multiplied by a power of two first.

        Returns:
            The same kind of array, same shape and type; a list for a list. Integers are rounded and clipped to what
            their type holds, floats are neither.

        Raises:
            ValueError: it is of another form, holds NaN or infinite values, or values more than four times as large as
                those of the training, where the training's range is used. Much smaller ones give a warning.
        """
        if range is not None and not (isinstance(range, Real) and 0 < range < math.inf):
            raise ValueError(f"range must be a number above 0, got {range!r}; leave it out to find it")
        if is_list_of_images(images):
            return [self.denoise(image, range=range) for image in images]
        values = to_numpy(images)
        if values.dtype.kind not in "uif" or values.ndim not in (2, 3, 4) or 0 in values.shape:
            raise ValueError(
                "images must be (H, W), (H, W, C), (N, C, H, W) or (N, H, W, C), integers or floats, got "
                f"{values.shape} of {values.dtype}"
            )
        axes = find_axes(values.shape, self.channels if self.is_trained and not self.per_channel else None)
        if axes == "NHW" and self.per_channel:
            axes = "HWC"  # any number of channels
        if axes == "HWC" and self.has_learnt_grey and values.shape[2] > FEW_CHANNELS:
            axes = "NHW"  # grey images rather than one of so many channels
        separate = as_nhwc(values, axes)
        if separate.shape[3] == 4 and (separate[..., 3] == separate[0, 0, 0, 3]).all():
            warnings.warn("the fourth channel has one value; leave it out if it is opacity", stacklevel=2)
        denoised = from_nhwc(self._denoise(separate, range), axes)
        if isinstance(images, Tensor):
            return torch.from_numpy(denoised).to(images.device, images.dtype)
        return denoised

    def _denoise(self, values: Array, peak: float | None) -> Array:
        """Denoise (N, H, W, C); return the same shape and type."""
        if not self.is_trained:
            self._use_first_weights(1 if self.per_channel else values.shape[3])
        if not self.takes(values.shape[3]):
            raise ValueError(
                f"images must have {self.channels} channels as in the net's training, got {values.shape[3]}; "
                "per_channel=True puts each through it by itself"
            )
        if finite_limits(values) is None:
            raise ValueError("images hold NaN or infinite values; fix or remove them")
        values, scale = self._choose_scale(values, peak)
        count, height, width, _ = values.shape
        together = max(BATCH_PX // (height * width), 1)
        denoised = np.empty_like(values)
        for first in range(0, count, together):
            batch = values[first : first + together]
            shape = (len(batch), *values.shape[1:])
            own = scale.part(slice(first, first + together))
            for top, rows in self.bands(lambda top, bottom, batch=batch: batch[:, top:bottom], shape, own):  # type: ignore[misc]
                denoised[first : first + together, top : top + rows.shape[1]] = rows
        return denoised

    def _choose_scale(self, values: Array, peak: float | None) -> tuple[Array, Scale]:
        """Return the values without those far out, and which of them are 0 and 1 to the net; see ``denoise``."""
        if values.dtype == np.uint8:
            return values, Scale(peak or 255.0)
        offset = find_offset(values) if self.needs_offset else 0.0
        if peak is not None:
            return values, Scale(peak, offset)
        known = self.known_range(values.dtype)
        span = find_span(values)._replace(offset=offset)
        fault = known and scale_fault(span, known, self.module.reach, "range=")
        if fault and fault.dark:
            warnings.warn(f"images: {fault.text}", stacklevel=4)
        elif fault:
            raise ValueError(f"images: {fault.text}")
        if bounds := clip_bounds(span, known or covering_range(span, values.dtype)):
            warnings.warn(f"images have {clipping_text(span, bounds)}; range=VALUE keeps them", stacklevel=4)
            values = np.clip(values, *bounds).astype(values.dtype, copy=False)
        if known:
            return values, Scale(known, offset)
        return values, find_scale(span, image_limits(values), values.dtype, by_channel=self.splits(values.shape[3]))

    @property
    def needs_offset(self) -> bool:
        """Whether values below 0 are new to the net, since its training had none."""
        return self.module.span is None or self.module.span[0] >= 0

    def known_range(self, dtype: np.dtype[Any]) -> float | None:
        """Return the value that is 1 to the net in images of ``dtype``; None where the training does not tell."""
        return known_range(dtype, self.module.peak, self.module.sample_type)

    def takes(self, channels: int) -> bool:
        """Return whether images with this number of channels can be denoised."""
        return channels == self.channels or self.splits(channels)

    def splits(self, channels: int) -> bool:
        """Return whether each channel of images with this number of them goes through the net by itself."""
        return self.per_channel or (self.has_learnt_grey and channels != self.channels)

    def plan(self, shape: tuple[int, int, int, int], itemsize: int, held_bytes: float = 0) -> Plan:
        """Choose the tiles that images are cut into.

        Args:
            shape: (images at one time, H, W, C).
            itemsize: bytes of a value.
            held_bytes: memory that is needed for other things.

        Raises:
            ValueError: there is too little memory even for the smallest tiles.
        """
        count, height, width, _ = shape
        device_bytes = math.inf if self.device_bytes is None else self.device_bytes

        def needed(rows: int, columns: int) -> float:
            return held_bytes + self.needed_bytes(shape, itemsize, rows, columns)

        def fits(rows: int, columns: int) -> bool:
            on_device = count * rows * columns * self.bytes_per_px
            return needed(rows, columns) <= self.working_bytes and on_device <= device_bytes

        plan = plan_tiles(height, width, self.reach, fits)
        if plan is None:
            side = self.reach.stride + 2 * self.reach.halo
            least_rows, least_columns = min(side, height), min(side, width)
            on_device = count * least_rows * least_columns * self.bytes_per_px
            if on_device > device_bytes:
                raise DeviceMemoryError(
                    f"needs {on_device / 1e9:.1f} GB of the device, which has {device_bytes / 1e9:.1f} GB to spare; "
                    "free some, or give --device cpu"
                )
            least = needed(least_rows, least_columns) + 1e8
            raise ValueError(f"needs {least / 1e9:.1f} GB beside the program's own memory")
        return plan

    def needed_bytes(self, shape: tuple[int, int, int, int], itemsize: int, rows: int, columns: int) -> float:
        """Return the memory for a tile of these rows and columns, halo included, of images as for ``plan``.

        That of the net is not part of it where a device has its own.
        """
        count, _, width, channels = shape
        row_bytes = count * width * channels * itemsize
        beside_device = 5 * 4 * channels  # scaled, pinned, and back as float64
        of_net = self.bytes_per_px if self.device_bytes is None else beside_device
        # a band on its way in, its denoised rows as tiles and put together; a tile on its way in and out
        return 3 * rows * row_bytes + count * rows * columns * (of_net + 2 * channels * itemsize)

    def planned_bytes(self, shape: tuple[int, int, int, int], itemsize: int, plan: Plan) -> float:
        """Return the memory that the tiles of a plan take; ``shape`` and ``itemsize`` as for ``plan``."""
        _, height, width, _ = shape
        halo = 2 * self.reach.halo
        return self.needed_bytes(shape, itemsize, min(plan.rows + halo, height), min(plan.columns + halo, width))

    def bands(
        self,
        read: Callable[[int, int], Array],
        shape: tuple[int, int, int, int],
        scale: Scale,
        *,
        plan: Plan | None = None,
    ) -> Iterator[tuple[int, Array]]:
        """Denoise images that are read band by band, from the top down.

        Args:
            read: returns rows ``top`` to ``bottom`` of the images: (images, rows, W, C).
            shape: (images, H, W, C).
            scale: the values that are 0 and 1 to the net.
            plan: size of the tiles; None to choose it by the memory.

        Yields:
            The first row's number, and (images, rows, W, C) of the type that was read.
        """
        plan = plan or self.plan(shape, 4)
        return denoise_in_tiles(read, lambda tile: self._tile(tile, scale), shape[1], shape[2], self.reach, plan)

    @torch.inference_mode()
    def _tile(self, values: Array, scale: Scale) -> Array:
        """Denoise a tile, (images, h, w, C); return the same shape and type."""
        if not self.splits(values.shape[3]):
            scaled = scale.to_net(values)
            with self._device_turn():
                return scale.from_net(self._estimate(self._send(scaled)), values.dtype)
        denoised = np.empty_like(values)
        for channel in range(values.shape[3]):
            own = scale.part((..., slice(channel, channel + 1)))
            scaled = own.to_net(values[..., channel : channel + 1])
            with self._device_turn():
                # in double precision, so that the mean of equal values is that value
                mean = self._estimate_plane(self._send(scaled)).double().mean(1, keepdim=True)
                denoised[..., channel : channel + 1] = own.from_net(mean, values.dtype)
        return denoised

    @torch.inference_mode()
    def estimate(self, images: Tensor) -> Tensor:
        """Denoise (N, C, H, W) float32 in units of the range, without tiles; return the same shape and type.

        Images and estimates are on the CPU, wherever the net is.
        """
        single = images.split(1)
        if not self.splits(images.shape[1]):
            return torch.cat([self._estimate(self._send(image)).cpu() for image in single])
        planes = [[self._send(plane) for plane in image.split(1, 1)] for image in single]
        means = [[self._estimate_plane(plane).mean(1, keepdim=True).cpu() for plane in one] for one in planes]
        return torch.cat([torch.cat(one, 1) for one in means])

    def _device_turn(self) -> AbstractContextManager[Any]:
        """Keep other tiles off the net's device; on the CPU they may go side by side."""
        return nullcontext() if self.module.device.type == "cpu" else device_turn

    def _send(self, images: Tensor) -> Tensor:
        """Move (N, C, H, W) float32 from the CPU to a CUDA device; to others, ``_put_through`` does."""
        device = self.module.device
        return images.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else images

    def _estimate_plane(self, plane: Tensor) -> Tensor:
        """Put (N, 1, H, W) float32 through all passes, as images whose channels are equal: (N, C, H, W) float32."""
        return self._estimate(plane.expand(-1, self.channels, -1, -1))

    def _estimate(self, images: Tensor) -> Tensor:
        """Put (N, C, H, W) float32 through all passes; return the same shape, type and device."""
        return self.passes.estimate(self._put_through, self.net_stride, images)

    def _put_through(self, images: Tensor) -> Tensor:
        """Put (N, C, H, W) float32 through the net on its own device; return the same shape, type and device."""
        own_device, device = images.device, self.module.device
        images = images.contiguous(memory_format=torch.channels_last).to(device)
        with torch.autocast(device.type, torch.bfloat16) if self.bf16 else nullcontext():
            estimate: Tensor = self.module(images)
        return estimate.to(own_device)


def is_list_of_images(images: Any) -> bool:
    """Return whether this is a list of arrays, and no list of numbers."""
    return isinstance(images, (list, tuple)) and all(np.ndim(image) > 1 for image in images)
