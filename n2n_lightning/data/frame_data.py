"""Base of the sources whose scenes have several noisy images: compare these, and correct level and place on request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from n2n_lightning.data.defects import without_images
from n2n_lightning.data.frame_warnings import level_warning, shift_warning
from n2n_lightning.data.pairs import Stage
from n2n_lightning.data.scene_data import SceneData
from n2n_lightning.data.scenes import Scene, StackImage
from n2n_lightning.diagnosis.compare import MIN_SIDE_PX, FrameComparison, Stack, compare_in_parts

LOOKED_AT_SCENES, LOOKED_AT_FRAMES, LOOKED_AT_PX = 4, 16, 512  # at most, where nothing is to be corrected
FRAMES_AT_ONCE = 48
MEASURED_VALUES, MEASURED_PX = 16_000_000, 768  # values in memory and side of the window, where frames are corrected
LEAST_GAIN = 0.35  # of the median: a frame below shows something else, or is dark
LEAST_MATCHED_GAIN = 0.1  # the same where frames are brought to one level


@dataclass(kw_only=True)
class FrameData(SceneData):
    """Base of the sources whose scenes may have several noisy images.

    Args:
        match_levels: bring each noisy image to the level (gain and offset) of its scene's first one.
        align: shift each noisy image by integer pixels to the place of its scene's first one; what not all images of
            the scene show is left out.
    """

    match_levels: bool = False
    align: bool = False

    any_order = False  # whether each noisy image of a scene can be the source of a pair
    correction_advice = "set data.{}=true"  # where frames differ; braces for the name of the argument

    def __post_init__(self) -> None:
        super().__post_init__()
        self.comparisons: list[
            tuple[Scene, list[int], FrameComparison]
        ] = []  # scenes, and the frames that were compared

    @property
    def training_px(self) -> int:
        """Number of pixels of all noisy images that are sources of training pairs."""
        scenes, regions = self.content.scenes, self.content.regions["train"]
        return sum(
            region.height * region.width * (len(scenes[region.scene].noisy) if self.any_order else 1)
            for region in regions
        )

    @property
    def warnings(self) -> list[str]:
        """What differs between the noisy images of a scene, and harms training and the estimated quality."""
        found = [
            None
            if self.match_levels
            else level_warning(self.comparisons, self.correction_advice.format("match_levels")),
            None if self.align else shift_warning(self.comparisons, self.correction_advice.format("align")),
        ]
        return [text for text in found if text is not None]

    @property
    def corrections(self) -> dict[str, Any]:
        """The largest corrections that were made, for the record: ``matched`` and ``aligned``."""
        found: dict[str, Any] = {}
        measured = [comparison for _, _, comparison in self.comparisons]
        if self.match_levels:
            found["matched"] = {
                "gain_deviation": max((greatest(one.gain - 1) for one in measured), default=0.0),
                "level_difference": max((greatest(one.level) for one in measured), default=0.0),
            }
        if self.align:
            found["aligned"] = {"shift_px": max((greatest(one.place) for one in measured), default=0.0)}
        return found

    def _find_usable_scenes(self, stage: Stage) -> tuple[list[Scene], list[str]] | None:
        found = super()._find_usable_scenes(stage)
        if found is None:
            return None
        scenes, faults = found
        several = [number for number, scene in enumerate(scenes) if len(scene.noisy) > 1]
        correct = self.match_levels or self.align
        if correct and stage == "train" and scenes and not several:
            raise ValueError(
                "match_levels and align need 2 noisy images of a scene or more; set data.match_levels=false "
                "data.align=false"
            )
        if correct:
            title = f"comparing the frames of {len(several)} scenes"
            chosen = track(several, description=title, console=Console(stderr=True))
        else:
            chosen = spread(several, LOOKED_AT_SCENES)
        usable: list[Scene | None] = list(scenes)
        for number in chosen:
            usable[number], wrong = self._compare(scenes[number])
            faults = [*faults, *wrong]
        return [scene for scene in usable if scene is not None], faults

    def _compare(self, scene: Scene) -> tuple[Scene | None, list[str]]:
        """Return the scene without frames that show something else, corrected on request, and what was wrong."""
        correct = self.match_levels or self.align
        frames = list(range(len(scene.noisy))) if correct else spread(range(len(scene.noisy)), LOOKED_AT_FRAMES)
        found = compare_frames([scene.noisy[n] for n in frames], correct, match_levels=self.match_levels)
        if found is None:
            size = f"{MIN_SIDE_PX} px a side are needed to compare its noisy images"
            return (None, [f"{scene.name} is too small: {size}"]) if correct else (scene, [])
        self.comparisons.append((scene, frames, found))
        faults = {frames[k]: f"{scene.noisy[frames[k]].name} does not show what the others show" for k in found.odd}
        if correct:
            faults |= {frames[k]: f"{scene.noisy[frames[k]].name} is too far away to be compared" for k in found.apart}
            dark = np.flatnonzero(found.gain < LEAST_MATCHED_GAIN).tolist()
            faults |= {k: f"{scene.noisy[k].name} is too dark to be brought to the others' level" for k in dark}
        if correct:
            scene = corrected(scene, found, self)
        left, fault = without_images(scene, set(faults), spare_frames=self.spare_frames)
        fixes = [f"{text}; remove it" for text in faults.values()]
        return left, [*fixes, *([fault] if fault else [])]


def spread(numbers: Sequence[int], most: int) -> list[int]:
    """Return at most that many of the numbers, first and last among them, evenly spread."""
    places = np.linspace(0, len(numbers) - 1, min(most, len(numbers))).round().astype(int)
    return [numbers[place] for place in places.tolist()]


def greatest(values: np.ndarray) -> float:
    """Return the greatest absolute value; NaN does not count."""
    return float(np.nanmax(np.abs(values), initial=0.0))


def compare_frames(frames: Sequence[StackImage], whole: bool, *, match_levels: bool) -> FrameComparison | None:
    """Compare frames in a window: one in the middle, or, if ``whole``, the larger one with the most structure."""
    least_gain = LEAST_MATCHED_GAIN if match_levels else LEAST_GAIN
    channels = frames[0].stack.shape[3]
    at_once = min(len(frames), FRAMES_AT_ONCE)
    side = int(min(MEASURED_PX, (MEASURED_VALUES / (at_once * channels)) ** 0.5)) if whole else LOOKED_AT_PX
    height, width = (min(side, length) for length in frames[0].size)
    top, left = most_structure(frames[0], height, width) if whole else middle(frames[0], height, width)
    low, high = min(frame.stack.low for frame in frames), max(frame.stack.high for frame in frames)
    margin = (high - low) / 2  # outliers would decide the gain

    def read(numbers: list[int]) -> Stack:
        pixels = np.stack([frames[number].read(top, left, height, width) for number in numbers])
        return np.moveaxis(pixels.astype(np.float32), -1, 1).clip(low - margin, high + margin)

    return compare_in_parts(read, len(frames), at_once, least_gain)


def middle(frame: StackImage, height: int, width: int) -> tuple[int, int]:
    """Return top and left of the window of that size in the middle of the frame."""
    return (frame.size[0] - height) // 2, (frame.size[1] - width) // 2


def most_structure(frame: StackImage, height: int, width: int) -> tuple[int, int]:
    """Return top and left of the window of that size, in a corner or in the middle, with the most structure."""
    if (height, width) == frame.size:
        return 0, 0
    tops, lefts = ({0, length - side} for length, side in zip(frame.size, (height, width), strict=True))
    block = max(min(height, width) // 32, 1)  # means of blocks show structure rather than noise

    def structure(corner: tuple[int, int]) -> float:
        pixels = frame.read(*corner, height // block * block, width // block * block)[..., 0].astype(np.float32)
        return float(pixels.reshape(height // block, block, width // block, block).mean((1, 3)).var())

    corners = [middle(frame, height, width), *((top, left) for top in sorted(tops) for left in sorted(lefts))]
    return max(corners, key=structure)


def corrected(scene: Scene, found: FrameComparison, wanted: FrameData) -> Scene:
    """Return the scene with the wanted corrections of its noisy images; a clean one goes with the first of them."""
    count, size = len(scene.noisy), np.array(scene.size)
    shifts = np.nan_to_num(np.rint(found.place)).astype(int) if wanted.align else np.zeros((count, 2), int)
    known = ~np.isnan(found.level)
    low, high = (np.array([edge(shifts[known, axis], initial=0) for axis in (0, 1)]) for edge in (np.min, np.max))
    height, width = (size - (high - low)).tolist()
    if min(height, width) < 1:
        raise ValueError(
            f"{scene.name} drifts by its own size, no pixel is in all frames; split it into shorter bursts"
        )
    factors, summands = found.level_correction

    def correct(image: StackImage, place: int) -> StackImage:
        top, left = np.clip(shifts[place] - low, 0, size - (height, width)).tolist()
        window = (top, left, height, width) if wanted.align else None
        level = (float(factors[place]), float(summands[place])) if wanted.match_levels else None
        return image._replace(window=window, level=level)

    noisy = tuple(correct(image, place) for place, image in enumerate(scene.noisy))
    clean = None
    if scene.clean is not None:
        top, left = (-low).tolist()
        window = (top, left, height, width) if wanted.align else None
        clean = scene.clean._replace(window=window, level=(1.0, 0.0) if wanted.match_levels else None)
    return replace(scene, noisy=noisy, clean=clean)
