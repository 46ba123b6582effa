"""The choices of ``data=``: the class of every source by its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from n2n_lightning.data.clean import CleanData
from n2n_lightning.data.ee559 import Ee559Data
from n2n_lightning.data.paired import BurstData, PairsData
from n2n_lightning.data.pairs import PairData
from n2n_lightning.data.photos import PhotoData
from n2n_lightning.data.scene_data import SceneData
from n2n_lightning.data.single import SingleData

DATA: dict[str, Callable[..., PairData]] = {
    "burst": BurstData,
    "clean": CleanData,
    "ee559": Ee559Data,
    "pairs": PairsData,
    "photos": PhotoData,
    "single": SingleData,
}


def is_file_source(source: Callable[..., PairData]) -> bool:
    """Return whether a source reads image files, so that it has the settings of these."""
    return inspect.isclass(source) and issubclass(source, SceneData)


def takes_noise(name: object) -> bool:
    """Return whether the choice of ``noise=`` is passed to a source; other sources have noise of their own."""
    return name in DATA and "noise" in inspect.signature(DATA[str(name)]).parameters
