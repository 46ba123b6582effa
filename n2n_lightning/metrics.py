"""Image quality: pure functions, and one ``torchmetrics`` metric around them."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import scipy.stats  # torchmetrics has imported it already
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.image import structural_similarity_index_measure

MSE_FLOOR = 1e-8  # so that a perfect image scores 80 dB and not infinity
SSIM_WINDOW_PX = 11
DEAD_SPAN = 0.5 / 255  # an output channel that varies by less is constant once it is written as 8 bits
DEAD_LOSS_DB = 3.0


def squared_error(estimate: Tensor, clean: Tensor) -> Tensor:
    """MSE of each image, the estimate clipped to [0, 1]. (N, C, H, W) twice -> (N,)."""
    return (estimate.clamp(0, 1) - clean).square().flatten(1).mean(1)


def pair_error(estimate: Tensor, other_estimate: Tensor, noisy: Tensor, other_noisy: Tensor) -> Tensor:
    """Unbiased estimate of the MSE of both estimates, from their two noisy inputs and no clean image.

    Each estimate is made from its own noisy image and clipped to [0, 1]. The noises must have zero mean and be
    independent, given the scene; docs/quality.md derives it. (N, C, H, W) four times -> (N,), which may be negative.
    """
    crossed = (estimate.clamp(0, 1) - other_noisy).square() + (other_estimate.clamp(0, 1) - noisy).square()
    return (0.5 * (crossed - (noisy - other_noisy).square())).flatten(1).mean(1)


def triple_error(estimate: Tensor, second: Tensor, third: Tensor) -> Tensor:
    """The same for one estimate and two noisy images that it was not made from. (N, C, H, W) thrice -> (N,)."""
    shown = estimate.clamp(0, 1)
    return ((shown - second) * (shown - third)).flatten(1).mean(1)


def psnr_db(mse: Tensor) -> Tensor:
    """Any shape of MSE at range 1 -> dB, at most 80."""
    return -10 * torch.log10(mse.clamp_min(MSE_FLOOR))


def psnr_of(mse: float) -> float:
    return psnr_db(torch.tensor(mse, dtype=torch.float64)).item()


def ssim(estimate: Tensor, clean: Tensor) -> Tensor | None:
    """SSIM of each image (Wang et al. 2004), the estimate clipped: Gaussian 11x11, sigma 1.5, mean over channels.

    (N, C, H, W) twice -> (N,); None where a side is under 11 px.
    """
    if min(clean.shape[-2:]) < SSIM_WINDOW_PX:
        return None
    _, similarity = structural_similarity_index_measure(
        estimate.clamp(0, 1), clean, sigma=1.5, data_range=1.0, reduction="none", return_full_image=True
    )
    edge = SSIM_WINDOW_PX // 2  # as in the paper, only windows that lie in the image count; torchmetrics pads it
    return cast(Tensor, similarity)[..., edge:-edge, edge:-edge].flatten(1).mean(1)


class WeightedMean(Metric):
    """The mean of ``update(value, weight)``'s values; as torchmetrics' MeanMetric, without its look for NaN.

    That takes longer than all else here, twice a step, and waits for an accelerator.
    """

    full_state_update = False
    mean_value: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("mean_value", "weight"):
            self.add_state(name, torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, value: Tensor, weight: float) -> None:
        self.mean_value.add_(value, alpha=weight)
        self.weight.add_(weight)

    def compute(self) -> Tensor:
        return self.mean_value / self.weight


class RestorationQuality(Metric):
    """Quality over a validation set, image by image, so that it is the same for any batch size.

    ``update(noisy, estimate, clean)`` takes (N, C, H, W) float32, the last in [0, 1]. ``compute`` gives
    ``psnr`` (mean over images, dB), ``psnr_pooled`` (from the MSE over all images), ``noisy_psnr``, ``ssim`` (absent
    under 11 px), and ``constant_channels``, the output channels that are constant although the clean ones are not.

    Args:
        quantize: round the estimate to 8 bits before it is scored.
    """

    full_state_update = False
    mse: list[Tensor]
    noisy_mse: list[Tensor]
    ssim: list[Tensor]
    extremes: list[Tensor]

    def __init__(self, *, quantize: bool = False) -> None:
        super().__init__()
        self.quantize = quantize
        for name in ("mse", "noisy_mse", "ssim", "extremes"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, noisy: Tensor, estimate: Tensor, clean: Tensor) -> None:
        if self.quantize:
            estimate = (estimate.clamp(0, 1) * 255).round() / 255
        self.mse.append(squared_error(estimate, clean).cpu().double())  # not every accelerator has float64
        self.noisy_mse.append(squared_error(noisy, clean).cpu().double())
        similarity = ssim(estimate, clean)
        undefined = torch.full((len(clean),), math.nan, dtype=torch.float64)
        self.ssim.append(undefined if similarity is None else similarity.cpu().double())
        shown = estimate.clamp(0, 1)
        bounds = [f(images, dim=(0, 2, 3)) for images in (shown, clean) for f in (torch.amin, torch.amax)]
        self.extremes.append(torch.stack(bounds)[None])

    def per_image(self) -> dict[str, Tensor]:
        """Each image's ``psnr`` and ``noisy_psnr`` in dB and, where any has it, ``ssim``, else NaN; (N,) float64."""
        scores = {"psnr": psnr_db(concatenate(self.mse)), "noisy_psnr": psnr_db(concatenate(self.noisy_mse))}
        similarity = concatenate(self.ssim)
        return scores | ({} if similarity.isnan().all() else {"ssim": similarity})

    def compute(self) -> dict[str, Any]:
        scores: dict[str, Any] = {
            name: (values.nanmean() if name == "ssim" else values.mean()).item()
            for name, values in self.per_image().items()
        }
        scores["psnr_pooled"] = psnr_db(concatenate(self.mse).mean()).item()
        low, high, clean_low, clean_high = concatenate(self.extremes).unbind(1)
        constant = high.amax(0) - low.amin(0) < DEAD_SPAN
        varied = clean_high.amax(0) - clean_low.amin(0) >= DEAD_SPAN
        scores["constant_channels"] = (constant & varied).nonzero().flatten().tolist()
        return scores


