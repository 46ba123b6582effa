"""The trained weights: what the list tells of them, their model cards, and what their records say of grey images."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Command
from small_runs import ROOT

from n2n_lightning import Denoiser, predict
from n2n_lightning.models.checkpoint import find_checkpoint
from n2n_lightning.models.trained import GENERAL, find_trained, has_learnt_grey, list_trained

KEYS = sorted(find_trained())


def scores(record: dict[str, Any]) -> tuple[float, float]:
    """Return the best score and that of the noisy images, dB; estimates where there were no clean images."""
    ends = ("", "_pairs")
    best, noisy = (
        [record[f"{name}{end}"] for end in ends if record.get(f"{name}{end}")] for name in ("val/psnr", "noisy_psnr")
    )
    return best[0], noisy[0]


def record_of(key: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "weights" / key / "result.json").read_text())
    return content


def test_every_name_of_the_list_leads_to_its_own_checkpoint():
    assert sorted(weights.key for weights in list_trained()) == KEYS
    for weights in list_trained():
        assert find_checkpoint(weights.name) == ROOT / "weights" / weights.key / "best.ckpt"


def test_the_list_as_users_see_it(command: Command):
    ended = command("--list", main=predict.main)
    assert ended.code == 0 and ended.err == ""
    lines = {line.split()[0]: line for line in ended.out.splitlines() if line.strip()}
    for key in KEYS:
        record, line = record_of(key), lines[key.rpartition("/")[2]]
        assert all(f" {score:.2f} " in line for score in scores(record))
        assert record["data"]["root"] in line and f"{record['train_pairs']:,} pairs" in line
        assert " MB" in line and "0 to 255" in line
        assert ("CC BY-SA 4.0" if line.split()[0] == "fluorescence" else "MIT") in line
    assert "gaussian, sigma 0 to 50 of 255" in lines["gaussian"] and "sigma 25 of 255" in lines["gaussian"]
    assert "gain 0 to 0.12" in lines["general"] and "pixelate" in lines["unet"] and "32x32 px" in lines["unet"]


def test_an_unknown_name_lists_the_names(command: Command):
    Path("a.png").touch()
    ended = command("unett", "a.png", "--output", "out", main=predict.main)
    assert ended.code == 2 and ended.err.startswith("error: unett does not exist")
    assert all(key in ended.err for key in KEYS) and "--list" in ended.err
    assert not Path("out").exists()


@pytest.mark.parametrize("key", KEYS)
def test_a_card_names_noise_score_command_size_and_licence(key: str):
    record, card = record_of(key), (ROOT / "weights" / key / "README.md").read_text()
    (weights,) = (weights for weights in list_trained() if weights.key == key)
    assert card.startswith(f"# {weights.name}\n")
    noise = record.get("noise") or {"name": "pixelate" if record["data"]["name"] == "photos" else "that of the images"}
    rows = dict(re.findall(r"^\| ([\w ]+) \| (.*) \|$", card, re.MULTILINE))
    assert str(noise["name"]) in rows["noise"]
    best, noisy = scores(record)
    assert rows["validation PSNR"].startswith(f"{best:.2f} dB, noisy images {noisy:.2f} dB")
    assert rows["size"] == f"{weights.checkpoint.stat().st_size / 1e6:.1f} MB"
    assert rows["licence of the weights"] == ("CC BY-SA 4.0" if rows["name"] == "`fluorescence`" else "MIT")
    assert f"{record['params']:,} parameters" in rows["net"] and record["data"]["root"] in rows["trained on"]
    command = card.partition("    python -m n2n_lightning.train ")[2].partition("\n\n")[0]
    for name, value in record["overrides"].items():
        assert f"{name}={value.strip(chr(39))}" in command.split()


def test_the_readme_names_all_trained_weights_with_their_scores():
    text = (ROOT / "README.md").read_text()
    for weights in list_trained():
        assert f"`{weights.name}`" in text and weights.psnr in text, weights.name


def test_no_record_names_a_folder_of_the_machine_that_trained():
    for key in KEYS:
        text = (ROOT / "weights" / key / "result.json").read_text()
        assert not re.findall(r'"(?:[^"=]*=)?(/[^"]*)"', text), key


def test_only_the_general_denoiser_has_learnt_grey_images():
    assert [key for key in KEYS if has_learnt_grey(ROOT / "weights" / key / "best.ckpt")] == [GENERAL]


@pytest.mark.parametrize("place", ["best.ckpt", "checkpoints/best.ckpt"])
@pytest.mark.parametrize(
    ("record", "grey"),
    [
        ('{"data": {"augment": ["flip", "grey"]}}', True),
        ('{"data": {"augment": ["flip"]}}', False),
        ('{"data": {"augment": null}}', False),
        ('{"data": null}', False),
        ("[1]", False),
        ("{", False),
        ("[" * 100_000, False),
        (None, False),
    ],
)
def test_the_record_of_a_run_or_of_weights_tells_whether_grey_was_learnt(
    tmp_path: Path, place: str, record: str | None, grey: bool
):
    if record is not None:
        (tmp_path / "result.json").write_text(record)
    assert has_learnt_grey(tmp_path / place) == grey


@pytest.mark.slow
def test_grey_stacks_are_denoised_image_by_image_and_a_saved_copy_still_knows_grey(tmp_path: Path):
    noisy = np.random.default_rng(0).normal(100, 20, (5, 40, 48)).clip(0, 255).astype(np.uint8)
    denoiser = Denoiser.load(GENERAL)
    whole = denoiser.denoise(noisy)
    np.testing.assert_array_equal(whole[2], denoiser.denoise(noisy[2]))
    assert whole.std() < 0.4 * noisy.std()
    denoiser.save(tmp_path / "mine.ckpt")
    np.testing.assert_array_equal(Denoiser.load(tmp_path / "mine.ckpt").denoise(noisy), whole)
