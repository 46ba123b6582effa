"""Nets whose results are known, and helpers that put files through them in small tiles."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from n2n_lightning.image_io.conversion import open_output
from n2n_lightning.image_io.decoding import open_image_file
from n2n_lightning.inference.denoiser import Denoiser
from n2n_lightning.inference.file_runner import FileDenoiser
from n2n_lightning.inference.jobs import FileJob
from n2n_lightning.inference.manifest import Manifest
from n2n_lightning.inference.tiling import Plan
from n2n_lightning.models.families import SequentialDenoiser

Array = npt.NDArray[Any]
ICC = b"".join([(132).to_bytes(4), bytes(32), b"acsp", bytes(88), (0).to_bytes(4)])  # a profile's header, no table


class Same(nn.Identity):
    """Returns its input."""

    stride = 1


class Negative(nn.Module):
    """Returns 1 minus its input."""

    stride = 1

    def forward(self, images: Tensor) -> Tensor:
        return 1 - images


class InSmallTiles(Denoiser):
    """Uses tiles that differ from the tiles and strips of every file."""

    def plan(self, *_: Any) -> Plan:
        return Plan(11, 13)


@functools.cache  # measuring a net takes longer than most tests
def denoiser(net: type[nn.Module]) -> Denoiser:
    module = SequentialDenoiser(optimizer={"name": "adam"}, loss={"name": "l2"}, channels=1)
    module.net = net()
    return InSmallTiles(module, per_channel=True)


def denoised(path: Path, suffix: str | None = None, form: str | None = None, net: type[nn.Module] = Same) -> Path:
    """Put a file through the net and return the output, after a check that nothing else was left in its folder."""
    output = path.parent / "denoised" / f"{path.stem}{suffix or path.suffix}"
    shutil.rmtree(output.parent, ignore_errors=True)
    output.parent.mkdir()
    files = FileDenoiser(denoiser(net), Manifest(output.parent, path, {}), form)
    assert not list(files.run([FileJob(path, output)]))
    assert {left.name for left in output.parent.iterdir()} == {output.name, "predict.jsonl"}
    return output


def refusal(path: Path, form: str | None = None) -> str:
    """Return the message for a file that is refused, after a check that it names the file and nothing was written."""
    output = path.parent / "denoised" / path.name
    output.parent.mkdir()
    files = FileDenoiser(denoiser(Same), Manifest(output.parent, path, {}), form)
    (fault,) = files.run([FileJob(path, output)])
    assert not list(output.parent.iterdir())
    assert fault.startswith(f"{path} ") and "; " in fault, fault
    return fault


def replaced(path: Path, values: Array, band: int = 11) -> Path:
    """Write a file like ``path`` with other values, (images, H, W, C), ``band`` rows at a time."""
    output = path.with_name(f"replaced{path.suffix}")
    with open_image_file(path) as image, open_output(image, image.form, output) as write:
        for group, images in enumerate(values.reshape(image.count, *image.shape)):
            for top in range(0, images.shape[1], band):
                write(group, top, images[:, top : top + band])
    return output


def fresh(*shape: int, dtype: str = "u1", seed: int = 0) -> Array:
    """Return random integers of the type's full range, or floats around 0: incompressible."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 100, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, np.dtype(dtype).newbyteorder("="), endpoint=True).astype(dtype)


def with_opacity(values: Array) -> Array:
    """Return integers (..., C) whose last channel is an alpha channel: most of it is 0 or the type's greatest value."""
    rng, values = np.random.default_rng(1), values.copy()
    shape, opaque = values.shape[:-1], np.iinfo(values.dtype).max
    values[..., -1] = np.where(rng.random(shape) < 0.7, rng.choice([0, opaque], shape), values[..., -1])
    return values


def ramp(*shape: int, dtype: str = "u1") -> Array:
    """Return small integers, each one different from its neighbours: compressible."""
    return np.indices(shape).sum(0).astype(dtype)
