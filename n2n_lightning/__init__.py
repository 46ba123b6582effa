"""n2n_lightning: train image denoisers from pairs of noisy images (Noise2Noise, Lehtinen et al. 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from n2n_lightning.checkpoint import load_denoiser as load_denoiser

__version__ = "0.1.0"
__all__ = ["__version__", "load_denoiser"]


def __getattr__(name: str) -> Any:
    """Import torch only when something that needs it is asked for, so that ``--help`` stays quick."""
    if name == "load_denoiser":
        from n2n_lightning.checkpoint import load_denoiser

        return load_denoiser
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
