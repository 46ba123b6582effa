"""Pictures of a validation, for every source of images."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from conftest import Command, Trained
from noisy_files import ALL, source
from PIL import Image
from small_runs import evaluate_main, read_json
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def pictures(run: Path) -> dict[str, np.ndarray]:
    """Return the last picture of each tag in the run's event files."""
    events = EventAccumulator(str(run), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()["images"]
    return {tag: np.asarray(Image.open(io.BytesIO(events.Images(tag)[-1].encoded_image_string))) for tag in tags}


@pytest.mark.parametrize("kind", ["burst", "pairs", "clean", "single"])
def test_every_source_shows_its_residual_and_pairs_their_error(kind: str, trained_on: Trained):
    run = trained_on(kind)
    shown = pictures(run)
    has_pairs = kind != "single"
    assert set(shown) == {"val/images", "val/residual"} | ({"val/error_map"} if has_pairs else set())
    height, width, _ = shown["val/images"].shape
    side = width // (3 if has_pairs else 2)
    assert shown["val/residual"].shape[:2] == (height, 2 * side)
    if has_pairs:
        assert shown["val/error_map"].shape[:2] == (height, 2 * side)
        errors = shown["val/error_map"][:, side:]
        assert np.ptp(errors[:16, :16]) == 0, "one value for each block of 16 px"
        assert (shown["val/error_map"][:, :side] == shown["val/images"][:, side : 2 * side]).all(), "denoised"
    assert abs(float(shown["val/residual"][:, :side].mean()) - 127.5) < 40
    with np.load(run / "images.npz") as kept:
        assert {"noisy", "denoised", "residual"} <= set(kept)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["burst", "clean", "single"])
def test_evaluate_gives_the_correlation_of_the_residual(
    kind: str, command: Command, trained_on: Trained, noisy_images: Path, tmp_path: Path
):
    words = [word for word in (*source(kind, noisy_images), *ALL) if word.startswith("data")]
    batch = ["data.val_batch_size=1"]
    found = []
    for more in ([], batch):
        line = (f"checkpoint={trained_on(kind)}", *words, *more, "output=scores.json")
        ended = command(*line, main=evaluate_main)
        assert ended.code == 0, ended.err
        found.append(read_json(tmp_path / "scores.json")["residual_correlation"])
        (row,) = [line.split() for line in ended.out.splitlines() if line.startswith("residual_correlation")]
        assert row[1] == f"{found[-1]:.4f}"
    assert -1 <= found[0] <= 1 and found[0] == pytest.approx(found[1], abs=1e-5), "the same for any batch size"
