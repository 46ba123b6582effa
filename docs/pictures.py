"""Make the pictures of ``docs/sources`` from scikit-image's bundled photographs: ``python docs/pictures.py``.

It trains with the commands that the pages give (some minutes each; finished runs are kept), and writes strips of equal
panels beside the pages. It works in ``outputs/pictures``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
import torch
from PIL import Image
from skimage import data

from n2n_lightning import load_denoiser
from n2n_lightning.noise.kinds import Bernoulli, Brown, Gaussian, Impulse, Pixelate, Poisson, Text
from n2n_lightning.self_supervised.neighbor2neighbor import draw_choice, subsample

Pixels = npt.NDArray[np.uint8]
WORK, PAGES = Path("outputs/pictures"), Path(__file__).parent / "sources"
GAP_PX = 4


def to_tensor(image: npt.NDArray[Any]) -> torch.Tensor:
    """Convert (H, W, C) -> (1, C, H, W) float32."""
    return torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)).permute(2, 0, 1)[None]


def to_array(images: torch.Tensor) -> npt.NDArray[np.float32]:
    """Convert the first image of (N, C, H, W) -> (H, W, C)."""
    array: npt.NDArray[np.float32] = images[0].permute(1, 2, 0).numpy()
    return array


def strip(name: str, *panels: npt.NDArray[Any], columns: int = 8) -> None:
    """Write panels, (H, W, C) in 0..1, in rows of ``columns``; small ones are enlarged by repeating pixels."""
    height = max(panel.shape[0] for panel in panels)
    shown = []
    for panel in panels:
        factor = height // panel.shape[0]
        pixels = np.rint(panel.clip(0, 1) * 255).astype(np.uint8).repeat(factor, 0).repeat(factor, 1)
        if pixels.shape[2] == 1:
            pixels = pixels.repeat(3, 2)
        shown.append(np.pad(pixels, ((0, GAP_PX), (0, GAP_PX), (0, 0)), constant_values=255))
    rows = [np.concatenate(shown[first : first + columns], 1) for first in range(0, len(shown), columns)]
    Image.fromarray(np.concatenate(rows)[:-GAP_PX, :-GAP_PX]).save(PAGES / f"{name}.png", optimize=True)
    print(PAGES / f"{name}.png", flush=True)


def train(name: str, *overrides: str) -> Path:
    """Run the command in ``WORK``; return the best checkpoint."""
    command = [sys.executable, "-m", "n2n_lightning.train", *overrides, f"hydra.run.dir=outputs/{name}"]
    subprocess.run(command, cwd=WORK, check=True)
    return WORK / "outputs" / name / "checkpoints" / "best.ckpt"


def clean() -> None:
    image = data.coffee()[120:312, 200:392] / 255.0
    rng = torch.Generator().manual_seed(0)
    noises = (Gaussian(25), Brown(25), Poisson(30), Bernoulli(0.5), Impulse(0.5), Text(0.25), Pixelate(8))
    strip("clean", image, *(to_array(noise.corrupt(to_tensor(image), rng)) for noise in noises), columns=4)


def burst() -> None:
    """Run the three steps of the page."""
    photograph = data.chelsea()
    rng = np.random.default_rng(0)
    frames = rng.poisson(photograph * (30 / 255), size=(6, *photograph.shape))
    tifffile.imwrite(WORK / "burst.tif", (100 * frames).astype(np.uint16), photometric="rgb")
    best = train("cat", "data=burst", "data.root=burst.tif", "minutes=2")
    frame = torch.from_numpy(tifffile.imread(WORK / "burst.tif")[0]).permute(2, 0, 1)[None]
    denoised = to_array(load_denoiser(best).denoise(frame).float()) / 3000
    for name, image in (("noisy", frames[0] / 30), ("denoised", denoised), ("mean of six", frames.mean(0) / 30)):
        mse = np.square(image.clip(0, 1) - photograph / 255.0).mean()
        print(f"{name}: {-10 * np.log10(mse):.2f} dB against the photograph")
    window = np.s_[20:212, 80:272]
    strip("burst", frames[0][window] / 30, denoised[window], photograph[window] / 255.0)


def pairs() -> None:
    image = data.astronaut() / 255.0
    rng = np.random.default_rng(0)
    first, second = (np.float32(image + rng.normal(0, 25 / 255, image.shape)) for _ in range(2))
    for folder, noisy in (("first", first), ("second", second)):
        (WORK / folder).mkdir(exist_ok=True)
        tifffile.imwrite(WORK / folder / "astronaut.tif", noisy, photometric="rgb")
    best = train("pairs", "data=pairs", "data.source=first", "data.target=second", "data.range=1", "data.crop_px=32",
                 "data.augment=[flip,rotate,swap]", "trainer.max_epochs=6")  # fmt: skip
    denoised = to_array(load_denoiser(best).denoise(to_tensor(first)))
    window = np.s_[20:212, 130:322]
    strip("pairs", first[window], second[window], denoised[window])


def single() -> None:
    image = data.rocket() / 255.0
    rng = np.random.default_rng(0)
    noisy = np.float32(image + rng.normal(0, 25 / 255, image.shape))
    (WORK / "single").mkdir(exist_ok=True)
    tifffile.imwrite(WORK / "single" / "rocket.tif", noisy, photometric="rgb")
    best = train("single", "data=single", "data.root=single", "data.range=1", "data.train_pairs=1024",
                 "data.batch_size=16", "trainer.max_epochs=8")  # fmt: skip
    denoised = to_array(load_denoiser(best).denoise(to_tensor(noisy)))
    window = np.s_[160:352, 230:422]
    choice = draw_choice(1, 192, 192, torch.Generator().manual_seed(0))
    halves = map(to_array, subsample(to_tensor(noisy[window]), choice))
    strip("single", noisy[window], *halves, denoised[window])


def arrays() -> None:
    """Run the code of the page."""
    page = (PAGES / "arrays.md").read_text()
    found: dict[str, Any] = {}
    exec(page.split("```python\n")[1].split("```")[0], found)
    noisy = torch.from_numpy(found["first"]).float()[None, None]
    denoised = to_array(found["module"].denoise(noisy))
    window = np.s_[60:252, 150:342]
    strip("arrays", found["first"][window][..., None], denoised[window], found["clean"][window][..., None])


if __name__ == "__main__":
    WORK.mkdir(parents=True, exist_ok=True)
    for make in [globals()[name] for name in sys.argv[1:]] or [clean, burst, pairs, single, arrays]:
        make()
