"""The report's networks: the U-Net as a picture (Figure 1), the sequential models as a table (Table 1)."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from n2n_lightning.reporting.comparison import Comparison
from n2n_lightning.reporting.figures import LIGHT, PngFigure, png_bytes

DEPTH = 5  # poolings
WIDTH = 48  # channels of the encoder
ENCODER_FILL, DECODER_FILL, SKIP_COLOUR, INK = "#cfe3f3", "#fbe3c6", "#c8553d", LIGHT.ink
BOX_WIDTH, BOX_HEIGHT, INPUT_WIDTH = 9.6, 5.4, 4.0  # of a layer's box, and width of the bar for a block's input
MIDDLE = 43.0  # x between the encoder and the decoder


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
    """The convolutions at one size; level 0 has the size of the image."""

    level: int
    layers: tuple[Layer, ...]


def unet_blocks(channels: int) -> tuple[list[Block], list[Block]]:
    """Return the encoder from the top down, and the decoder from the bottom up, with the paper's names."""
    encoder = [Block(0, (Layer("enc_conv0", channels, WIDTH), Layer("enc_conv1", WIDTH, WIDTH)))]
    encoder += [Block(level, (Layer(f"enc_conv{level + 1}", WIDTH, WIDTH),)) for level in range(1, DEPTH + 1)]
    decoder = []
    inputs, wide = WIDTH, 2 * WIDTH
    for level in range(DEPTH - 1, 0, -1):
        name = f"dec_conv{level + 1}"
        decoder.append(Block(level, (Layer(f"{name}a", inputs + WIDTH, wide), Layer(f"{name}b", wide, wide))))
        inputs = wide
    sizes = (inputs + channels, 64, 32, channels)
    decoder.append(Block(0, tuple(Layer(f"dec_conv1{'abc'[i]}", sizes[i], sizes[i + 1]) for i in range(3))))
    return encoder, decoder


def unet_parameters(channels: int) -> int:
    """Return the number of parameters: 991,203 for three channels."""
    return sum(layer.parameters for side in unet_blocks(channels) for block in side for layer in block.layers)


def sequential_rows(channels: int) -> list[tuple[str, str, int]]:
    """Return Table 1 as (layer, description, output channels)."""
    upsampling = "NN: ×2 nearest neighbour, then 3×3 convolution · Convtrans: 2×2 transposed convolution, stride 2"
    return [
        ("conv1", "2×2 convolution, stride 2", 48),
        ("relu1", "ReLU", 48),
        ("conv2", "2×2 convolution, stride 2", 96),
        ("relu2", "ReLU", 96),
        ("upsampling3", upsampling, 48),
        ("relu3", "ReLU", 48),
        ("upsampling4", "as upsampling3", channels),
        ("activation", "ReLU or Sigmoid, see the model's name", channels),
    ]


def draw_architecture(comparison: Comparison) -> list[PngFigure]:
    """Draw the U-Net for the size of its images, if one was run."""
    runs = [run for run in comparison.runs if run.model == "unet"]
    if not runs:
        return []
    shape = next((shape for run in runs if (shape := run.image_shape)), (3, 32, 32))
    expected = unet_parameters(shape[0])
    caption = (
        f"Figure 1 of the report, for images of {shape[1]}×{shape[2]} pixels and {_count_channels(shape[0])}, with the "
        f"paper's names of the layers: {expected:,} parameters."
    )
    if (found := next((params for run in runs if (params := run.number("params"))), expected)) != expected:
        caption += f" The U-Net of these runs is another one: it has {found:,.0f} parameters."
    return [PngFigure("architecture_unet.png", "The U-Net", caption, png_bytes(draw_unet(shape)))]


def draw_unet(image_shape: tuple[int, int, int]) -> Figure:
    """Draw Figure 1 for images of (C, H, W): encoder on the left, decoder on the right, skip connections in red."""
    channels, height, width = image_shape
    encoder, decoder = unet_blocks(channels)
    figure = Figure(figsize=(10.4, 6.1))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 104), ylim=(0.5, 61.5))
    axes.axis("off")
    for block in encoder:
        source = f"pool{block.level}" if block.level else "input"
        _draw_block(axes, block, _encoder_x(block.level), source, ENCODER_FILL)
    for block in decoder:
        _draw_block(axes, block, _decoder_x(block.level), "concat", DECODER_FILL)
    for level in range(DEPTH):
        _draw_skip(axes, level, WIDTH if level else channels)
        below = _base(level + 1) + BOX_HEIGHT
        down, up = _encoder_x(level + 1) + 1.3, _decoder_x(level) + INPUT_WIDTH / 2
        _draw_arrow(axes, [(down, _base(level)), (down, below)])
        start = [(up, below)]
        if level == DEPTH - 1:  # from the right side of the lowest block, around the corner
            y = below - BOX_HEIGHT / 2
            start = [(_encoder_x(DEPTH) + INPUT_WIDTH + BOX_WIDTH, y), (up, y)]
        _draw_arrow(axes, [*start, (up, _base(level))])
    for level in range(DEPTH + 1):
        y = _base(level) + BOX_HEIGHT * (0.5 if level < DEPTH else 0.85)
        _write(axes, MIDDLE, y, _padded_size(height, width, level), 10, weight="bold")
    _draw_legend(axes)
    return figure


