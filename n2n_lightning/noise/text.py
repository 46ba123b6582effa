"""Text as a corruption: strings set in a real font once, and laid over images at random."""

from __future__ import annotations

import string
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

LAYERS, PAGE_PX = 4, 1024  # a page of text for each layer; a quarter of a page is ink
SIZES_PX = (8, 40)  # of the font
LENGTHS = (3, 16)  # characters of a string
COLOURS = 4096


@cache
def typeset() -> Tensor:
    """Pages full of random strings: (LAYERS, PAGE_PX, PAGE_PX) int16, each string's number at its ink, 0 at none.

    Always the same pages, in Pillow's own font; what varies is which part of them an image sees (``draw_text``).
    """
    rng = np.random.default_rng(0)
    letters = np.array(list(string.ascii_letters + string.digits + string.punctuation))
    pages, number = [], 0
    for _ in range(LAYERS):
        page = Image.new("I", (PAGE_PX, PAGE_PX))
        top = 0
        while top < PAGE_PX:
            font, stroke = ImageFont.load_default(size=float(rng.integers(*SIZES_PX))), int(rng.integers(2))
            left = -int(rng.integers(100))
            line_px = int(font.getbbox("Ag")[3])
            while left < PAGE_PX:
                number += 1
                text = "".join(rng.choice(letters, size=rng.integers(*LENGTHS))) + " "
                ink = Image.new("1", (int(font.getlength(text)), line_px))  # "1": a pixel is ink or it is not
                ImageDraw.Draw(ink).text((0, 0), text, fill=1, font=font, stroke_width=stroke)
                page.paste(number, (left, top), ink)
                left += ink.width
            top += line_px
        pages.append(np.asarray(page, dtype=np.int16))
    return torch.from_numpy(np.stack(pages))


def draw_text(images: Tensor, coverage: float | Tensor, rng: torch.Generator) -> Tensor:
    """Lays strings over each image until they cover so much of it, give or take a string.

    Every layer shows a random part of its page. Each string has a random rank and colour; those of the least ranks are
    shown, lower ones on top.

    Args:
        images: (N, C, H, W) float32.
        coverage: part of the pixels, or (N, 1, 1, 1) of such; the layers hold no more than about 0.7.
        rng: of the images' device.

    Returns:
        Like ``images``.
    """
    n, channels, height, width = images.shape
    device = images.device

    def integers(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, device=device, generator=rng)

    rows = (integers(PAGE_PX, n, LAYERS, 1, 1) + torch.arange(height, device=device)[:, None]) % PAGE_PX
    columns = (integers(PAGE_PX, n, LAYERS, 1, 1) + torch.arange(width, device=device)) % PAGE_PX
    strings = typeset().to(device)[torch.arange(LAYERS, device=device)[:, None, None], rows, columns].long()
    # a string's rank and colour stand in tables, which each image reads from another place on
    places = (strings + integers(COLOURS, n, 1, 1, 1)) % COLOURS
    ranks = torch.rand(COLOURS, device=device, generator=rng)[places].masked_fill_(strings == 0, 2)
    rank, layer = ranks.min(1, keepdim=True)
    wanted = (torch.as_tensor(coverage, device=device) * height * width).expand(n, 1, 1, 1)
    at = wanted.long().clamp_max(height * width - 1).flatten(1)
    last = rank.flatten(1).sort(1).values.gather(1, at)[:, :, None, None]  # of the string that crosses the line
    without, with_it = ((rank < last).sum((2, 3), keepdim=True), (rank <= last).sum((2, 3), keepdim=True))
    shown = (rank < last) | ((rank == last) & (without + with_it < 2 * wanted))
    shown &= rank < 2
    colours = torch.rand((COLOURS, channels), device=device, generator=rng)[places.gather(1, layer).squeeze(1)]
    return torch.where(shown, colours.permute(0, 3, 1, 2), images)
