"""n2n_lightning: train image denoisers from pairs of noisy images (Noise2Noise, Lehtinen et al. 2018)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from n2n_lightning.inference.denoiser import Denoiser as Denoiser
    from n2n_lightning.models.checkpoint import load_denoiser as load_denoiser

__version__ = "0.2.0"
__all__ = ["Denoiser", "__version__", "load_denoiser"]
PUBLIC = {"Denoiser": "n2n_lightning.inference.denoiser", "load_denoiser": "n2n_lightning.models.checkpoint"}


def __getattr__(name: str) -> Any:
    """Import torch only when something that needs it is asked for, so that ``--help`` stays quick."""
    if name in PUBLIC:
        return getattr(importlib.import_module(PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
