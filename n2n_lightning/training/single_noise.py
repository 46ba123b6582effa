"""What a loss for single images must know of their noise, measured in the training images before the first step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from n2n_lightning.data.datamodule import NoisyPairDataModule, scale_pair
from n2n_lightning.data.seeding import seeded_generator
from n2n_lightning.data.single import SingleImages
from n2n_lightning.diagnosis.correlation import flat_patches
from n2n_lightning.diagnosis.single_quality import SingleNoise
from n2n_lightning.models.checkpoint import load_denoiser, read_checkpoint
from n2n_lightning.models.trained import GENERAL
from n2n_lightning.self_supervised.r2r import Line
from n2n_lightning.training.settings import LossChoice

MEASURED_PX = 1_000_000  # of the training images, in random crops
CORRELATED = 0.1  # from this correlation of neighbours on, a mask hides them
LONGEST_PX = 16  # of a mask to each side
PART = 16  # crops that are denoised at a time
DOUBTS = {  # why a measured variance may be wrong -> what is said of it
    "correlated": ", which is not sure: it is correlated; loss=noise2void loss.mask=auto suits it better",
    "unlike": ", which is not sure: it is not as Gaussian and Poisson noise are; set loss.gain and loss.sigma",
}
Images = npt.NDArray[np.float32]


class LineMask(NamedTuple):
    """A mask for structN2V: ``loss.mask`` and ``loss.mask_px``."""

    mask: str
    mask_px: int


@dataclass(frozen=True)
class MeasuredNoise:
    """What was measured.

    Args:
        text: a line about it.
        variance: of the noise, for each channel: slope and offset over the level, in units of the range.
        chosen: the mask.
    """

    text: str
    variance: Line | None = None
    chosen: LineMask | None = None

    def of_loss(self, loss: LossChoice) -> LossChoice:
        """Return the loss with the mask that was chosen."""
        return loss if self.chosen is None else loss.with_values(**self.chosen._asdict())

    @property
    def record(self) -> dict[str, Any]:
        """The entry of ``result.json``."""
        if self.chosen is not None:
            return self.chosen._asdict()
        slope, offset = self.variance or ((), ())
        return {"slope": list(slope), "offset": list(offset)}


def measure_for_loss(
    loss: LossChoice, datamodule: NoisyPairDataModule, resume_from: Path | None
) -> MeasuredNoise | None:
    """Return what the loss needs: for ``r2r`` the variance, for a mask "auto" the mask; None if all is set.

    A run that goes on keeps what its checkpoint holds, so that it ends as an uninterrupted one.
    """
    values = loss.values
    wants_variance = loss.name == "r2r" and values.get("gain") is None and values.get("sigma") is None
    if not wants_variance and values.get("mask") != "auto":
        return None
    if resume_from is not None:
        content = read_checkpoint(resume_from)
        if wants_variance:
            return describe_variance(content["n2n_lightning"]["variance"], "as the run began with")
        of_checkpoint = content["hyper_parameters"]["loss"]
        kept = LineMask(of_checkpoint["mask"], of_checkpoint["mask_px"])
        return MeasuredNoise(f"noise: mask {kept.mask} as the run began with", chosen=kept)
    noisy = read_crops(datamodule)
    return measure_variance(noisy) if wants_variance else choose_mask(noisy, values.get("mask_px"))


def read_crops(datamodule: NoisyPairDataModule) -> Images:
    """Read random crops of the training images, in units of the range, about as many pixels as these have."""
    source = datamodule.sources["train"]
    _, height, width = source.image_shape
    pixels = int(source.crops.areas.sum()) if isinstance(source, SingleImages) else MEASURED_PX  # type: ignore[union-attr]  # training crops are random
    count = max(min(MEASURED_PX, pixels) // (height * width), 1)
    pair = source.batch(torch.arange(count), seeded_generator(datamodule.seed))
    return np.asarray(scale_pair(pair.map(Tensor.cpu), datamodule.data.peak).source.numpy(), np.float32)


def measure_variance(noisy: Images) -> MeasuredNoise:
    """Measure the variance of the noise in images (N, C, H, W), which must be independent from pixel to pixel.

    The denoiser is ``weights/general``, for each channel alone where the images have other than three.
    """
    general = load_denoiser(GENERAL)

    @torch.no_grad()
    def denoise(images: Tensor) -> Tensor:
        if images.shape[1] == general.hparams["channels"]:
            return torch.cat([general(some) for some in images.split(PART)])
        planes = images.flatten(0, 1)[:, None]
        parts = (general(some.expand(-1, general.hparams["channels"], -1, -1)) for some in planes.split(PART))
        return torch.cat([part.mean(1) for part in parts]).reshape(images.shape)

    found = SingleNoise.measure(denoise, torch.from_numpy(noisy))
    variance = found.variance.slope.tolist(), found.variance.offset.tolist()
    return describe_variance(variance, "measured in the training images" + DOUBTS.get(found.doubt or "", ""))


def describe_variance(variance: Line, source: str) -> MeasuredNoise:
    """Return the variance with a line about it, in the units of ``noise=poisson_gaussian``."""
    slope, offset = variance
    gains = " ".join(dict.fromkeys(f"{value:.4f}" for value in slope))
    sigmas = " ".join(dict.fromkeys(f"{255 * max(value, 0.0) ** 0.5:.1f}" for value in offset))
    black = " below a black level" if min(offset) < 0 else ""
    return MeasuredNoise(f"noise: gain {gains}, sigma {sigmas} of 255{black}, {source}", (list(slope), list(offset)))


def choose_mask(noisy: Images, mask_px: int | None) -> MeasuredNoise:
    """Choose the mask that hides the pixels whose noise is correlated, from images (N, C, H, W).

    Args:
        noisy: the images.
        mask_px: how far the mask reaches; None measures it.
    """
    planes = noisy.reshape(-1, *noisy.shape[2:])
    rho = flat_patches(planes).rho  # at the lags of diagnosis.correlation.LAGS
    along_rows, along_columns, diagonal = rho[0], rho[1], max(rho[2], rho[3])
    in_rows, in_columns = along_rows > CORRELATED, along_columns > CORRELATED
    mask = {(False, False): "none", (True, False): "rows", (False, True): "columns"}.get((in_rows, in_columns), "block")
    if mask != "none" and mask_px is None:
        mask_px = max(reach_of(rho[0], rho[4]) if in_rows else 1, reach_of(rho[1], rho[5]) if in_columns else 1)
    reach = f" of {mask_px} px to each side" if mask != "none" else ""
    found = f"correlation of neighbours {along_rows:.2f} in rows, {along_columns:.2f} in columns, {diagonal:.2f} across"
    text = f"noise: {found}, measured in the training images; loss.mask={mask}{reach}"
    return MeasuredNoise(text, chosen=LineMask(mask, mask_px or 1))


def reach_of(one: float, two: float) -> int:
    """Return how far noise reaches, px, from its correlations at 1 px, above 0, and at 2 px.

    Noise that is constant along L px reaches L - 1. Its correlation falls as L - lag, whatever white noise is added.
    """
    ratio = min(max(two / one, 0.0), 0.99)
    return min(round((2 - ratio) / (1 - ratio)) - 1, LONGEST_PX)


def without_rotation(datamodule: NoisyPairDataModule, noise: MeasuredNoise) -> MeasuredNoise:
    """Leave out rotations of the images where the mask lies along rows or columns."""
    rotated = "rotate" in datamodule.augmentations
    if noise.chosen is None or noise.chosen.mask not in ("rows", "columns") or not rotated:
        return noise
    datamodule.augmentations = tuple(kind for kind in datamodule.augmentations if kind != "rotate")
    return replace(noise, text=f"{noise.text}, images are not rotated")
