"""Text as a corruption: pages of strings are rendered once, and random parts of them are laid over images."""

from __future__ import annotations

import string
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

LAYERS, PAGE_PX = 4, 1024  # one page of text for each layer; about a quarter of its pixels are ink
FONT_SIZES_PX = (8, 40)
STRING_LENGTHS = (3, 16)  # characters
TABLE_SIZE = 4096  # entries in the tables of random ranks and colours: more than there are strings


@cache
def typeset() -> Tensor:
    """Render pages full of random strings: (LAYERS, PAGE_PX, PAGE_PX) int16, the string's number at ink, 0 elsewhere.

    The pages are the same each time, in Pillow's own font. ``overlay_text`` draws which part of them an image shows.
    """
    rng = np.random.default_rng(0)
    letters = np.array(list(string.ascii_letters + string.digits + string.punctuation))
    pages, number = [], 0
    for _ in range(LAYERS):
        page = Image.new("I", (PAGE_PX, PAGE_PX))
        top = 0
        while top < PAGE_PX:
            font, stroke = ImageFont.load_default(size=float(rng.integers(*FONT_SIZES_PX))), int(rng.integers(2))
            left = -int(rng.integers(100))
            line_px = int(font.getbbox("Ag")[3])
            while left < PAGE_PX:
                number += 1
                text = "".join(rng.choice(letters, size=rng.integers(*STRING_LENGTHS))) + " "
                ink = Image.new("1", (int(font.getlength(text)), line_px))  # "1": a pixel is ink or it is not
                ImageDraw.Draw(ink).text((0, 0), text, fill=1, font=font, stroke_width=stroke)
                page.paste(number, (left, top), ink)
                left += ink.width
            top += line_px
        pages.append(np.asarray(page, dtype=np.int16))
    return torch.from_numpy(np.stack(pages))


def overlay_text(images: Tensor, coverage: float | Tensor, rng: torch.Generator) -> Tensor:
    """Lay strings over each image until they cover a given fraction of it, to within one string.

    Every layer shows a random part of its page. Each string has a random rank and colour. The strings with the lowest
    ranks are shown, lower ranks on top.

    Args:
        images: (N, C, H, W) float32.
        coverage: covered fraction of the pixels, or (N, 1, 1, 1) float32; the layers can cover at most about 0.7.
        rng: random generator on the images' device.

    Returns:
        (N, C, H, W) float32.
    """
    n, channels, height, width = images.shape
    device = images.device

    def integers(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, device=device, generator=rng)

    rows = (integers(PAGE_PX, n, LAYERS, 1, 1) + torch.arange(height, device=device)[:, None]) % PAGE_PX
    columns = (integers(PAGE_PX, n, LAYERS, 1, 1) + torch.arange(width, device=device)) % PAGE_PX
    strings = typeset().to(device)[torch.arange(LAYERS, device=device)[:, None, None], rows, columns].long()
    # ranks and colours are drawn as tables; each image reads them from its own offset, so that images differ
    places = (strings + integers(TABLE_SIZE, n, 1, 1, 1)) % TABLE_SIZE
    ranks = torch.rand(TABLE_SIZE, device=device, generator=rng)[places].masked_fill_(strings == 0, 2)
    rank, layer = ranks.min(1, keepdim=True)
    wanted = (torch.as_tensor(coverage, device=device) * height * width).expand(n, 1, 1, 1)
    at = wanted.long().clamp_max(height * width - 1).flatten(1)
    # the rank of the string that reaches the wanted coverage; it is shown if that comes closer than leaving it out
    last = rank.flatten(1).sort(1).values.gather(1, at)[:, :, None, None]
    without, with_it = (chosen.sum((2, 3), keepdim=True) for chosen in (rank < last, rank <= last))
    shown = (rank < 2) & ((rank < last) | ((rank == last) & (without + with_it < 2 * wanted)))
    colours = torch.rand((TABLE_SIZE, channels), device=device, generator=rng)[places.gather(1, layer).squeeze(1)]
    return torch.where(shown, colours.permute(0, 3, 1, 2), images)
