"""Frames of known scenes, recorded without a fault or with one, for ``benchmarks.estimate``.

A scene is a photograph that scikit-image ships, its values between 0.25 and 0.75 of the range. The noise is Gaussian
with a standard deviation of 0.05 where a fault does not change it.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage
from skimage import color, data

from n2n_lightning.metrics import UNIT, Limits

Floats = npt.NDArray[np.floating]
PHOTOS = ("camera", "coffee", "chelsea", "astronaut")  # 300 to 512 px high, 451 to 600 px wide
SIGMA = 0.05
VAL_PX = 256  # side of the validation area, at the top right of each photograph


@dataclass(frozen=True)
class Recording:
    """Frames of one scene.

    Args:
        noisy: (n, H, W), in units of the range.
        clean: (n, H, W), what each frame shows, at its own level and place.
        limits: what clean images of such data can hold.
    """

    noisy: Floats
    clean: Floats
    limits: Limits = UNIT

    def cut(self, rows: slice, columns: slice) -> Recording:
        return replace(self, noisy=self.noisy[:, rows, columns], clean=self.clean[:, rows, columns])


Fault = Callable[[Floats, int, np.random.Generator], Recording]


def photo(name: str) -> Floats:
    """Return a photograph as (H, W) in [0.25, 0.75]."""
    image = getattr(data, name)()
    grey: Floats = color.rgb2gray(image) if image.ndim == 3 else image / 255
    scaled: Floats = 0.25 + 0.5 * (grey - grey.min()) / np.ptp(grey)
    return scaled


def repeated(scene: Floats, n: int) -> Floats:
    return np.repeat(scene[None], n, axis=0)


def white(scene: Floats, n: int, rng: np.random.Generator) -> Floats:
    """Return white Gaussian noise of standard deviation 1, (n, H, W)."""
    return rng.normal(size=(n, *scene.shape))


def control(scene: Floats, n: int, rng: np.random.Generator, *, shift: float = 0.0) -> Recording:
    """Record with all values shifted: below 0 the limits are those of the data, as in training."""
    clean = repeated(scene + shift, n)
    noisy = clean + SIGMA * white(scene, n, rng)
    return Recording(noisy, clean, UNIT if shift == 0 else (float(noisy.min()), float(noisy.max())))


def uneven(scene: Floats, n: int, rng: np.random.Generator) -> Recording:
    """Record with noise that grows with the signal and is twice as strong in every second frame."""
    clean = repeated(scene, n)
    factors = 1.0 + np.arange(n) % 2
    return Recording(clean + SIGMA * np.sqrt(2 * clean) * white(scene, n, rng) * factors[:, None, None] / 1.5, clean)


def neighbours(scene: Floats, n: int, rng: np.random.Generator) -> Recording:
    """Record with noise whose neighbours correlate by 0.6."""
    smooth = ndimage.gaussian_filter(white(scene, n, rng), (0, 0.7, 0.7), mode="wrap")
    clean = repeated(scene, n)
    return Recording(clean + SIGMA * smooth / smooth.std(), clean)


def stripes(scene: Floats, n: int, rng: np.random.Generator) -> Recording:
    """Record with rows that share half of the noise's variance, in each frame anew."""
    rows = rng.normal(size=(n, len(scene), 1))
    clean = repeated(scene, n)
    return Recording(clean + SIGMA * (rows + white(scene, n, rng)) / np.sqrt(2), clean)


def clipped(scene: Floats, n: int, rng: np.random.Generator, *, white_end: bool) -> Recording:
    """Record a scene that is mostly black, or mostly white, where the noise is cut off."""
    dark = 0.5 * (2 * scene - 0.5) ** 3
    clean = repeated(1 - dark if white_end else dark, n)
    return Recording((clean + SIGMA * white(scene, n, rng)).clip(0, 1), clean)


