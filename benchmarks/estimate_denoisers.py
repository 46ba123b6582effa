"""The denoisers of ``benchmarks.estimate``: a filter, and a small net that is trained on the frames in question."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pytorch_lightning as pl
import torch
from scipy import ndimage
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.estimate_faults import Recording
from n2n_lightning.data.pairs import NoisyPair
from n2n_lightning.models.families import DnCnnDenoiser
from n2n_lightning.training.run import quiet_lightning

Denoise = Callable[[Tensor], Tensor]  # (N, 1, H, W) float32 -> same shape
CROP_PX, BATCH = 32, 8


def blur(sigma_px: float) -> Denoise:
    """Return a Gaussian filter."""
    return lambda noisy: torch.from_numpy(ndimage.gaussian_filter(noisy.numpy(), (0, 0, sigma_px, sigma_px)))


def draw_batch(areas: Sequence[Recording], rng: np.random.Generator) -> NoisyPair:
    """Draw crops of any two frames of the scenes, in any order."""
    pairs = []
    for _ in range(BATCH):
        noisy = areas[int(rng.integers(len(areas)))].noisy
        top, left = (int(rng.integers(length - CROP_PX + 1)) for length in noisy.shape[1:])
        frames = noisy[rng.permutation(len(noisy))[:2]]
        pairs.append(frames[:, None, top : top + CROP_PX, left : left + CROP_PX].astype(np.float32))
    source, target = np.stack(pairs, axis=1)
    return NoisyPair(torch.from_numpy(source), torch.from_numpy(target))


def train(areas: Sequence[Recording], steps: int, seed: int) -> Denoise:
    """Train a small net on crops of the areas."""
    rng = np.random.default_rng([seed, 2])
    batches = [draw_batch(areas, rng) for _ in range(steps)]
    quiet_lightning()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice for big data
        torch.manual_seed(seed)
        module = DnCnnDenoiser(
            optimizer={"name": "adam", "lr": 6e-3},
            loss={"name": "l2"},
            scheduler={"name": "rampdown", "fraction": 0.3},
            channels=1,
            layers=4,
            width=16,
        )
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]  # a list is a data set
    return module.eval()
