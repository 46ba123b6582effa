"""The report's networks: the U-Net as a picture (Figure 1), the sequential models as a table (Table 1)."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from n2n_lightning.reporting.comparison import Comparison
from n2n_lightning.reporting.figures import LIGHT, PngFigure, png_bytes

DEPTH = 5  # poolings
FILLS, SKIP_COLOUR, INK = {"enc": "#cfe3f3", "dec": "#fbe3c6"}, "#c8553d", LIGHT.ink
BOX_WIDTH, BOX_HEIGHT, INPUT_WIDTH = 9.6, 5.4, 4.0  # of a layer's box, and width of the bar for a block's input
MIDDLE = 43.0  # x between the encoder and the decoder


class Layer(NamedTuple):
    """A 3x3 convolution of the U-Net."""

    name: str
    inputs: int
    outputs: int


Blocks = dict[tuple[str, int], list[Layer]]  # ("enc" or "dec", level) -> layers; level 0 has the size of the image


def unet_blocks(channels: int) -> tuple[Blocks, int]:
    """Return the U-Net's layers by block, and its number of parameters."""
    import torch  # takes seconds

    from n2n_lightning.nets.unet import UNet

    net = UNet(channels)
    blocks: Blocks = defaultdict(list)
    for name, layer in net.named_children():  # the digit is level + 1, but also enc_conv0 is at level 0
        assert isinstance(layer, torch.nn.Conv2d)
        level = max(int(name[len("enc_conv")]) - 1, 0)
        blocks[name[:3], level].append(Layer(name, layer.in_channels, layer.out_channels))
    return blocks, sum(parameter.numel() for parameter in net.parameters())


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
    blocks, expected = unet_blocks(shape[0])
    caption = (
        f"Figure 1 of the report, for images of {shape[1]}×{shape[2]} pixels and {_count_channels(shape[0])}, with the "
        f"paper's names of the layers: {expected:,} parameters."
    )
    if (found := next((params for run in runs if (params := run.number("params"))), expected)) != expected:
        caption += f" The U-Net of these runs is another one: it has {found:,.0f} parameters."
    return [PngFigure("architecture_unet.png", "The U-Net", caption, png_bytes(draw_unet(blocks, shape)))]


def draw_unet(blocks: Blocks, image_shape: tuple[int, int, int]) -> Figure:
    """Draw Figure 1 for images of (C, H, W): encoder on the left, decoder on the right, skip connections in red."""
    _, height, width = image_shape
    figure = Figure(figsize=(10.4, 6.1))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 104), ylim=(0.5, 61.5))
    axes.axis("off")
    for (side, level), layers in blocks.items():
        _draw_block(axes, side, level, layers)
    for level in range(DEPTH):
        _draw_skip(axes, level, blocks["enc", level][0].inputs)
        below = _base(level + 1) + BOX_HEIGHT
        down, up = _left("enc", level + 1) + 1.3, _left("dec", level) + INPUT_WIDTH / 2
        _draw_arrow(axes, [(down, _base(level)), (down, below)])
        start = [(up, below)]
        if level == DEPTH - 1:  # from the right side of the lowest block, around the corner
            y = below - BOX_HEIGHT / 2
            start = [(_left("enc", DEPTH) + INPUT_WIDTH + BOX_WIDTH, y), (up, y)]
        _draw_arrow(axes, [*start, (up, _base(level))])
    for level in range(DEPTH + 1):
        y = _base(level) + BOX_HEIGHT * (0.5 if level < DEPTH else 0.85)
        sides = [-(-side // 2**DEPTH) * 2 ** (DEPTH - level) for side in (height, width)]  # padded to multiples of 32
        _write(axes, MIDDLE, y, f"{sides[0]}×{sides[1]}", 10, weight="bold")
    _draw_legend(axes)
    return figure


def _left(side: str, level: int) -> float:
    """Return the x of a block's left edge."""
    return 2 + 4.0 * level if side == "enc" else 66 - 4.0 * level


def _base(level: int) -> float:
    """Return the y of the lower edge of a level's boxes."""
    return 52.5 - 9.8 * level


def _draw_block(axes: Axes, side: str, level: int, layers: list[Layer]) -> None:
    """Draw a bar for the block's input, then a box for each convolution."""
    x, y = _left(side, level), _base(level)
    source = "concat" if side == "dec" else f"pool{level}" if level else "input"
    _draw_box(axes, x, y, INPUT_WIDTH, BOX_HEIGHT, "white")
    _write(axes, x + INPUT_WIDTH / 2, y + BOX_HEIGHT / 2, source, 7.5, rotation=90)
    for index, layer in enumerate(layers):
        left = x + INPUT_WIDTH + index * BOX_WIDTH
        _draw_box(axes, left, y, BOX_WIDTH, BOX_HEIGHT, FILLS[side])
        _write(axes, left + BOX_WIDTH / 2, y + BOX_HEIGHT * 0.68, layer.name, 8.2)
        _write(axes, left + BOX_WIDTH / 2, y + BOX_HEIGHT * 0.28, f"{layer.inputs} → {layer.outputs}", 8.2)


def _draw_skip(axes: Axes, level: int, channels: int) -> None:
    """Draw an arrow from the encoder's input, over the boxes, to the concatenation in the decoder."""
    top = _base(level) + BOX_HEIGHT
    start, end = _left("enc", level) + 2.9, _left("dec", level) + INPUT_WIDTH / 2
    _draw_arrow(axes, [(start, top), (start, top + 1.5), (end, top + 1.5), (end, top)], SKIP_COLOUR)
    _write(axes, MIDDLE, top + 1.9, _count_channels(channels), 8, va="bottom", color=SKIP_COLOUR)


def _draw_box(axes: Axes, x: float, y: float, width: float, height: float, fill: str) -> None:
    axes.add_patch(Rectangle((x, y), width, height, facecolor=fill, edgecolor=INK, linewidth=0.8))


def _write(axes: Axes, x: float, y: float, text: str, size: float, **style: Any) -> None:
    """Write a text, by default centred on the point."""
    options: dict[str, Any] = {"size": size, "ha": "center", "va": "center", "color": INK} | style
    axes.text(x, y, text, **options)


def _draw_arrow(axes: Axes, points: list[tuple[float, float]], colour: str = INK) -> None:
    """Draw a line through all points, with a head at the last."""
    axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.4, solid_capstyle="butt", solid_joinstyle="miter")
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 11}
    axes.annotate("", points[-1], points[-2], arrowprops=style)


def _draw_legend(axes: Axes) -> None:
    """Explain arrows and boxes in the empty corner on the lower right."""
    up_and_down, skip = (
        "down: 2×2 max pooling; up: nearest neighbour ×2",
        "skip: concatenated to the upsampled channels",
    )
    for y, colour, text in ((8.6, INK, up_and_down), (5.7, SKIP_COLOUR, skip)):
        _draw_arrow(axes, [(63, y), (66.5, y)], colour)
        _write(axes, 67.5, y, text, 8.4, ha="left")
    _draw_box(axes, 63.2, 1.8, 3, 2, FILLS["enc"])
    text = "3×3 convolution, in → out channels, leaky ReLU 0.1\n(none after dec_conv1c)"
    _write(axes, 67.5, 3.5, text, 8.4, ha="left", va="top", linespacing=1.3)


def _count_channels(channels: int) -> str:
    return f"{channels} channel{'' if channels == 1 else 's'}"
