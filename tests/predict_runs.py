"""The ``predict`` command in this process, images for it, and the expected outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
import torch
from conftest import Command, Ended
from PIL import Image
from small_runs import ROOT

from n2n_lightning import predict
from n2n_lightning.models.checkpoint import load_denoiser

MODEL = "convtrans_relu"
WEIGHTS = ROOT / "weights" / "five_models" / MODEL / "best.ckpt"
Array = npt.NDArray[Any]


def denoise(command: Command, *arguments: str | Path, model: str | Path = MODEL, output: str | Path = "out") -> Ended:
    """Call the command, and check that it leaves no temporary file and prints no traceback."""
    ended = command(str(model), *map(str, arguments), "--output", str(output), main=predict.main)
    assert "Traceback" not in ended.out + ended.err
    assert not list(Path(output).rglob("*.part"))
    return ended


def noise(*shape: int, most: float = 255, dtype: str = "u1", seed: int = 0) -> Array:
    """Return random values of 0 to ``most``; both occur."""
    values = np.random.default_rng(seed).uniform(0, most, shape)
    values.flat[:2] = 0, most
    return values.astype(dtype)


def estimate(values: Array, peak: float = 255.0) -> Array:
    """Return what the net makes of (H, W, 3), computed without ``predict``."""
    images = torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1)[None]
    denoised = load_denoiser(WEIGHTS).denoise(images / peak)[0].permute(1, 2, 0).double().numpy() * peak
    if values.dtype.kind != "f":
        denoised = np.rint(denoised).clip(0, np.iinfo(values.dtype).max)
    return denoised.astype(values.dtype)


def files(folder: str | Path) -> set[str]:
    """Return the names of all files below a folder, except the manifest."""
    found = {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}
    return found - {"predict.jsonl"}


def pixels(path: str | Path) -> Array:
    """Return a file's values as they are stored."""
    match Path(path).suffix:
        case ".tif":
            return tifffile.imread(path)
        case ".npy":
            values: Array = np.load(path)
            return values
    return np.asarray(Image.open(path))


def assert_close(path: str | Path, expected: Array) -> None:
    """Check that values are equal except for the last bit: a net's sums depend on the size of its input."""
    found = pixels(path)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    atol = 1 if expected.dtype.kind != "f" else 1e-5 * float(np.abs(expected).max())
    np.testing.assert_allclose(found.astype(np.float64), expected.astype(np.float64), rtol=0, atol=atol)
