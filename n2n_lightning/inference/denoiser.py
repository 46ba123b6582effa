"""``Denoiser``: a trained net for arrays of any size and type, tile by tile where they are big."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from n2n_lightning.data.pairs import PairSource, Stage, TensorPairs
from n2n_lightning.image_io.image_file import Array
from n2n_lightning.image_io.stack import FLOAT32_MAX
from n2n_lightning.image_io.value_range import found_range, from_net, known_range, to_net
from n2n_lightning.inference.tiling import Plan, Reach, bytes_per_px, denoise_in_tiles, measure_reach, plan_tiles
from n2n_lightning.models.checkpoint import load_denoiser
from n2n_lightning.models.module import DenoiserModule

WORKING_BYTES = 3.5e9  # that denoising may take, if nothing else is said
FLOATS_BESIDE_NET = 4  # a channel: copies of a tile on its way in and out
BATCH_PX = 2**18  # small images go through the net together


class Denoiser:
    """Denoises arrays, and trains on them.

    Args:
        model: a name in ``conf/model`` for a net to be trained by ``fit``, or a module (``Denoiser.load``).
        per_channel: put each channel through the net by itself, as an image whose channels are all alike.
        bf16: let the net compute in bfloat16: faster on some processors, to about 3 digits.
        working_bytes: memory for denoising; bigger images go through in tiles.
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
        self.per_channel, self.bf16, self.working_bytes = per_channel, bf16, working_bytes

    @classmethod
    def load(cls, checkpoint: str | Path, **options: Any) -> Self:
        """The denoiser of a checkpoint, or of a name under ``weights/``; ``options`` as for the class.

        Raises:
            ValueError: there is no such checkpoint, or it is of no use.
        """
        return cls(load_denoiser(checkpoint), **options)

    @property
    def module(self) -> DenoiserModule:
        if self._module is None:
            raise ValueError("the denoiser is not trained; call fit(source, target), or start from Denoiser.load(path)")
        return self._module

    @property
    def channels(self) -> int:
        """Of the net's images."""
        return int(self.module.hparams["channels"])

    @cached_property
    def reach(self) -> Reach:
        return measure_reach(self._estimate, int(self.module.net.stride), self.channels)  # type: ignore[arg-type]  # a number

    @cached_property
    def bytes_per_px(self) -> float:
        """Memory a tile takes, divided by its pixels."""
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
        """Train on pairs of noisy images, from scratch or on from what there is, with the model's own optimizer.

        Args:
            source, target: (N, C, H, W) each, uint8 or floats in 0..255.
            epochs: passes over all pairs.
            batch_size: pairs a step.
            seed: of the first weights and of the order.

        Raises:
            ValueError: the two are not of this form.
        """
        import pytorch_lightning as pl

        from n2n_lightning.data.datamodule import NoisyPairDataModule
        from n2n_lightning.training.build import build_module, compose_model
        from n2n_lightning.training.run import quiet_lightning

        if epochs < 1:
            raise ValueError(f"epochs must be 1 or more, got {epochs}")
        pairs = MemoryPairs(*(torch.as_tensor(images) for images in (source, target)))
        if self._module is None:
            pl.seed_everything(seed, verbose=False)
            self._module = build_module(compose_model(self.model), channels=pairs.source.shape[1])
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
        self._module.train()
        trainer.fit(self._module, NoisyPairDataModule(pairs, batch_size=batch_size, seed=seed))
        self._module.eval()
        return self

    def predict(self, images: Tensor) -> Tensor:
        """(N, C, H, W) uint8, or floats in 0..255 -> same shape and type, within 0..255.

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
            images: (H, W), (H, W, C) or (N, C, H, W), whole numbers or floats.
            range: the value that is 1 to the net. None: 255 for uint8; what the training had where that was on values
                of the same kind (whole numbers of more than 8 bits, floats); else the least 2^k - 1 (whole numbers) or
                2^k (floats) that no value exceeds.

        Returns:
            The same kind of array, same shape and type. Whole numbers are rounded and clipped to what their type
            holds, floats are neither.

        Raises:
            ValueError: it is of another form, or holds NaN or infinite values.
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
                "images must be (H, W), (H, W, C) or (N, C, H, W), whole numbers or floats, got "
                f"{values.shape} of {values.dtype}"
            )
        if values.ndim == 4:
            return np.moveaxis(self._denoise(np.moveaxis(values, 1, -1), range), -1, 1)
        return self._denoise(values.reshape(1, *values.shape[:2], -1), range).reshape(values.shape)

    def _denoise(self, values: Array, peak: float | None) -> Array:
        """(N, H, W, C) -> same shape and type."""
        if not self.takes(values.shape[3]):
            raise ValueError(
                f"images must have {self.channels} channels as in the net's training, got {values.shape[3]}; "
                "per_channel=True puts each through it by itself"
            )
        low, high = float(values.min()), float(values.max())
        if not max(-low, high) <= FLOAT32_MAX:  # which NaN is not either
            raise ValueError("images hold NaN or infinite values; mend them")
        peak = peak or self.known_range(values.dtype) or found_range(low, high, values.dtype)
        count, height, width, _ = values.shape
        together = max(BATCH_PX // (height * width), 1)
        denoised = np.empty_like(values)
        for first in range(0, count, together):
            batch = values[first : first + together]
            shape = (len(batch), *values.shape[1:])
            for top, rows in self.bands(partial(rows_of, batch), shape, peak):
                denoised[first : first + together, top : top + rows.shape[1]] = rows
        return denoised

    def known_range(self, dtype: np.dtype[Any]) -> float | None:
        """The value that is 1 to the net in images of ``dtype``; None where the training does not tell."""
        return known_range(dtype, self.module.peak, self.module.sample_type)

    def takes(self, channels: int) -> bool:
        """Whether images of so many channels can be denoised."""
        return self.per_channel or channels == self.channels

    def plan(self, shape: tuple[int, int, int, int], itemsize: int, held_bytes: float = 0) -> Plan:
        """How images are cut up.

        Args:
            shape: (images at one time, H, W, C).
            itemsize: bytes a value.
            held_bytes: that are taken up otherwise.

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
        """Denoised rows of images that are read piece by piece, from the top down.

        Args:
            read: rows of the images, from the first up to the last: (images, rows, W, C).
            shape: (images, H, W, C).
            peak: the value that is 1 to the net.
            plan: another size of tiles than memory suggests.

        Yields:
            The first row's number, and (images, rows, W, C) of the type that was read.
        """
        plan = plan or self.plan(shape, 4)
        return denoise_in_tiles(read, lambda tile: self._tile(tile, peak), shape[1], shape[2], self.reach, plan)

    @torch.inference_mode()
    def _tile(self, values: Array, peak: float) -> Array:
        """(images, h, w, C) -> same shape and type."""
        if not self.per_channel:
            return from_net(self._estimate(to_net(values, peak)), peak, values.dtype)
        denoised = np.empty_like(values)
        for channel in range(values.shape[3]):
            plane = to_net(values[..., channel : channel + 1], peak).expand(-1, self.channels, -1, -1)
            # in double precision, so that the mean of equal values is that value
            mean = self._estimate(plane).double().mean(1, keepdim=True)
            denoised[..., channel : channel + 1] = from_net(mean, peak, values.dtype)
        return denoised

    def _estimate(self, images: Tensor) -> Tensor:
        """(N, C, H, W) float32 on the CPU -> the same, through the net on its own device."""
        device = self.module.device
        images = images.contiguous(memory_format=torch.channels_last).to(device)
        with torch.autocast(device.type, torch.bfloat16) if self.bf16 else nullcontext():
            estimate: Tensor = self.module(images)
        return estimate.cpu()


def rows_of(images: Array, top: int, bottom: int) -> Array:
    return images[:, top:bottom]


class MemoryPairs:
    """Pairs in memory, (N, C, H, W) each, as ``PairData``."""

    peak = 255.0

    def __init__(self, source: Tensor, target: Tensor) -> None:
        forms = [(tuple(images.shape), images.dtype) for images in (source, target)]
        if forms[0] != forms[1] or source.ndim != 4 or 0 in source.shape or source.dtype == torch.bool:
            raise ValueError(f"source and target must be (N, C, H, W) of one shape and type, got {forms}")
        if not (source.isfinite().all() and target.isfinite().all()):
            raise ValueError("source and target must be finite, got NaN or infinite values; mend or remove them")
        self.source, self.target = source, target
        self.sample_type = "uint8"  # floats in 0..255 are taken for such

    def load(self, stage: Stage) -> PairSource:
        return TensorPairs(self.source, self.target)

    def fingerprint(self) -> str:
        return "memory"
