"""The networks of the report as pictures and tables: the U-Net (Figure 1) and the sequential models (Table 1)."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from n2n_lightning.reporting.comparison import Comparison
from n2n_lightning.reporting.figures import PngFigure, png_bytes

DEPTH = 5  # poolings
WIDTH = 48  # channels of the encoder
ENCODER, DECODER, SKIP, INK = "#cfe3f3", "#fbe3c6", "#c8553d", "#1f2933"


@dataclass(frozen=True)
class Layer:
    """A 3x3 convolution of the U-Net."""

    name: str
    inputs: int
    outputs: int

    @property
    def parameters(self) -> int:
        return self.outputs * (9 * self.inputs + 1)


@dataclass(frozen=True)
class Block:
    """The convolutions that follow each other at one size; level 0 is the image's own."""

    level: int
    layers: tuple[Layer, ...]


def unet_blocks(channels: int) -> tuple[list[Block], list[Block]]:
    """The encoder from the top down, and the decoder from the bottom up, with the paper's names."""
    encoder = [Block(0, (Layer("enc_conv0", channels, WIDTH), Layer("enc_conv1", WIDTH, WIDTH)))]
    encoder += [Block(level, (Layer(f"enc_conv{level + 1}", WIDTH, WIDTH),)) for level in range(1, DEPTH + 1)]
    decoder = []
    inputs = WIDTH
    for level in range(DEPTH - 1, 0, -1):
        name, wide = f"dec_conv{level + 1}", 2 * WIDTH
        decoder.append(Block(level, (Layer(f"{name}a", inputs + WIDTH, wide), Layer(f"{name}b", wide, wide))))
        inputs = wide
    last = (
        Layer("dec_conv1a", inputs + channels, 64),
        Layer("dec_conv1b", 64, 32),
        Layer("dec_conv1c", 32, channels),
    )
    decoder.append(Block(0, last))
    return encoder, decoder


def draw_architecture(comparison: Comparison) -> list[PngFigure]:
    """The U-Net's picture where one was run, for the size of its images."""
    runs = [run for run in comparison.runs if run.model == "unet"]
    if not runs:
        return []
    shape = next((shape for run in runs if (shape := run.image_shape)), (3, 32, 32))
    expected = unet_parameters(shape[0])
    caption = (
        f"Figure 1 of the report, for images of {shape[1]}×{shape[2]} pixels and {count(shape[0])}, with the paper's "
        f"names of the layers: {expected:,} parameters."
    )
    if (found := next((params for run in runs if (params := run.number("params"))), expected)) != expected:
        caption += f" The U-Net of these runs is another one: it has {found:,.0f} parameters."
    return [PngFigure("architecture_unet.png", "The U-Net", caption, png_bytes(draw_unet(shape)))]


def count(channels: int) -> str:
    """``1 channel``, ``3 channels``."""
    return f"{channels} channel{'' if channels == 1 else 's'}"


def unet_parameters(channels: int) -> int:
    """991,203 for three channels."""
    return sum(layer.parameters for side in unet_blocks(channels) for block in side for layer in block.layers)


def sequential_rows(channels: int) -> list[tuple[str, str, int]]:
    """Table 1: (layer, what it is, output channels)."""
    upsampling = "NN: ×2 nearest neighbour, then 3×3 convolution · Convtrans: 2×2 transposed convolution, stride 2"
    return [
        ("conv1", "2×2 convolution, stride 2", 48),
        ("relu1", "ReLU", 48),
        ("conv2", "2×2 convolution, stride 2", 96),
        ("relu2", "ReLU", 96),
        ("upsampling3", upsampling, 48),
        ("relu3", "ReLU", 48),
        ("upsampling4", "as upsampling3", channels),
        ("activation", "ReLU or Sigmoid, as the model's name says", channels),
    ]


