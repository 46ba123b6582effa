"""Score filters on the validation images of a run, as its net was scored."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from n2n_lightning.data.datamodule import NoisyPairDataModule, scale_pair
from n2n_lightning.data.pairs import NoisyPair
from n2n_lightning.data.scene_data import SceneData
from n2n_lightning.data.seeding import seeded_generator
from n2n_lightning.diagnosis.single_quality import sure_db
from n2n_lightning.filters import FILTERS
from n2n_lightning.metrics import Limits, PairQuality, errors_by_noisy_images, psnr_db, squared_error
from n2n_lightning.models.checkpoint import load_denoiser
from n2n_lightning.noise_variance import NoiseVariance
from n2n_lightning.training.filter_scores import NET

SCORED_PX = 2_000_000  # of the validation images, spread evenly over them
SURE_PX = 500_000  # of them where there is one noisy image only: then each filter runs five times
CHOOSING_PX = 200_000  # of these, to choose a strength by
SHOWN_PX = 500_000  # from here on it takes more than about 5 s, and shows its progress
Denoise = Callable[[Tensor], Tensor]


def compare_filters(
    datamodule: NoisyPairDataModule, limits: Limits, best: Path, *, part: bool, noise: NoiseVariance | None = None
) -> dict[str, Any]:
    """Score each filter with the strength that suits the images best; return an entry of ``result.json`` for each.

    Where only a part of the validation images is used, there is an entry for the net too. The result is empty for
    single images whose noise is not known, which have nothing to be scored by, and for images that are not the user's
    own.

    Args:
        datamodule: as it was trained with.
        limits: what estimates are clipped to, in units of the range.
        best: the net's checkpoint.
        part: whether the net was validated on a part of the images.
        noise: of single images, in units of the range; None if it is not known.
    """
    source = datamodule.sources["val"]
    alone = not (source.has_clean or source.has_pairs)
    if not isinstance(datamodule.data, SceneData) or (alone and noise is None):
        return {}
    pair = read_pair(datamodule, SURE_PX if alone else SCORED_PX)
    metric = "psnr_sure" if alone else datamodule.monitor.removeprefix("val/")
    found: dict[str, Any] = {}
    short = pair.source[:, 0].numel() < (CHOOSING_PX if alone else SHOWN_PX)
    names = [name for name, one in FILTERS.items() if one.installed and not one.slow]
    for name in track(names, "comparing with filters", console=Console(stderr=True), disable=short):
        strength, score = score_filter(name, pair, limits, noise)
        found[name] = {"strength": strength, metric: score}
    if part or pair.source.shape != (len(source), *source.image_shape):
        found[NET] = {metric: score_db(net_of(best, datamodule), pair, limits, noise)}
    return found


def read_pair(datamodule: NoisyPairDataModule, most_px: int) -> NoisyPair:
    """Read validation images of at most ``most_px``, of large ones the middle, scaled as for the net, on the CPU."""
    source = datamodule.sources["val"]
    height, width = source.image_shape[1:]
    indices = spread_indices(len(source), most_px // (height * width))
    side = int(most_px**0.5) if height * width > most_px else max(height, width)
    top, left = max(height - side, 0) // 2, max(width - side, 0) // 2

    def read(batch: Tensor) -> NoisyPair:
        pair = source.batch(batch, seeded_generator(datamodule.seed))
        cut = pair.map(lambda x: x[..., top : top + side, left : left + side], "source", "target", "clean", "third")
        return scale_pair(cut.map(Tensor.cpu), datamodule.data.peak)

    return NoisyPair.joined([read(batch) for batch in indices.split(datamodule.val_batch_size)])


def spread_indices(count: int, most: int) -> Tensor:
    """Return at most that many of 0 to ``count`` - 1, and at least one, evenly spread: (B,) int64."""
    return torch.linspace(0, count - 1, min(max(most, 1), count), dtype=torch.float64).round().long()


def score_filter(name: str, pair: NoisyPair, limits: Limits, noise: NoiseVariance | None = None) -> tuple[float, float]:
    """Return the best strength of a filter on ``pair``, (N, C, H, W) float32, and its score there in dB.

    The noise is found from the pair; only that of single images must be given.
    """
    strengths, function = FILTERS[name][:2]
    other = pair.clean if pair.target is None else pair.target
    if other is not None:
        noise = NoiseVariance.fit(pair.source.numpy(), other.numpy(), clean=pair.target is None)
    assert noise is not None

    def score(strength: float, pair: NoisyPair) -> float:
        return score_db(lambda images: torch.from_numpy(function(images.numpy(), strength, noise)), pair, limits, noise)

    count, _, height, width = pair.source.shape
    chosen = spread_indices(count, CHOOSING_PX // (height * width))
    few = pair.map(lambda values: values[chosen])
    scores = {strength: score(strength, few) for strength in strengths}
    strength = max(scores, key=lambda strength: scores[strength])
    return strength, scores[strength] if len(chosen) == count else score(strength, pair)


def score_db(denoise: Denoise, pair: NoisyPair, limits: Limits, noise: NoiseVariance | None = None) -> float:
    """Return the score of a denoiser in dB: ``psnr`` with clean images, else ``psnr_pairs``, else ``psnr_sure``."""
    if pair.clean is None and pair.target is None:
        assert noise is not None
        score = sure_db(denoise, pair.source, noise)
        return score if score < math.inf else -10 * math.log10(float(noise.at(pair.source.numpy()).mean()))
    estimate = denoise(pair.source)
    if pair.clean is not None:
        return psnr_db(squared_error(estimate, pair.clean, limits)).mean().item()
    assert pair.target is not None
    quality = PairQuality()
    errors = errors_by_noisy_images(denoise, estimate, pair.source, pair.target, pair.third, limits)
    quality.update(*errors, pair.group)
    return quality.compute()["psnr_pairs"]


def net_of(best: Path, datamodule: NoisyPairDataModule) -> Denoise:
    """Return a checkpoint's net as a function of (N, C, H, W) float32 on the CPU, run where the training ran."""
    assert datamodule.trainer is not None
    device, net = datamodule.trainer.strategy.root_device, load_denoiser(best)
    net.to(device)

    @torch.no_grad()
    def denoise(images: Tensor) -> Tensor:
        batches = images.split(datamodule.val_batch_size)
        return torch.cat([net(batch.to(device)).cpu() for batch in batches])

    return denoise
