"""What all figures share: colours, themes, rows of images, and PNG files. Nothing here opens a window."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from n2n_lightning.reporting.comparison import Comparison
from n2n_lightning.reporting.study import OTHER_COLOURS, STUDY_MODELS

GREY = "#7d8792"  # can be seen in both themes
DARK_PAPER, LIGHT_TEXT = "#1b1f24", "#d7dde3"  # around images, so that they look the same in both themes


class PngFigure(NamedTuple):
    """A figure as PNG, with its title and caption."""

    name: str  # of the file: "psnr.png"
    title: str
    caption: str
    png: bytes
    variants: Mapping[str, bytes] = {}  # CSS media query -> the figure for such a screen; the first that fits counts


class Theme(NamedTuple):
    """Colours of paper and text."""

    paper: str
    ink: str


LIGHT, DARK = Theme("#ffffff", "#1f2933"), Theme(DARK_PAPER, "#dfe4e9")


def png_bytes(figure: Figure, dpi: int = 200) -> bytes:
    """Return the figure as a PNG file; the same figure always gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def model_colours(comparison: Comparison) -> dict[str, str]:
    """Return each model's colour; models that are not the course report's take other colours in turn."""
    others = [model for model in comparison.models if model not in STUDY_MODELS]
    colours = dict(zip(others, itertools.cycle(OTHER_COLOURS), strict=False))
    return colours | {model: entry.colour for model, entry in STUDY_MODELS.items()}


Captioned = tuple[NDArray[np.uint8], str]  # an image of (H, W, C) and the text below it


def draw_image_rows(rows: Mapping[str, Sequence[Captioned]], cell_width: float, text_size: int) -> Figure:
    """Draw rows of images of one size, with the row's name on the left and a caption below each image.

    Args:
        rows: name -> images. Images with 3 channels are drawn in colour, of others the first channel in grey.
        cell_width: of an image, in inches.
        text_size: of the captions, in points; the names of the rows are a little larger.
    """
    left, gap, caption_height = 1.05, 0.05, 0.3  # inches; multiples of a pixel at 200 dpi
    height, width = next(iter(rows.values()))[0][0].shape[:2]
    cell_height = cell_width * height / width
    heights = [cell_height + (caption_height if any(text for _, text in row) else gap) for row in rows.values()]
    columns = max(3, *map(len, rows.values()))  # the page would enlarge a narrower figure too much
    figure = Figure(figsize=(left + columns * (cell_width + gap), gap + sum(heights)), facecolor=DARK_PAPER)
    across, up = figure.get_size_inches()
    top = up - gap
    for (name, images), row_height in zip(rows.items(), heights, strict=True):
        bottom, middle = top - cell_height, top - cell_height / 2
        figure.text(0.1 / across, middle / up, name, color=LIGHT_TEXT, size=text_size + 2, va="center")
        for column, (image, text) in enumerate(images):
            x = left + column * (cell_width + gap)
            axes = figure.add_axes((x / across, bottom / up, cell_width / across, cell_height / up))
            axes.axis("off")
            shown = image if image.shape[2] == 3 else image[..., 0]
            axes.imshow(shown, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            if text:
                where = ((x + cell_width / 2) / across, (bottom - 0.05) / up)
                figure.text(*where, text, color=LIGHT_TEXT, size=text_size, ha="center", va="top", linespacing=1.3)
        top -= row_height
    return figure
