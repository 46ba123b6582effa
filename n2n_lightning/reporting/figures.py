"""What all figures share: colours, paper, and how a figure becomes a PNG. Nothing here opens a window."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import NamedTuple

from matplotlib.figure import Figure

from n2n_lightning.reporting.comparison import Comparison

# Okabe and Ito's colours, which colour-blind readers can tell apart; the blue is a little lighter, so that it shows on
# dark paper as well. The same model always has the same one.
COLOURS = {
    "unet": "#1A80C2",
    "nn_relu": "#D55E00",
    "nn_sigmoid": "#E69F00",
    "convtrans_relu": "#009E73",
    "convtrans_sigmoid": "#CC79A7",
}
OTHER_COLOURS = ["#56B4E9", "#8E6BC4", "#A8842C", "#8A9199", "#C2588F", "#4F9483"]
GREY = "#7d8792"  # shows on either paper


@dataclass(frozen=True)
class PngFigure:
    """A figure as PNG, with the words to go with it."""

    name: str  # file name, "psnr.png"
    title: str
    caption: str
    png: bytes
    dark_png: bytes | None = None  # the same on dark paper, for a page at night


class Theme(NamedTuple):
    """Paper and ink."""

    paper: str
    ink: str


LIGHT, DARK = Theme("#ffffff", "#1f2933"), Theme("#1b1f24", "#dfe4e9")


def png_bytes(figure: Figure, dpi: int = 200) -> bytes:
    """The figure as a PNG file, the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def model_colours(comparison: Comparison) -> dict[str, str]:
    """Every model's colour; those that are not of the report take the rest of the palette in turn."""
    unknown = [model for model in comparison.models if model not in COLOURS]
    return COLOURS | {model: OTHER_COLOURS[i % len(OTHER_COLOURS)] for i, model in enumerate(unknown)}
