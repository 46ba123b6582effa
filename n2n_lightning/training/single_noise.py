"""The noise of single images, measured in the training images before the first step: for losses, and for quality."""

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
from n2n_lightning.diagnosis.single_quality import SingleNoise, find_doubt
from n2n_lightning.models.checkpoint import load_denoiser, read_checkpoint
from n2n_lightning.models.trained import GENERAL, find_trained
from n2n_lightning.self_supervised.r2r import Line, known_variance
from n2n_lightning.training.settings import LossChoice, RunSettings

MEASURED_PX = 300_000  # of the training images, in random crops
CORRELATED = 0.1  # from this correlation of neighbours on, a mask hides them
LONGEST_PX = 16  # of a mask to each side
PART = 16  # crops that are denoised at a time
DOUBTS = {  # why a measured variance may be wrong
    "clean": "there is hardly any",
    "constant": "the images are constant",
    "correlated": "it is correlated, and loss=noise2void loss.mask=auto suits it better",
    "small": "the images are too small",
    "unlike": "it is not as Gaussian and Poisson noise are",
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
        is_trusted: whether the variance is sure enough to estimate quality by.
        chosen: the mask.
    """

    text: str
    variance: Line | None = None
    is_trusted: bool = False
    chosen: LineMask | None = None

    def of_loss(self, loss: LossChoice) -> LossChoice:
        """Return the loss with the mask that was chosen."""
        return loss if self.chosen is None else loss.with_values(**self.chosen._asdict())

    @property
    def record(self) -> dict[str, Any]:
        """The entry of ``result.json``."""
        mask = {} if self.chosen is None else self.chosen._asdict()
        if self.variance is None:
            return mask
        slope, offset = self.variance
        return mask | {"slope": list(slope), "offset": list(offset), "is_trusted": self.is_trusted}


def measure_single_noise(
    settings: RunSettings, datamodule: NoisyPairDataModule, resume_from: Path | None
) -> MeasuredNoise:
    """Return what is known of the noise of single images, and for ``loss.mask=auto`` the mask.

    A run that goes on keeps what its checkpoint holds, so that it ends as an uninterrupted one.
    """
    loss = settings.loss.values
    wants_mask = loss.get("mask") == "auto"
    if resume_from is not None:
        content = read_checkpoint(resume_from)
        about, of_loss = content["n2n_lightning"], content["hyper_parameters"]["loss"]
        mask = LineMask(of_loss["mask"], of_loss["mask_px"]) if wants_mask else None
        is_trusted = bool(about.get("variance_is_trusted"))
        found = describe_variance(about.get("variance"), "as the run began with", is_trusted=is_trusted)
        return replace(found, chosen=mask)
    noisy = read_crops(datamodule)
    given = known_variance(loss.get("gain"), loss.get("sigma"))
    if given is None:
        found = measure_variance(noisy)
    else:
        found = describe_variance(given, "as set", is_trusted=find_doubt(torch.from_numpy(noisy)) is None)
    chosen = choose_mask(noisy, loss.get("mask_px")) if wants_mask else None
    shape = chosen.chosen.mask if chosen and chosen.chosen else str(loss.get("mask", "none"))
    if found.is_trusted and shape != "none":
        doubt = f"but loss.mask={shape} is for noise that neighbours share: the quality is not estimated"
        found = replace(found, text=f"{found.text}, {doubt}", is_trusted=False)
    return found if chosen is None else replace(found, text=f"{found.text}\n{chosen.text}", chosen=chosen.chosen)


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
    if GENERAL not in find_trained():
        return describe_variance(None, f"because weights/{GENERAL} is not here")
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
    source = "measured in the training images"
    if found.doubt is not None:
        source += f", but {DOUBTS[found.doubt]}: the quality is not estimated"
    return describe_variance(variance, source, is_trusted=found.doubt is None)


def describe_variance(variance: Line | None, source: str, *, is_trusted: bool = False) -> MeasuredNoise:
    """Return the variance with a line about it, in the units of ``noise=poisson_gaussian``."""
    if variance is None:
        return MeasuredNoise(f"noise: not measured, {source}")
    slope, offset = variance
    gains = " ".join(dict.fromkeys(f"{value:.4f}" for value in slope))
    if min(offset) < 0 < min(slope):  # the line meets 0 at the camera's black level
        levels = " ".join(dict.fromkeys(f"{max(-b / a, 0.0):.3f}" for a, b in zip(slope, offset, strict=True)))
        text = f"noise: gain {gains} above a black level of {levels} of the range, {source}"
    else:
        sigmas = " ".join(dict.fromkeys(f"{255 * max(value, 0.0) ** 0.5:.1f}" for value in offset))
        text = f"noise: gain {gains}, sigma {sigmas} of 255, {source}"
    return MeasuredNoise(text, (list(slope), list(offset)), is_trusted)


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
