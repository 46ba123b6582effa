"""The course report's networks: the U-Net as a picture (Figure 1), the sequential models as a table (Table 1)."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from n2n_lightning.reporting.comparison import Comparison
from n2n_lightning.reporting.figures import LIGHT, PngFigure, png_bytes

DEPTH = 5  # poolings
FILLS, SKIP_COLOUR, INK = {"enc": "#cfe3f3", "dec": "#fbe3c6"}, "#c8553d", LIGHT.ink
HEIGHT, LAYER_WIDTH, INPUT_WIDTH = 5.4, 9.6, 5.6  # of the bars
MIDDLE = 44.0  # x between the encoder and the decoder
LEGEND = (
    "down: 2×2 max pooling; up: nearest neighbour ×2\n"
    "red: skip, concatenated to the upsampled channels\n"
    "boxes: 3×3 convolution, in → out channels,\n"
    "leaky ReLU 0.1 (none after dec_conv1c)"
)


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
        f"Figure 1 of the course report, for images of {shape[1]}×{shape[2]} pixels and {_count_channels(shape[0])}, "
        f"with the paper's names of the layers: {expected:,} parameters."
    )
    if (found := next((params for run in runs if (params := run.number("params"))), expected)) != expected:
        caption += f" The U-Net of these runs is another one: it has {found:,.0f} parameters."
    return [PngFigure("architecture_unet.png", "The U-Net", caption, png_bytes(draw_unet(blocks, shape)))]


def draw_unet(blocks: Blocks, image_shape: tuple[int, int, int]) -> Figure:
    """Draw Figure 1 for images of (C, H, W): encoder on the left, decoder on the right, skip connections in red."""
    _, height, width = image_shape
    figure = Figure(figsize=(10.6, 6.1))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 106), ylim=(0.5, 61.5))
    axes.axis("off")
    text: dict[str, Any] = {"ha": "center", "va": "center", "color": INK}
    for (side, level), layers in blocks.items():  # a narrow bar for the block's input, then one for each layer
        source = "concat" if side == "dec" else f"pool{level}" if level else "input"
        labels = [source, *(f"{layer.name}\n{layer.inputs} → {layer.outputs}" for layer in layers)]
        lefts = [_left(side, level) + (INPUT_WIDTH + (i - 1) * LAYER_WIDTH if i else 0) for i in range(len(labels))]
        widths, fills = [INPUT_WIDTH] + [LAYER_WIDTH] * len(layers), ["white"] + [FILLS[side]] * len(layers)
        bars = axes.barh(_top(level), widths, -HEIGHT, lefts, align="edge", color=fills, edgecolor=INK, linewidth=0.8)
        axes.bar_label(bars, labels, label_type="center", size=8, color=INK, linespacing=1.5)
    for level in range(DEPTH + 1):
        sides = [-(-side // 2**DEPTH) * 2 ** (DEPTH - level) for side in (height, width)]  # padded to multiples of 32
        y = _top(level) - HEIGHT * (0.5 if level < DEPTH else 0.15)
        axes.text(MIDDLE, y, f"{sides[0]}×{sides[1]}", **text, size=10, weight="bold")
    for level in range(DEPTH):
        top, lower = _top(level), _top(level + 1)
        down, up = _left("enc", level + 1) + 1.3, _left("dec", level) + INPUT_WIDTH / 2
        _draw_arrow(axes, [(down, top - HEIGHT), (down, lower)])
        start = [(up, lower)]
        if level == DEPTH - 1:  # from the right side of the lowest block, around the corner
            corner = lower - HEIGHT / 2
            start = [(_left("enc", DEPTH) + INPUT_WIDTH + LAYER_WIDTH, corner), (up, corner)]
        _draw_arrow(axes, [*start, (up, top - HEIGHT)])
        skip = _left("enc", level) + INPUT_WIDTH - 1.1
        _draw_arrow(axes, [(skip, top), (skip, top + 1.5), (up, top + 1.5), (up, top)], SKIP_COLOUR)
        skipped = _count_channels(blocks["enc", level][0].inputs)
        axes.text(MIDDLE, top + 2.6, skipped, **text | {"color": SKIP_COLOUR}, size=8)
    axes.text(62, 3, LEGEND, **text | {"ha": "left", "va": "bottom"}, size=8.4, linespacing=1.6)
    return figure


def _left(side: str, level: int) -> float:
    """Return the x of a block's left edge."""
    return 2 + 4.0 * level if side == "enc" else 66 - 4.0 * level


def _top(level: int) -> float:
    """Return the y of the upper edge of a level's blocks."""
    return 57.9 - 9.8 * level


def _draw_arrow(axes: Axes, points: list[tuple[float, float]], colour: str = INK) -> None:
    """Draw a line through all points, with a head at the last."""
    axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.4, solid_capstyle="butt", solid_joinstyle="miter")
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 11}
    axes.annotate("", points[-1], points[-2], arrowprops=style)


def _count_channels(channels: int) -> str:
    return f"{channels} channel{'' if channels == 1 else 's'}"
