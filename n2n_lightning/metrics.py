"""Image quality: pure functions, and the ``torchmetrics`` metrics that apply them to a validation set."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import scipy.stats  # torchmetrics has imported it already
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.utilities import dim_zero_cat

MSE_FLOOR = 1e-8  # so that a perfect image scores 80 dB instead of infinity
SSIM_WINDOW_PX = 11
DEAD_SPAN = 0.5 / 255  # an output channel whose values span less is constant when written as 8 bits
DEAD_LOSS_DB = 3.0
SKEW_STEP = 0.25  # of a probe, at least, in units of the skew: smaller ones are rare and large, and vary much
Limits = tuple[float, float]  # the least and the greatest value that a clean image can have, in units of the range
UNIT: Limits = (0.0, 1.0)  # of data without values below 0


def squared_error(estimate: Tensor, clean: Tensor, limits: Limits = UNIT) -> Tensor:
    """Return the MSE of each image, with the estimate clipped to ``limits``. (N, C, H, W) twice -> (N,)."""
    return (estimate.clamp(*limits) - clean).square().flatten(1).mean(1)


def pair_error(
    estimate: Tensor, other_estimate: Tensor, noisy: Tensor, other_noisy: Tensor, limits: Limits = UNIT
) -> Tensor:
    """Estimate the mean MSE of two estimates from their two noisy inputs, without a clean image and without bias.

    Each estimate is made from its own noisy image and is clipped to ``limits`` here. The noises must have zero mean and
    be independent, given the scene; docs/quality.md derives it. (N, C, H, W) four times -> (N,), maybe negative.
    """
    estimate, other_estimate = estimate.clamp(*limits), other_estimate.clamp(*limits)
    crossed = (estimate - other_noisy).square() + (other_estimate - noisy).square()
    return (0.5 * (crossed - (noisy - other_noisy).square())).flatten(1).mean(1)


def triple_error(estimate: Tensor, second: Tensor, third: Tensor, limits: Limits = UNIT) -> Tensor:
    """Estimate the MSE of one estimate from two noisy images that it was not made from, without bias.

    Either may be the mean of several. The conditions are those of ``pair_error``. (N, C, H, W) three times -> (N,),
    which may be negative.
    """
    clipped = estimate.clamp(*limits)
    return ((clipped - second) * (clipped - third)).flatten(1).mean(1)


def sure_error(estimate: Tensor, noisy: Tensor, variance: Tensor, derivative: Tensor) -> Tensor:
    """Estimate the MSE of each image from its noisy version alone: Stein's unbiased risk estimate (SURE, Stein 1981).

    The noise must be independent from pixel to pixel, and its variance known.

    Args:
        estimate, noisy: (N, C, H, W); estimates are not clipped.
        variance: of the noise at each pixel.
        derivative: of each pixel of the estimate by its own noisy value, from ``probed_derivative``.

    Returns:
        (N,), maybe negative.
    """
    return ((estimate - noisy).square() - variance + 2 * variance * derivative).flatten(1).mean(1)


def noise_skew(variance: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
    """Return the third moment of Gaussian and Poisson noise over its variance: 0 for Gaussian, the gain for Poisson.

    Args:
        variance: of the noise at each pixel, (N, C, H, W).
        slope, offset: of the variance over the level, (C, 1, 1). An offset above 0 is that of Gaussian noise.
    """
    of_light = 1 - offset.clamp_min(0) / variance.clamp_min(1e-20)
    return slope.clamp_min(0) * of_light.clamp(0, 1)


def skewed_probes(normal: Tensor, step: Tensor, skew: Tensor) -> tuple[Tensor, Tensor]:
    """Return two small random images of mean 0, variance ``step``^2 and third moment ``skew`` x ``step``^2.

    Each pixel has one of two values. Where ``skew`` is 0, these are ``step`` and -``step``, in the second image the
    negative of those in the first.

    Args:
        normal: (N, C, H, W), standard normal values, which decide.
        step, skew: (N, C, H, W), or one value each.
    """
    high = 0.5 * skew + (0.25 * skew.square() + step.square()).sqrt()
    low = step.square() / high
    share, rank = low / (high + low), torch.special.ndtr(normal)
    return torch.where(rank > 1 - share, high, -low), torch.where(rank < share, high, -low)


def probed_derivative(
    denoise: Callable[[Tensor], Tensor], noisy: Tensor, estimate: Tensor, normal: Tensor, step: Tensor, skew: Tensor
) -> Tensor:
    """Estimate the derivative of each pixel's estimate by its own noisy value, as SURE needs it. (N, C, H, W).

    Probes that are as skewed as the noise add what the estimate's curvature contributes: the covariance of the
    estimate with Poisson noise is more than variance x derivative (Le Montagner et al. 2014).

    Args:
        denoise: gives ``estimate`` for ``noisy``.
        noisy, estimate: (N, C, H, W).
        normal: (N, C, H, W), standard normal values that the probes are made of.
        step: standard deviation of the probes, above 0; where there are few photons it is ``SKEW_STEP`` x ``skew``.
        skew: of the noise, from ``noise_skew``; 0 for Gaussian noise.
    """
    step = torch.maximum(step, SKEW_STEP * skew)
    probes = skewed_probes(normal, step, skew)
    found = torch.stack([probe * (denoise(noisy + probe) - estimate) for probe in probes]).mean(0)
    return found / step.square()


def errors_by_noisy_images(
    denoise: Callable[[Tensor], Tensor],
    estimate: Tensor,
    noisy: Tensor,
    second: Tensor,
    third: Tensor | None,
    limits: Limits = UNIT,
) -> tuple[Tensor, Tensor]:
    """Estimate the MSE of an estimate and of its noisy image, without a clean one. (N, C, H, W) each -> (N,), (N,).

    Args:
        denoise: denoises the second image, which is needed where there is no third.
        estimate: made from ``noisy``.
        noisy: noisy images.
        second: other noisy images of the same scenes.
        third: once more; it may be the mean of several.
        limits: see ``squared_error``.
    """
    if third is None:
        errors = pair_error(estimate, denoise(second), noisy, second, limits)
        return errors, 0.5 * (noisy - second).square().flatten(1).mean(1)
    noisy_errors = ((noisy - second) * (noisy - third)).flatten(1).mean(1)
    return triple_error(estimate, second, third, limits), noisy_errors


def psnr_db(mse: Tensor | float) -> Tensor:
    """Return the PSNR in dB, at most 80, for an MSE of any shape at range 1 -> float64 of the same shape."""
    return -10 * torch.log10(torch.as_tensor(mse, dtype=torch.float64).clamp_min(MSE_FLOOR))


def ssim(estimate: Tensor, clean: Tensor, limits: Limits = UNIT) -> Tensor | None:
    """Return the SSIM of each image (Wang et al. 2004), with the estimate clipped to ``limits``, the data's range.

    The window is Gaussian, 11x11, sigma 1.5; the mean is over channels and windows. (N, C, H, W) twice -> (N,); None
    if a side is under 11 px.
    """
    if min(clean.shape[-2:]) < SSIM_WINDOW_PX:
        return None
    span, estimate = limits[1] - limits[0], estimate.clamp(*limits)
    _, similarity = structural_similarity_index_measure(
        estimate, clean, sigma=1.5, data_range=span, reduction="none", return_full_image=True
    )
    edge = SSIM_WINDOW_PX // 2  # torchmetrics pads the image; in the paper only windows inside the image count
    return cast(Tensor, similarity)[..., edge:-edge, edge:-edge].flatten(1).mean(1)


class WeightedMean(Metric):
    """Weighted mean of scalars: torchmetrics' MeanMetric without its slow check for NaN, which waits for a GPU.

    (With ``nan_strategy="disable"``, torchmetrics 1.9 ignores the weights.)
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
    """Quality of a validation set, measured image by image, so that it is the same for any batch size.

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

    def update(self, noisy: Tensor, estimate: Tensor, clean: Tensor, limits: Limits = UNIT) -> None:
        """Add a batch, (N, C, H, W) float32 each, with ``clean`` within ``limits``."""
        clipped = estimate.clamp(*limits)
        if self.quantize:
            clipped = (clipped * 255).round() / 255
        self.mse.append(squared_error(clipped, clean, limits).cpu().double())  # not every accelerator has float64
        self.noisy_mse.append(squared_error(noisy, clean, limits).cpu().double())
        similarity = ssim(clipped, clean, limits) if len(clean) else None
        undefined = torch.full((len(clean),), math.nan, dtype=torch.float64)
        self.ssim.append(undefined if similarity is None else similarity.cpu().double())
        bounds = [f(images, dim=(2, 3)) for images in (clipped, clean) for f in (torch.amin, torch.amax)]
        self.extremes.append(torch.stack(bounds, 1))

    def per_image(self) -> dict[str, Tensor]:
        """Return ``psnr``, ``noisy_psnr`` (dB) and, where any image has it, ``ssim`` (else NaN), each (N,) float64."""
        scores = {"psnr": psnr_db(dim_zero_cat(self.mse)), "noisy_psnr": psnr_db(dim_zero_cat(self.noisy_mse))}
        similarity = dim_zero_cat(self.ssim)
        return scores | ({} if similarity.isnan().all() else {"ssim": similarity})

    def compute(self) -> dict[str, Any]:
        """Return means over images (``psnr`` and ``noisy_psnr`` in dB, ``ssim`` from 11 px on) and two more scores.

        ``psnr_pooled`` in dB is from the MSE over all images. ``constant_channels`` are the output channels that are
        constant although the clean ones are not.
        """
        scores: dict[str, Any] = {
            name: (values.nanmean() if name == "ssim" else values.mean()).item()
            for name, values in self.per_image().items()
        }
        scores["psnr_pooled"] = psnr_db(dim_zero_cat(self.mse).mean()).item()
        low, high, clean_low, clean_high = dim_zero_cat(self.extremes).unbind(1)
        constant = high.amax(0) - low.amin(0) < DEAD_SPAN
        varied = clean_high.amax(0) - clean_low.amin(0) >= DEAD_SPAN
        scores["constant_channels"] = (constant & varied).nonzero().flatten().tolist()
        return scores


class PairQuality(Metric):
    """Quality of a validation set without clean images, from two or more noisy images of each scene."""

    full_state_update = False
    errors: list[Tensor]
    noisy_errors: list[Tensor]
    groups: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("errors", "noisy_errors", "groups"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, errors: Tensor, noisy_errors: Tensor, group: Tensor | None = None) -> None:
        """Add a batch of estimated MSE, (N,) float32 each, for the estimates and for the noisy images themselves.

        ``pair_error`` or ``triple_error`` gives them. ``group``, (N,) int64, is the group of each image; with None,
        each image is a group of its own.
        """
        if group is None:
            group = torch.full((len(errors),), -1)
        self.errors.append(errors.cpu().double())
        self.noisy_errors.append(noisy_errors.cpu().double())
        self.groups.append(group.cpu())

    def compute(self) -> dict[str, float]:
        """Return ``psnr_pairs`` and ``noisy_psnr_pairs``, from the MSE pooled over all images, in dB.

        ``psnr_pairs_low`` and ``psnr_pairs_high`` are the 95 % bootstrap interval of ``psnr_pairs``, where it has one.
        An estimated MSE of 0 or less only says that the true one is small. Then ``psnr_pairs`` is the lower end of the
        interval, or without an interval the PSNR of the noisy images.
        """
        errors = dim_zero_cat(self.errors)
        mse, noisy_mse = errors.mean().item(), dim_zero_cat(self.noisy_errors).mean().item()
        groups = dim_zero_cat(self.groups)
        alone = groups < 0
        groups = groups.masked_scatter(alone, groups.max() + 1 + torch.arange(len(groups)))
        interval = bootstrap_interval(errors, groups)
        low, high = interval or (mse, noisy_mse)
        mse = next((value for value in (mse, high) if value > 0), noisy_mse)
        bounds = {} if interval is None else {"psnr_pairs_low": high, "psnr_pairs_high": low}
        scores = {"noisy_psnr_pairs": noisy_mse, **bounds, "psnr_pairs": mse}
        return {name: psnr_db(value).item() for name, value in scores.items()}


def bootstrap_interval(values: Tensor, groups: Tensor, resamples: int = 2000) -> tuple[float, float] | None:
    """Return the 95 % BCa interval of the mean (Efron 1987), the same each time: (N,) float64, (N,) int64 -> low, high.

    Whole groups are resampled. None if there are fewer than two groups, or if all groups have the same mean.
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
        batch=100,  # by default all at once, and one for each group in the jackknife: gigabytes
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def judge_net(
    metric: str, constant_channels: list[int], psnr: float, noisy_psnr: float, *, improving: bool
) -> tuple[str, str | None]:
    """Return "done" or "dead", and why: nobody should mistake a black image for a result.

    Args:
        metric: name of the score.
        constant_channels: output channels that are the same everywhere.
        psnr: best score, dB.
        noisy_psnr: score of the noisy input, dB.
        improving: whether the last epoch was the best.
    """
    if constant_channels:
        channels = ", ".join(map(str, constant_channels))
        return "dead", f"output channel {channels} is constant over the validation images"
    if psnr >= noisy_psnr:
        return "done", None
    if not improving and psnr < noisy_psnr - DEAD_LOSS_DB:
        return "dead", f"more than {DEAD_LOSS_DB:g} dB below the noisy input's {metric} of {noisy_psnr:.2f} dB"
    reason = f"below the noisy input's {metric} of {noisy_psnr:.2f} dB"
    return "done", f"still improving, but {reason}" if improving else reason