def draw_unet(image_shape: tuple[int, int, int]) -> Figure:
    """Figure 1 for images of (C, H, W): the encoder on the left, the decoder on the right, skips across in red."""
    channels, height, width = image_shape
    encoder, decoder = unet_blocks(channels)
    figure = Figure(figsize=(10.4, 6.1))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 104), ylim=(0.5, 61.5))
    axes.axis("off")
    for block in encoder:
        _draw_block(
            axes, block, _encoder_x(block.level), "input" if block.level == 0 else f"pool{block.level}", ENCODER
        )
    for block in decoder:
        _draw_block(axes, block, _decoder_x(block.level), "concat", DECODER)
    for level in range(DEPTH):
        _draw_skip(axes, level, channels if level == 0 else WIDTH)
        down = _encoder_x(level + 1) + 1.3
        _arrow(axes, [(down, _base(level)), (down, _base(level + 1) + BOX_HEIGHT)])
        up = _decoder_x(level) + THIN / 2
        below = [(up, _base(level + 1) + BOX_HEIGHT)]
        if level == DEPTH - 1:  # from the bottom layer, around the corner
            below = [
                (_encoder_x(DEPTH) + THIN + BOX_WIDTH, _base(DEPTH) + BOX_HEIGHT / 2),
                (up, _base(DEPTH) + BOX_HEIGHT / 2),
            ]
        _arrow(axes, [*below, (up, _base(level))])
    for level in range(DEPTH + 1):
        y = _base(level) + (BOX_HEIGHT / 2 if level < DEPTH else BOX_HEIGHT * 0.85)
        axes.text(MIDDLE, y, _size(height, width, level), ha="center", va="center", size=10, color=INK, weight="bold")
    _draw_key(axes)
    return figure


BOX_WIDTH, BOX_HEIGHT, THIN = 9.6, 5.4, 4.0  # of a layer, and of the bar for what comes in
MIDDLE = 43.0  # between the encoder and the decoder


def _encoder_x(level: int) -> float:
    return 2 + 4.0 * level


def _decoder_x(level: int) -> float:
    return 66 - 4.0 * level


def _base(level: int) -> float:
    """The lower edge of a level's boxes."""
    return 52.5 - 9.8 * level


def _draw_block(axes: Axes, block: Block, x: float, source: str, colour: str) -> None:
    """A bar for what comes in, then a box for every convolution."""
    y = _base(block.level)
    axes.add_patch(Rectangle((x, y), THIN, BOX_HEIGHT, facecolor="white", edgecolor=INK, linewidth=0.8))
    axes.text(x + THIN / 2, y + BOX_HEIGHT / 2, source, ha="center", va="center", size=7.5, rotation=90, color=INK)
    for index, layer in enumerate(block.layers):
        left = x + THIN + index * BOX_WIDTH
        axes.add_patch(Rectangle((left, y), BOX_WIDTH, BOX_HEIGHT, facecolor=colour, edgecolor=INK, linewidth=0.8))
        axes.text(
            left + BOX_WIDTH / 2, y + BOX_HEIGHT * 0.68, layer.name, ha="center", va="center", size=8.2, color=INK
        )
        channels = f"{layer.inputs} → {layer.outputs}"
        axes.text(left + BOX_WIDTH / 2, y + BOX_HEIGHT * 0.28, channels, ha="center", va="center", size=8.2, color=INK)


def _draw_skip(axes: Axes, level: int, channels: int) -> None:
    """From what came in on the left, over the boxes, to the concatenation on the right."""
    top = _base(level) + BOX_HEIGHT
    start, end = _encoder_x(level) + 2.9, _decoder_x(level) + THIN / 2
    _arrow(axes, [(start, top), (start, top + 1.5), (end, top + 1.5), (end, top)], SKIP)
    axes.text(MIDDLE, top + 1.9, count(channels), ha="center", va="bottom", size=8, color=SKIP)


def _arrow(axes: Axes, points: list[tuple[float, float]], colour: str = INK) -> None:
    """A line through all points, with a head at the last."""
    axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.4, solid_capstyle="butt", solid_joinstyle="miter")
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 11}
    axes.annotate("", points[-1], points[-2], arrowprops=style)


def _draw_key(axes: Axes) -> None:
    """What boxes and arrows mean, in the empty corner on the lower right."""
    lines = [
        (INK, "down: 2×2 max pooling; up: nearest neighbour ×2"),
        (SKIP, "skip: concatenated to the upsampled channels"),
    ]
    for index, (colour, text) in enumerate(lines):
        y = 8.6 - 2.9 * index
        _arrow(axes, [(63, y), (66.5, y)], colour)
        axes.text(67.5, y, text, va="center", size=8.4, color=INK)
    axes.add_patch(Rectangle((63.2, 1.8), 3, 2, facecolor=ENCODER, edgecolor=INK, linewidth=0.8))
    text = "3×3 convolution, in → out channels, leaky ReLU 0.1\n(none after dec_conv1c)"
    axes.text(67.5, 3.5, text, va="top", size=8.4, color=INK, linespacing=1.3)


def _size(height: int, width: int, level: int) -> str:
    """The size at a level, after padding to a multiple of 32."""
    sides = [-(-side // 2**DEPTH) * 2**DEPTH // 2**level for side in (height, width)]
    return f"{sides[0]}×{sides[1]}"