def _encoder_x(level: int) -> float:
    return 2 + 4.0 * level


def _decoder_x(level: int) -> float:
    return 66 - 4.0 * level


def _base(level: int) -> float:
    """Return the y of the lower edge of a level's boxes."""
    return 52.5 - 9.8 * level


def _draw_block(axes: Axes, block: Block, x: float, source: str, fill: str) -> None:
    """Draw a bar for the block's input, then a box for each convolution."""
    y = _base(block.level)
    _draw_box(axes, x, y, INPUT_WIDTH, BOX_HEIGHT, "white")
    _write(axes, x + INPUT_WIDTH / 2, y + BOX_HEIGHT / 2, source, 7.5, rotation=90)
    for index, layer in enumerate(block.layers):
        left = x + INPUT_WIDTH + index * BOX_WIDTH
        _draw_box(axes, left, y, BOX_WIDTH, BOX_HEIGHT, fill)
        _write(axes, left + BOX_WIDTH / 2, y + BOX_HEIGHT * 0.68, layer.name, 8.2)
        _write(axes, left + BOX_WIDTH / 2, y + BOX_HEIGHT * 0.28, f"{layer.inputs} → {layer.outputs}", 8.2)


def _draw_skip(axes: Axes, level: int, channels: int) -> None:
    """Draw an arrow from the encoder's input, over the boxes, to the concatenation in the decoder."""
    top = _base(level) + BOX_HEIGHT
    start, end = _encoder_x(level) + 2.9, _decoder_x(level) + INPUT_WIDTH / 2
    _draw_arrow(axes, [(start, top), (start, top + 1.5), (end, top + 1.5), (end, top)], SKIP_COLOUR)
    axes.text(MIDDLE, top + 1.9, _count_channels(channels), ha="center", va="bottom", size=8, color=SKIP_COLOUR)


def _draw_box(axes: Axes, x: float, y: float, width: float, height: float, fill: str) -> None:
    axes.add_patch(Rectangle((x, y), width, height, facecolor=fill, edgecolor=INK, linewidth=0.8))


def _write(axes: Axes, x: float, y: float, text: str, size: float, weight: str = "normal", rotation: float = 0) -> None:
    """Write a text around a point."""
    axes.text(x, y, text, ha="center", va="center", size=size, weight=weight, rotation=rotation, color=INK)


def _draw_arrow(axes: Axes, points: list[tuple[float, float]], colour: str = INK) -> None:
    """Draw a line through all points, with a head at the last."""
    axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.4, solid_capstyle="butt", solid_joinstyle="miter")
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 11}
    axes.annotate("", points[-1], points[-2], arrowprops=style)


def _draw_legend(axes: Axes) -> None:
    """Explain arrows and boxes in the empty corner on the lower right."""
    arrows = {
        INK: "down: 2×2 max pooling; up: nearest neighbour ×2",
        SKIP_COLOUR: "skip: concatenated to the upsampled channels",
    }
    for index, (colour, text) in enumerate(arrows.items()):
        y = 8.6 - 2.9 * index
        _draw_arrow(axes, [(63, y), (66.5, y)], colour)
        axes.text(67.5, y, text, va="center", size=8.4, color=INK)
    _draw_box(axes, 63.2, 1.8, 3, 2, ENCODER_FILL)
    text = "3×3 convolution, in → out channels, leaky ReLU 0.1\n(none after dec_conv1c)"
    axes.text(67.5, 3.5, text, va="top", size=8.4, color=INK, linespacing=1.3)


def _padded_size(height: int, width: int, level: int) -> str:
    """Return the size at a level, after padding to a multiple of 32."""
    sides = [-(-side // 2**DEPTH) * 2**DEPTH // 2**level for side in (height, width)]
    return f"{sides[0]}×{sides[1]}"


def _count_channels(channels: int) -> str:
    return f"{channels} channel{'' if channels == 1 else 's'}"