class PairQuality(Metric):
    """Quality without clean images, from two or three noisy images of each scene.

    ``update(errors, noisy_errors, group)`` takes what ``pair_error`` or ``triple_error`` gives, (N,) float32, for the
    estimate and for the noisy image itself, and the images' groups, (N,) int64, or None for each by itself.
    ``compute`` gives ``psnr_pairs`` (from the MSE pooled over all images, dB), ``psnr_pairs_low`` and
    ``psnr_pairs_high`` (its 95 % bootstrap interval, groups resampled; absent with fewer than two groups), and
    ``noisy_psnr_pairs``. An estimated MSE that is not above 0 says only that it is small: the PSNR is then the
    interval's lower bound, or the noisy image's own without one.
    """

    full_state_update = False
    errors: list[Tensor]
    noisy_errors: list[Tensor]
    groups: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("errors", "noisy_errors", "groups"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, errors: Tensor, noisy_errors: Tensor, group: Tensor | None = None) -> None:
        if group is None:
            group = torch.arange(len(errors)) + sum(len(earlier) for earlier in self.groups)
        self.errors.append(errors.cpu().double())
        self.noisy_errors.append(noisy_errors.cpu().double())
        self.groups.append(group.cpu())

    def compute(self) -> dict[str, float]:
        errors = concatenate(self.errors)
        mse, noisy_mse = errors.mean().item(), concatenate(self.noisy_errors).mean().item()
        interval = bootstrap_interval(errors, concatenate(self.groups))
        scores = {"noisy_psnr_pairs": psnr_of(noisy_mse)}
        low, high = interval or (mse, noisy_mse)
        mse = next((value for value in (mse, high) if value > 0), noisy_mse)
        if interval is not None:
            scores |= {"psnr_pairs_low": psnr_of(high), "psnr_pairs_high": psnr_of(low)}
        return scores | {"psnr_pairs": psnr_of(mse)}


def bootstrap_interval(values: Tensor, groups: Tensor, resamples: int = 2000) -> tuple[float, float] | None:
    """95 % BCa interval of the mean (Efron 1987), whole groups resampled, always alike. (N,) twice -> low and high.

    None with fewer than two groups, or when all of them are alike.
    """
    _, members = np.unique(groups, return_inverse=True)
    counts = np.bincount(members)
    sums = np.bincount(members, weights=values)
    if len(counts) < 2 or np.ptp(sums / counts) == 0:
        return None
    found = scipy.stats.bootstrap(
        (sums, counts),
        lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis),
        n_resamples=resamples,
        paired=True,
        vectorized=True,
        batch=100,  # at once; by default all, and for the jackknife as many as there are groups: gigabytes
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def concatenate(state: list[Tensor] | Tensor) -> Tensor:
    """A list state of torchmetrics, which is one tensor after a synchronisation."""
    return state if isinstance(state, Tensor) else torch.cat(state)


def why_dead(metric: str, constant_channels: list[int], psnr: float, noisy_psnr: float) -> str | None:
    """The reason why a trained net counts as dead, if it does: nobody should take a black image for a model."""
    if constant_channels:
        return f"output channel {', '.join(map(str, constant_channels))} is constant over the validation images"
    if psnr < noisy_psnr - DEAD_LOSS_DB:
        return f"{metric} {psnr:.2f} dB is over {DEAD_LOSS_DB:g} dB below the noisy input's {noisy_psnr:.2f} dB"
    return None
