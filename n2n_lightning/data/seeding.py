"""Random generators that follow from numbers alone, so that no state has to be kept for resuming."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def seeded_generator(*key: int) -> torch.Generator:
    """Return a CPU generator that depends on the whole key and on nothing else."""
    words = repr(tuple(map(int, key)))  # int: the repr of numpy's integers differs
    seed = int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "little")
    return torch.Generator().manual_seed(seed >> 1)


def index_seeds(indices: Tensor, seed: int) -> Tensor:
    """Return a seed for each of (B,) int64 indices, which does not depend on the rest of the batch: (B,) int64."""
    return torch.from_numpy((hash_indices(indices.numpy(), seed) >> np.uint64(1)).astype(np.int64))


def index_generators(indices: Tensor, seed: int) -> list[torch.Generator]:
    """Return a CPU generator for each of (B,) int64 indices; it does not depend on the rest of the batch."""
    return [torch.Generator().manual_seed(own) for own in index_seeds(indices, seed).tolist()]


def hash_indices(indices: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.uint64]:
    """Return 64 random-looking bits for each index (SplitMix64, Steele et al. 2014): (B,) int64 -> (B,) uint64."""
    start = np.random.SeedSequence(seed).generate_state(1, np.uint64)
    z = start + (indices.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)  # overflow is intended
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    mixed: npt.NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed


def generator_on(device: torch.device, rng: torch.Generator) -> torch.Generator:
    """Return ``rng`` if it is on the device, else a generator of the device that is seeded from it."""
    if rng.device.type == device.type:
        return rng
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=rng)))
