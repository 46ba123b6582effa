"""Point sampling ("pixelation"): each noisy pixel is one pixel of a square cell of the image."""

from __future__ import annotations

import torch
from torch import Tensor


def split_cells(images: Tensor, cell_px: int) -> Tensor:
    """Split images into square cells: (N, C, H * cell_px, W * cell_px) -> (N, H, W, cell_px^2, C), any type.

    Rows and columns that do not fill a cell are dropped.
    """
    n, channels = images.shape[:2]
    height, width = (side // cell_px for side in images.shape[2:])
    full = images[:, :, : height * cell_px, : width * cell_px]
    cells = full.reshape(n, channels, height, cell_px, width, cell_px)
    return cells.permute(0, 2, 4, 3, 5, 1).flatten(3, 4)


def draw_cell_pixels(cells: Tensor, rng: torch.Generator) -> Tensor:
    """Draw one pixel of each cell uniformly: (N, H, W, K, C), K pixels a cell -> (N, C, H, W), any type.

    Cells are independent, and all channels of a cell come from the same pixel. So the noise has zero mean, is
    spatially white, and vanishes where the cell is flat.
    """
    n, height, width, pixels, channels = cells.shape
    choice = torch.randint(pixels, (n, height, width, 1, 1), generator=rng, device=cells.device)
    return cells.gather(3, choice.expand(-1, -1, -1, -1, channels)).squeeze(3).permute(0, 3, 1, 2)
