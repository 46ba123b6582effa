"""``Denoiser``: a trained net for arrays of any size and type; large ones go through it in tiles."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from n2n_lightning.data.pairs import PairSource, Stage, TensorPairs
from n2n_lightning.image_io.image_file import Array
from n2n_lightning.image_io.value_range import (
    clip_bounds,
    clipping_text,
    covering_range,
    find_span,
    finite_limits,
    from_net,
    known_range,
    scale_fault,
    to_net,
)
from n2n_lightning.inference.tiling import Plan, Reach, bytes_per_px, denoise_in_tiles, measure_reach, plan_tiles
from n2n_lightning.models.checkpoint import find_checkpoint, load_denoiser
from n2n_lightning.models.module import DenoiserModule
from n2n_lightning.models.trained import has_learnt_grey

WORKING_BYTES = 3.5e9  # default of the memory that denoising may take
FLOATS_BESIDE_NET = 4  # per channel: copies of a tile on its way in and out
BATCH_PX = 2**18  # small images go through the net together


class Denoiser:
    """Denoises arrays, and trains on them. Before any training it denoises with the first weights, and warns.

    Args:
        model: a name in ``conf/model`` for a net to be trained by ``fit``, or a module (``Denoiser.load``).
        per_channel: put each channel through the net by itself, as an image whose channels are all equal. A denoiser
            that was loaded and has learnt grey images does so by itself where the number of channels is another.
        bf16: let the net compute in bfloat16: faster on some CPUs, to about 3 digits.
        working_bytes: memory for denoising; larger images go through in tiles.
    """

    def __init__(
        self,
        model: str | DenoiserModule = "unet",
        *,
        per_channel: bool = False,
        bf16: bool = False,
        working_bytes: float = WORKING_BYTES,
    ) -> None:
        self.model = model if isinstance(model, str) else model.family
        self._module = None if isinstance(model, str) else model
        self.is_trained = self._module is not None
        self.per_channel, self.bf16, self.working_bytes = per_channel, bf16, working_bytes
        self.has_learnt_grey = False

    @classmethod
    def load(cls, checkpoint: str | Path, **options: Any) -> Self:
        """Load the denoiser of a checkpoint, or of a name under ``weights/``; ``options`` as for the class.

        Raises:
            ValueError: the checkpoint does not exist, or cannot be used.
        """
        path = find_checkpoint(checkpoint)
        denoiser = cls(load_denoiser(path), **options)
        denoiser.has_learnt_grey = has_learnt_grey(path)
        return denoiser

    @property
    def module(self) -> DenoiserModule:
        if self._module is None:
            raise ValueError("the denoiser is not trained; call fit(source, target), or start from Denoiser.load(path)")
        return self._module

    @property
    def channels(self) -> int:
        """Number of channels of the net's images."""
        return int(self.module.hparams["channels"])

    @cached_property
    def reach(self) -> Reach:
        """How the net's output depends on its input."""
        return measure_reach(self._estimate, int(self.module.net.stride), self.channels)  # type: ignore[arg-type]  # a number

    @cached_property
    def bytes_per_px(self) -> float:
        """Memory that a tile takes, divided by its pixels."""
        beside = FLOATS_BESIDE_NET * 4 * self.channels
        return bytes_per_px(self._estimate, self.channels) + beside

    def fit(
        self,
        source: Tensor | npt.NDArray[Any],
        target: Tensor | npt.NDArray[Any],
        *,
        epochs: int = 1,
        batch_size: int = 64,
        seed: int = 0,
    ) -> Self:
        """Train on pairs of noisy images with the model's own optimizer; a second call goes on from the first.

        Args:
            source, target: (N, C, H, W) each, uint8 or floats in 0..255.
            epochs: passes over all pairs.
            batch_size: pairs in a step.
            seed: of the first weights and of the order.

        Raises:
            ValueError: source and target are not of this form.
        """
        import pytorch_lightning as pl

        from n2n_lightning.data.datamodule import NoisyPairDataModule
        from n2n_lightning.training.build import build_module, compose_model
        from n2n_lightning.training.run import quiet_lightning

        if epochs < 1:
            raise ValueError(f"epochs must be 1 or more, got {epochs}")
        pairs = MemoryPairs(*(torch.as_tensor(images) for images in (source, target)))
        if not self.is_trained:
            pl.seed_everything(seed, verbose=False)
            self._use(build_module(compose_model(self.model), channels=pairs.source.shape[1]))
            self.is_trained = True
        elif pairs.source.shape[1] != self.channels:
            raise ValueError(f"source must have {self.channels} channels as before, got {pairs.source.shape[1]}")
        quiet_lightning()
        trainer = pl.Trainer(
            max_epochs=epochs,
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            limit_val_batches=0,
        )
        self.module.train()
        trainer.fit(self.module, NoisyPairDataModule(pairs, batch_size=batch_size, seed=seed))
        self.module.eval()
        return self

    def _use(self, module: DenoiserModule) -> None:
        """Take another net, and forget what was measured of the one before."""
        self._module = module
        for name in ("reach", "bytes_per_px"):
            self.__dict__.pop(name, None)

    def _use_first_weights(self, channels: int) -> None:
        """Take the net as it is before training, for images of ``channels``, and warn."""
        from n2n_lightning.training.build import build_module, compose_model

        warnings.warn(
            f"Denoiser({self.model!r}) is not trained and denoises with its first, random weights; "
            "call fit(source, target), or start from Denoiser.load(path)",
            stacklevel=2,
        )
        if self._module is None or self.channels != channels:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                self._use(build_module(compose_model(self.model), channels).eval())

    def predict(self, images: Tensor) -> Tensor:
        """Denoise (N, C, H, W) uint8, or floats in 0..255; return the same shape and type, within 0..255.

        Raises:
            ValueError: the images are of another form.
        """
        if images.ndim != 4 or not (images.dtype == torch.uint8 or images.is_floating_point()):
            raise ValueError(f"images must be (N, C, H, W), uint8 or floats, got {tuple(images.shape)} {images.dtype}")
        denoised: Tensor = self.denoise(images, range=255.0)
        return denoised.clamp(0, 255)

    def denoise(self, images: Any, *, range: float | None = None) -> Any:
        """Denoise an array of numpy or a tensor of torch.

        Args:
            images: (H, W), (H, W, C) or (N, C, H, W), integers or floats.
            range: the value that is 1 to the net. None: 255 for uint8; the training's range where that was on values
                of the same kind (integers of more than 8 bits, floats); else the least 2^k - 1 (integers) or 2^k
                (floats) that no absolute value exceeds. Then a few values far out are clipped to the range.

        Returns:
            The same kind of array, same shape and type. Integers are rounded and clipped to what their type holds,
            floats are neither.

        Raises:
            ValueError: it is of another form, holds NaN or infinite values, or values more than four times as large as
                those of the training, where the training's range is used. Much smaller ones give a warning.
        """
        if range is not None and not range > 0:
            raise ValueError(f"range must be above 0, got {range}; leave it out to find it")
        if isinstance(images, Tensor):
            if images.dtype == torch.bfloat16:  # which numpy lacks
                return self.denoise(images.float(), range=range).to(torch.bfloat16)
            array = self.denoise(images.detach().cpu().numpy(), range=range)
            return torch.from_numpy(array).to(images.device)
        values = np.asarray(images)
        if values.dtype.kind not in "uif" or values.ndim not in (2, 3, 4) or 0 in values.shape:
            raise ValueError(
                "images must be (H, W), (H, W, C) or (N, C, H, W), integers or floats, got "
                f"{values.shape} of {values.dtype}"
            )
        if values.ndim == 4:
            return np.moveaxis(self._denoise(np.moveaxis(values, 1, -1), range), -1, 1)
        return self._denoise(values.reshape(1, *values.shape[:2], -1), range).reshape(values.shape)

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
        if peak is None:
            values, peak = self._choose_range(values)
        count, height, width, _ = values.shape
        together = max(BATCH_PX // (height * width), 1)
        denoised = np.empty_like(values)
        for first in range(0, count, together):
            batch = values[first : first + together]
            shape = (len(batch), *values.shape[1:])
            for top, rows in self.bands(lambda top, bottom, batch=batch: batch[:, top:bottom], shape, peak):  # type: ignore[misc]
                denoised[first : first + together, top : top + rows.shape[1]] = rows
        return denoised

    def _choose_range(self, values: Array) -> tuple[Array, float]:
        """Return the values without those far out, and the value that is 1 to the net; see ``denoise``."""
        known = self.known_range(values.dtype)
        if values.dtype == np.uint8:
            return values, 255.0
        span = find_span(values)
        fault = known and scale_fault(span, known, self.module.reach, "range=")
        if fault and fault.dark:
            warnings.warn(f"images: {fault.text}", stacklevel=4)
        elif fault:
            raise ValueError(f"images: {fault.text}")
        peak = known or covering_range(span, values.dtype)
        bounds = clip_bounds(span, peak)
        if bounds is None:
            return values, peak
        warnings.warn(f"images have {clipping_text(span, bounds)}; range=VALUE keeps them", stacklevel=4)
        return np.clip(values, *bounds).astype(values.dtype, copy=False), peak

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
        count, height, width, channels = shape
        row_bytes = count * width * channels * itemsize

        def needed(rows: int, columns: int) -> float:
            # a band on its way in, its denoised rows as tiles and put together; a tile on its way in and out
            tile_bytes = count * rows * columns * (self.bytes_per_px + 2 * channels * itemsize)
            return held_bytes + 3 * rows * row_bytes + tile_bytes

        plan = plan_tiles(height, width, self.reach, lambda *tile: needed(*tile) <= self.working_bytes)
        if plan is None:
            side = self.reach.stride + 2 * self.reach.halo
            least = needed(min(side, height), min(side, width)) + 1e8
            raise ValueError(f"needs {least / 1e9:.1f} GB beside the program's own memory")
        return plan

    def bands(
        self,
        read: Callable[[int, int], Array],
        shape: tuple[int, int, int, int],
        peak: float,
        *,
        plan: Plan | None = None,
    ) -> Iterator[tuple[int, Array]]:
        """Denoise images that are read band by band, from the top down.

        Args:
            read: returns rows ``top`` to ``bottom`` of the images: (images, rows, W, C).
            shape: (images, H, W, C).
            peak: the value that is 1 to the net.
            plan: size of the tiles; None to choose it by the memory.

        Yields:
            The first row's number, and (images, rows, W, C) of the type that was read.
        """
        plan = plan or self.plan(shape, 4)
        return denoise_in_tiles(read, lambda tile: self._tile(tile, peak), shape[1], shape[2], self.reach, plan)

    @torch.inference_mode()
    def _tile(self, values: Array, peak: float) -> Array:
        """Denoise a tile, (images, h, w, C); return the same shape and type."""
        if not self.splits(values.shape[3]):
            return from_net(self._estimate(to_net(values, peak)), peak, values.dtype)
        denoised = np.empty_like(values)
        for channel in range(values.shape[3]):
            plane = to_net(values[..., channel : channel + 1], peak).expand(-1, self.channels, -1, -1)
            # in double precision, so that the mean of equal values is that value
            mean = self._estimate(plane).double().mean(1, keepdim=True)
            denoised[..., channel : channel + 1] = from_net(mean, peak, values.dtype)
        return denoised

    def _estimate(self, images: Tensor) -> Tensor:
        """Put (N, C, H, W) float32 on the CPU through the net on its own device; return the same shape and type."""
        device = self.module.device
        images = images.contiguous(memory_format=torch.channels_last).to(device)
        with torch.autocast(device.type, torch.bfloat16) if self.bf16 else nullcontext():
            estimate: Tensor = self.module(images)
        return estimate.cpu()


class MemoryPairs:
    """Pairs in memory, (N, C, H, W) each, as ``PairData``."""

    peak = 255.0

    def __init__(self, source: Tensor, target: Tensor) -> None:
        forms = [(tuple(images.shape), images.dtype) for images in (source, target)]
        if forms[0] != forms[1] or source.ndim != 4 or 0 in source.shape or source.dtype == torch.bool:
            raise ValueError(f"source and target must be (N, C, H, W) of one shape and type, got {forms}")
        if source.is_floating_point() and None in (finite_limits(source), finite_limits(target)):
            raise ValueError("source and target must be finite, got NaN or infinite values; fix or remove them")
        self.source, self.target = source, target
        self.sample_type = "uint8"  # which floats in 0..255 stand for

    def load(self, stage: Stage) -> PairSource:
        """Return the pairs, the same for every stage."""
        return TensorPairs(self.source, self.target)

    def fingerprint(self) -> str:
        """Return a constant: the pairs belong to no file."""
        return "memory"
