"""n2n_lightning: train image denoisers from pairs of noisy images (Noise2Noise, Lehtinen et al. 2018).

Example, with two noisy images of each scene:

    >>> from n2n_lightning import Denoiser
    >>> clean = Denoiser().fit(first, second, minutes=5).denoise(first)

The commands are listed in README.md; ``python -m n2n_lightning.train --help`` shows the first of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from n2n_lightning.data.arrays import ArrayData
    from n2n_lightning.data.datamodule import NoisyPairDataModule
    from n2n_lightning.inference.denoiser import Denoiser
    from n2n_lightning.models.checkpoint import load_denoiser
    from n2n_lightning.models.families import (
        DnCnnDenoiser,
        N2V2Denoiser,
        NafNetDenoiser,
        Red30Denoiser,
        SequentialDenoiser,
        UNetDenoiser,
        ZsN2nDenoiser,
    )
    from n2n_lightning.models.module import DenoiserModule

__version__ = "0.2.0"
__all__ = ["ArrayData", "Denoiser", "DenoiserModule", "NoisyPairDataModule", "__version__", "load_denoiser"]
__all__ += ["DnCnnDenoiser", "NafNetDenoiser", "Red30Denoiser", "SequentialDenoiser", "UNetDenoiser"]
__all__ += ["N2V2Denoiser", "ZsN2nDenoiser"]
MODULES = {  # public name -> its module; those of models.families end in "Denoiser"
    "ArrayData": "data.arrays",
    "Denoiser": "inference.denoiser",
    "DenoiserModule": "models.module",
    "NoisyPairDataModule": "data.datamodule",
    "load_denoiser": "models.checkpoint",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that commands show ``--help`` without loading torch."""
    module = MODULES.get(name, "models.families" if name.endswith("Denoiser") else None)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return __all__
