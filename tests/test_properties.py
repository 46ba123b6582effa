"""What holds for any input, on examples that hypothesis picks: noise, tiles, files."""

from __future__ import annotations

import functools
import itertools
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from known_nets import Array
from known_nets import denoised as through_identity
from PIL import Image
from predict_runs import pixels
from test_tiling import denoise, denoiser_of
from torch import Tensor

from n2n_lightning.image_io.stack import open_stack
from n2n_lightning.inference.denoiser import Denoiser
from n2n_lightning.inference.tiling import Plan
from n2n_lightning.noise.choices import make_noise

# the same examples in every run, and no fixture of a test that each of them would share
PROPERTY = settings(
    deadline=None, max_examples=20, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
SHAPES = st.tuples(st.integers(1, 3), st.sampled_from([1, 3]), st.integers(1, 40), st.integers(1, 40))
STRENGTHS = {
    "gaussian": ("sigma", st.floats(0, 200)),
    "brown": ("sigma", st.floats(0, 200)),
    "poisson": ("lam", st.floats(0.1, 1000)),
    "bernoulli": ("p", st.floats(0, 1)),
    "impulse": ("p", st.floats(0, 1)),
    "text": ("coverage", st.floats(0, 0.5)),
}


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noisy(name: str, strength: Any, clean: Tensor, seed: int) -> Tensor:
    return make_noise({"name": name, STRENGTHS[name][0]: strength}).corrupt(clean, rng(seed))


@pytest.mark.parametrize("name", STRENGTHS)
def test_noise_keeps_shapes_and_repeats_itself(name: str):
    strength = STRENGTHS[name][1]

    @PROPERTY
    @given(SHAPES, strength, st.tuples(strength, strength), st.integers(0, 2**31), st.booleans())
    def check(shape: tuple[int, ...], fixed: float, ends: tuple[float, float], seed: int, ranged: bool) -> None:
        clean = torch.rand(shape, generator=rng(seed))
        before, given_strength = clean.clone(), sorted(ends) if ranged else fixed
        drawn = [noisy(name, given_strength, clean, seed) for _ in range(2)]
        assert drawn[0].shape == clean.shape and drawn[0].dtype == torch.float32 and drawn[0].isfinite().all()
        assert torch.equal(*drawn) and torch.equal(clean, before)

    check()


@PROPERTY
@given(st.floats(0, 200), st.floats(0.5, 500), st.floats(0, 1), st.integers(0, 2**31))
def test_noise_that_keeps_the_mean_does(sigma: float, lam: float, level: float, seed: int):
    clean = torch.full((1, 1, 100, 100), level)
    spreads = {"gaussian": (sigma, sigma / 255), "poisson": (lam, math.sqrt(level / lam))}
    for name, (strength, spread) in spreads.items():
        mean = noisy(name, strength, clean, seed).double().mean().item()
        assert abs(mean - level) <= 6 * spread / 100 + 1e-6


@PROPERTY
@given(SHAPES, st.floats(0, 1), st.integers(0, 2**31))
def test_bernoulli_leaves_a_pixel_or_takes_it(shape: tuple[int, ...], p: float, seed: int):
    clean = torch.rand(shape, generator=rng(seed))
    left = noisy("bernoulli", p, clean, seed)
    assert ((left == clean) | (left == 0)).all()


@functools.cache
def small_net(model: str) -> Denoiser:
    return denoiser_of(model)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["nn_relu", "convtrans_relu", "dncnn"])
def test_tiles_of_any_size_give_the_whole_image(model: str):
    denoiser = small_net(model)
    stride = denoiser.reach.stride

    @PROPERTY
    @given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 12), st.integers(1, 12), st.integers(1, 2))
    def check(height: int, width: int, rows: int, columns: int, count: int) -> None:
        images = np.random.default_rng(height * width).uniform(size=(count, height, width, 3)).astype(np.float32)
        with torch.inference_mode():
            whole = denoiser.module(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
        tiled = denoise(denoiser, images, Plan(rows * stride, columns * stride))
        np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-5 * max(np.abs(whole).max(), 1))

    check()


