"""Look at the values of the training data at the start of a run: what makes training useless is refused."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from n2n_lightning.data.datamodule import NoisyPairDataModule
from n2n_lightning.data.pairs import PairData, PairSource
from n2n_lightning.data.scene_data import SceneData
from n2n_lightning.data.seeding import seeded_generator
from n2n_lightning.image_io.value_range import ValueSpan, range_text, scale_fault
from n2n_lightning.models.module import DenoiserModule

LOCAL_MEAN_PX = 8  # side of the squares whose means tell signal from noise
LOOKED_AT = 256  # pairs of each stage
MOST_NEGATIVE = 0.05  # of the range: the share below 0 that a net without negative values can do without


def value_warnings(module: DenoiserModule, datamodule: NoisyPairDataModule) -> list[str]:
    """Return warnings about values that harm the training.

    Raises:
        ValueError: the net cannot give the values of the images.
    """
    data = datamodule.data
    if not isinstance(data, SceneData):
        return []
    low, warning = data.values.span.low, data.values.outlier_warning()
    warnings = [] if warning is None else [warning]
    if low < 0 and not module.gives_negatives:
        lowest = least_local_mean(datamodule)
        problem = f"the images have values down to {low:.6g}, and this net cannot give values below 0"
        if lowest < -MOST_NEGATIVE * data.peak:
            raise ValueError(
                f"{problem} (means of {LOCAL_MEAN_PX}x{LOCAL_MEAN_PX} px go down to {lowest:.6g}); set model=unet, "
                "or add an offset to the images"
            )
        warnings.append(f"{problem}: what lies below 0 becomes 0; model=unet keeps it")
    return warnings


def range_line(data: PairData) -> str:
    """Return the line that tells which value is 1 to the net."""
    span = data.values.span if isinstance(data, SceneData) else ValueSpan(0.0, data.peak)
    return f"range {range_text(span, data.peak)}"


def least_local_mean(datamodule: NoisyPairDataModule) -> float:
    """Return the least mean of a square of pixels in some training and validation images, in file values."""
    return min(_least_local_mean(source) for source in datamodule.sources.values())


def _least_local_mean(source: PairSource) -> float:
    pair = source.batch(torch.arange(LOOKED_AT) % len(source), seeded_generator(0))
    images = pair.source.float() if pair.target is None else (pair.source.float() + pair.target) / 2
    side = min(LOCAL_MEAN_PX, *images.shape[-2:])
    return float(F.avg_pool2d(images, side).min())


def check_initial_scale(initial: DenoiserModule, datamodule: NoisyPairDataModule) -> None:
    """Refuse data whose values, in units of the range, are not about as large as those that ``init_from`` has seen."""
    data = datamodule.data
    if not isinstance(data, SceneData) or data.range is not None or data.sample_type == "uint8":
        return
    if initial.reach is None:
        return
    scale = data.peak / initial.peak
    trained = (initial.reach[0] * scale, initial.reach[1] * scale)
    if fault := scale_fault(data.values.span, data.peak, trained, "data.range="):
        raise ValueError(f"for the net of init_from: {fault.text}")
