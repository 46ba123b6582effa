"""What ``predict auto`` says of a file: the noise that it finds, and the net that it takes."""

from __future__ import annotations

import numpy as np

from n2n_lightning.diagnosis.single_image import ImageNoise, find_noise
from n2n_lightning.image_io.image_file import ImageReader
from n2n_lightning.image_io.value_range import Limits, finite_limits

WINDOW_PX = 512  # sides of the part that is looked at


def noise_line(image: ImageReader, rows: int, bounds: Limits | None, chosen: str) -> str | None:
    """Return one line about the middle of a file's middle image; None where it has values that are not finite.

    Args:
        image: the file.
        rows: that fit into memory at a time.
        bounds: values beyond them are clipped; None for none.
        chosen: name of the net.
    """
    images, height, width, _ = image.shape
    tall, wide = min(height, WINDOW_PX, rows), min(width, WINDOW_PX)
    top, left = (height - tall) // 2, (width - wide) // 2
    band = image.read(image.count // 2, top, top + tall)[images // 2]
    window = np.moveaxis(band[:, left : left + wide, image.colours], -1, 0)
    if finite_limits(window) is None:  # an error says so soon
        return None
    window = window if bounds is None else np.clip(window, *bounds)
    part = "" if (tall, wide, image.count * images) == (height, width, 1) else " (middle)"
    return f"{image.path}{part}: {noise_text(find_noise(window), chosen)}"


def noise_text(noise: ImageNoise, chosen: str) -> str:
    """Return what was found in an image, and what is done."""
    values = f"values {noise.low:.5g} to {noise.high:.5g}"
    text = {
        "constant": f"every value is {noise.high:.5g}, there is nothing to denoise; using {chosen} all the same",
        "small": f"too small to measure its noise ({values}); using {chosen}",
        "clean": f"hardly any independent noise (sd {noise.sd:.3g}, {values}); using {chosen}, which may smooth detail",
        "independent": f"noise of sd {noise.sd:.3g} ({values}); using {chosen}",
        "correlated": f"noise of sd about {noise.sd:.2g} ({values}), or fine texture, correlated between neighbouring "
        f"pixels ({noise.correlation:.2f}); using {chosen}, which knows independent noise only: the command "
        "denoise and training on several frames (data=burst) do better",
    }[noise.kind]
    if noise.saturated:
        text += f"; {100 * noise.saturated:.0f} % of the values are {noise.high:.5g} (saturated), what they hid is lost"
    return text