def outlier(scene: Floats, n: int, rng: np.random.Generator, *, value: float) -> Recording:
    """Record with one value far out in the second frame, in each area."""
    found = control(scene, n, rng)
    for column in (-VAL_PX // 2, (scene.shape[1] - VAL_PX) // 2):
        found.noisy[1, VAL_PX // 2, column] = value
    return found


def shared(scene: Floats, n: int, rng: np.random.Generator, *, share: float) -> Recording:
    """Record with a fixed pattern that has this share of the noise's variance."""
    noise = np.sqrt(share) * white(scene, 1, rng) + np.sqrt(1 - share) * white(scene, n, rng)
    clean = repeated(scene, n)
    return Recording(clean + SIGMA * noise, clean)


def successive(scene: Floats, n: int, rng: np.random.Generator, *, rho: float) -> Recording:
    """Record with noise that correlates by rho from frame to frame, as with a recursive filter."""
    noise = white(scene, n, rng)
    for k in range(1, n):
        noise[k] = rho * noise[k - 1] + np.sqrt(1 - rho**2) * noise[k]
    clean = repeated(scene, n)
    return Recording(clean + SIGMA * noise, clean)


def copies(scene: Floats, n: int, rng: np.random.Generator, *, rounded: bool = False) -> Recording:
    """Record every second frame only, and fill in copies, if ``rounded`` saved again in 8 bits."""
    found = control(scene, n, rng)
    found.noisy[1::2] = np.rint(found.noisy[::2] * 255) / 255 if rounded else found.noisy[::2]
    return found


def mean_of_others(scene: Floats, n: int, rng: np.random.Generator) -> Recording:
    """Record with a last frame that is a mean: of the other frames, or of the only other one and three more."""
    found = control(scene, max(n, 4), rng)
    found.noisy[n - 1] = found.noisy[: max(n - 1, 4)].mean(0)
    return Recording(found.noisy[:n], found.clean[:n])


def drift(scene: Floats, n: int, rng: np.random.Generator, *, step: int) -> Recording:
    """Record a scene that moves down by ``step`` px a frame."""
    clean = np.stack([ndimage.shift(scene, (step * k, 0), order=0, mode="mirror") for k in range(n)])
    return Recording(clean + SIGMA * white(scene, n, rng), clean)


def bleaching(scene: Floats, n: int, rng: np.random.Generator, *, last: float) -> Recording:
    """Record a scene that fades, from the gain 1 to ``last``."""
    clean = scene * np.linspace(1, last, n)[:, None, None]
    return Recording(clean + SIGMA * white(scene, n, rng), clean)


def flicker(scene: Floats, n: int, rng: np.random.Generator, *, sigmas: float) -> Recording:
    """Record a level that jumps up and down by that many standard deviations of the noise."""
    level = SIGMA * sigmas * (np.arange(n) % 2 - 0.5)
    clean = scene + level[:, None, None]
    return Recording(clean + SIGMA * white(scene, n, rng), clean)


def black_frame(scene: Floats, n: int, rng: np.random.Generator) -> Recording:
    """Record with a second frame that is 0; the truth is the scene for it too."""
    found = control(scene, n, rng)
    found.noisy[1] = 0
    return found


def jpeg(scene: Floats, n: int, rng: np.random.Generator, *, quality: int) -> Recording:
    """Record and compress each frame on its own."""
    found = control(scene, n, rng)
    for frame in found.noisy:
        file = io.BytesIO()
        Image.fromarray(np.rint(frame * 255).clip(0, 255).astype(np.uint8)).save(file, "jpeg", quality=quality)
        frame[:] = np.asarray(Image.open(file)) / 255
    return found


CONTROLS: dict[str, Fault] = {
    "none": control,
    "noise that grows with the signal, and differs between frames": uneven,
    "noise of neighbouring pixels correlated by 0.6": neighbours,
    "stripes, half of the variance": stripes,
    "values below 0": partial(control, shift=-0.5),
}
FAULTS: dict[str, Fault] = CONTROLS | {
    "clipped at black": partial(clipped, white_end=False),
    "clipped at white": partial(clipped, white_end=True),
    "one value of 20 times the range": partial(outlier, value=20.0),
    "the same value, clipped to the range": partial(outlier, value=1.0),
    "fixed pattern, 5 % of the variance": partial(shared, share=0.05),
    "fixed pattern, 30 % of the variance": partial(shared, share=0.3),
    "successive frames correlated by 0.1": partial(successive, rho=0.1),
    "successive frames correlated by 0.5": partial(successive, rho=0.5),
    "every second frame is a copy": copies,
    "the same copies, saved again in 8 bits": partial(copies, rounded=True),
    "last frame is a mean that contains the source": mean_of_others,
    "second frame is black": black_frame,
    "drift of 1 px a frame": partial(drift, step=1),
    "drift of 2 px a frame": partial(drift, step=2),
    "bleaching to 0.9": partial(bleaching, last=0.9),
    "bleaching to 0.5": partial(bleaching, last=0.5),
    "level flickers by 0.5 sd of the noise": partial(flicker, sigmas=0.5),
    "level flickers by 2 sd of the noise": partial(flicker, sigmas=2.0),
    "JPEG of quality 90": partial(jpeg, quality=90),
    "JPEG of quality 50": partial(jpeg, quality=50),
}