DTYPES = ("u1", "<u2", ">u2", "i2", "u4", "f2", "<f4", ">f4", "f8")
finite = {"allow_nan": False, "allow_infinity": False}


def values(dtype: str, shapes: Any) -> Any:
    """Arrays of a type, with numbers that a net can take."""
    if np.dtype(dtype).kind != "f":
        return arrays(dtype, shapes)
    bits = np.dtype(dtype).itemsize * 8
    most = {16: 60_000.0, 32: 2.0**100, 64: 2.0**100}[bits]
    return arrays(dtype, shapes, elements=st.floats(-most, most, width=bits, **finite))


def whole_stack(path: Path, folder: Path) -> Array:
    """All that training reads of a file: (N, H, W, C)."""
    stack = open_stack(path, folder / "cache")
    count, height, width, _ = stack.shape
    return np.stack([stack.read(number, 0, 0, height, width) for number in range(count)])


def tiff_options() -> st.SearchStrategy[dict[str, Any]]:
    layouts = st.sampled_from([{}, {"rowsperstrip": 3}, {"tile": (16, 16)}])
    packing = st.sampled_from([{}, {"compression": "zlib"}, {"compression": "lzw"}, {"compression": "zstd"}])
    return st.builds(lambda *parts: dict(itertools.chain(*(part.items() for part in parts))), layouts, packing)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tiffs_are_read_exactly(dtype: str):
    shapes = st.tuples(st.integers(1, 3), st.integers(2, 20), st.integers(2, 20))

    @PROPERTY
    @given(values(dtype, shapes), tiff_options(), st.booleans())
    def check(stored: Array, options: dict[str, Any], big: bool) -> None:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "a.tif"
            tifffile.imwrite(path, stored, photometric="minisblack", metadata=None, bigtiff=big, **options)
            np.testing.assert_array_equal(whole_stack(path, Path(name)), stored[..., None])

    check()


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_are_read_exactly(dtype: str):
    shapes = st.tuples(st.integers(1, 3), *[st.integers(1, 12)] * 2, st.sampled_from([1, 3, 5]))

    @PROPERTY
    @given(values(dtype, shapes), st.booleans())
    def check(stored: Array, fortran: bool) -> None:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "a.npy"
            np.save(path, np.asfortranarray(stored) if fortran else stored)
            np.testing.assert_array_equal(whole_stack(path, Path(name)), stored)

    check()


PHOTOS = st.one_of(
    arrays("u1", array_shapes(min_dims=2, max_dims=2, max_side=30)),
    arrays("u2", array_shapes(min_dims=2, max_dims=2, max_side=30)),
    arrays("u1", st.tuples(st.integers(1, 30), st.integers(1, 30), st.just(3))),
)


@PROPERTY
@given(PHOTOS)
def test_pngs_are_read_exactly_and_come_back_from_a_net_that_changes_nothing(stored: Array):
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "a.png"
        Image.fromarray(stored).save(path)
        expected = stored.reshape(1, *stored.shape[:2], -1)
        np.testing.assert_array_equal(whole_stack(path, Path(name)), expected)
        np.testing.assert_array_equal(pixels(through_identity(path)), stored)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["u1", "<u2", "f4"])
def test_tiffs_come_back_from_a_net_that_changes_nothing(dtype: str):
    shapes = st.tuples(st.integers(1, 3), st.integers(2, 40), st.integers(2, 40))
    elements = st.floats(0, 1, width=32) if dtype == "f4" else st.integers(0, np.iinfo(dtype).max)

    @PROPERTY
    @given(arrays(dtype, shapes, elements=elements), tiff_options())
    def check(stored: Array, options: dict[str, Any]) -> None:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "a.tif"
            tifffile.imwrite(path, stored, photometric="minisblack", metadata=None, **options)
            np.testing.assert_array_equal(tifffile.imread(through_identity(path)).reshape(stored.shape), stored)

    check()
