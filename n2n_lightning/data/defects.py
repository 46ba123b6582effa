"""Images that make pairs worthless: copies, by their pixels, and dead frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from n2n_lightning.data.scenes import Scene, StackImage

COMPARED_ROWS = 16  # of each frame
DEAD_SHARE = 0.5  # a frame is dead if more of its rows hold one value only,
USUAL_SHARE = 0.2  # and less than this share of the other frames' rows do


def remove_defects(scenes: Sequence[Scene], *, spare_frames: bool) -> tuple[list[Scene], list[str]]:
    """Return the scenes without copies and dead frames, and a fault for each of these.

    Args:
        scenes: any scenes; those of one image have no copies.
        spare_frames: a scene can lose frames while two are left; otherwise a scene with a defect is left out whole.
    """
    usable: list[Scene] = []
    faults: list[str] = []
    for scene in scenes:
        found = scene_defects(scene)
        faults += found.values()
        usable_scene, fault = without_images(scene, set(found), spare_frames=spare_frames)
        usable += [usable_scene] if usable_scene else []
        faults += [fault] if fault else []
    return usable, faults


def without_images(scene: Scene, places: set[int], *, spare_frames: bool) -> tuple[Scene | None, str | None]:
    """Return the scene without some of its images, and why nothing is left of it.

    Args:
        scene: the scene.
        places: of the images to leave out, in ``scene.images``.
        spare_frames: see ``remove_defects``.
    """
    if not places:
        return scene, None
    noisy = tuple(image for place, image in enumerate(scene.noisy) if place not in places)
    if not spare_frames:
        return None, None
    if len(noisy) < 2:
        return None, f"{scene.name} has fewer than 2 usable frames; a burst needs 2 or more: add some or remove it"
    return replace(scene, noisy=noisy), None


def scene_defects(scene: Scene) -> dict[int, str]:
    """Return the places, in ``scene.images``, of dead frames and of later copies, and what is wrong with each."""
    images = scene.images
    faults = dead_images(scene.noisy)
    first: dict[str, StackImage] = {}
    for place, image in enumerate(images):
        if place in faults:
            continue
        other = first.setdefault(image.digest, image)
        if other is not image:
            what = f"is a copy of {other.name}" if other.name != image.name else "is there twice"
            faults[place] = f"{image.name} {what}: all pixels are the same; frames need noise of their own, remove one"
    return faults


def dead_images(frames: Sequence[StackImage]) -> dict[int, str]:
    """Return the places of frames most of whose rows hold one value only, while the other frames' do not."""
    if len(frames) < 2:
        return {}
    shares = np.array([constant_share(sample_rows(frame)) for frame in frames])
    faults = {}
    for place in np.flatnonzero(shares > DEAD_SHARE).tolist():
        if np.median(np.delete(shares, place)) < USUAL_SHARE:
            rows = sample_rows(frames[place])
            value = f"holds one value only ({rows.flat[0]:g})" if shares[place] == 1 else "has rows of one value only"
            faults[place] = f"{frames[place].name} {value}, the scene's other frames do not; remove it"
    return faults


def constant_share(rows: npt.NDArray[np.generic]) -> float:
    """Return which share of the rows (N, W, C) hold one value only in each channel."""
    return float((rows == rows[:, :1]).all((1, 2)).mean())


def sample_rows(frame: StackImage) -> npt.NDArray[np.generic]:
    """Return some rows of the whole height: (N, W, C) as stored."""
    _, height, width, _ = frame.stack.shape
    tops = np.unique(((np.arange(COMPARED_ROWS) + 0.5) * height / COMPARED_ROWS).astype(int))
    return np.concatenate([frame.stack.read(frame.number, top, 0, 1, width) for top in tops.tolist()])
