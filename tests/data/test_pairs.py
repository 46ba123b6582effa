"""``data=pairs``: what is matched with what, what is refused, what validation sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numbered_images import load_all, make_data, numbered_image, origins, write

from n2n_lightning.data.datamodule import NoisyPairDataModule
from n2n_lightning.data.paired import PairsData
from n2n_lightning.data.pairs import STAGES


def pairs(folder: Path, **settings: Any) -> PairsData:
    """Of the folders "source" and "target", if nothing else is said."""
    names = {"source": "source", "target": "target"} | settings
    folders = ("source", "target", "clean", "val_source", "val_target", "val_clean")
    return make_data(PairsData, folder, **{k: str(folder / v) if v and k in folders else v for k, v in names.items()})


def write_pairs(folder: Path, count: int, suffix: str = ".npy", roles: tuple[str, ...] = ("source", "target")) -> None:
    """Frame 0 of each scene is its source, and so on."""
    for scene in range(count):
        for frame, role in enumerate(roles):
            write(folder / role / f"{scene:02}{suffix}", numbered_image(scene, frame))


def refusal(data: PairsData) -> str:
    with pytest.raises(ValueError) as caught:
        data.load("train")
    return str(caught.value)


def test_images_are_matched_by_name_and_never_by_sort_order(tmp_path: Path):
    """Sorted, the sources are a.b, a, z/a and the targets a, a.b, z/a: "b" < "p" and "B" < "b"."""
    names = {0: ("a.b.png", "a.b.tif"), 1: ("a.png", "a.BMP"), 2: ("z/a.webp", "z/a.npy"), 3: ("z/c.tif", "z/c.png")}
    for scene, (source, target) in names.items():
        write(tmp_path / "target" / target, numbered_image(scene, 1))
        if not source.endswith(".webp"):
            write(tmp_path / "source" / source, numbered_image(scene, 0))
    write(tmp_path / "source/z/a.png", numbered_image(2, 0))
    (tmp_path / "source/notes.txt").write_text("no image")
    data = pairs(tmp_path, val_fraction=1)
    pair = load_all(data, "val")
    firsts, seconds = origins(pair.source), origins(pair.target)
    assert {first.scene for first in firsts} == {0, 1, 2, 3}
    assert [first.place for first in firsts] == [second.place for second in seconds]
    assert {first.frame for first in firsts} == {0} and {second.frame for second in seconds} == {1}


def test_every_image_without_a_partner_is_listed_in_one_message(tmp_path: Path):
    write_pairs(tmp_path, 3)
    for name in ("source/lonely.png", "target/other.png", "target/sub/00.png"):
        write(tmp_path / name, numbered_image(9))
    message = refusal(pairs(tmp_path))
    assert message.startswith("3 images cannot be used") and "data.skip_bad=true" in message
    for name, other in (
        ("source/lonely.png", "target"),
        ("target/other.png", "source"),
        ("target/sub/00.png", "source"),
    ):
        assert f"{tmp_path / name} has no partner in {tmp_path / other}" in message


def test_images_without_a_partner_are_left_out_on_request_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_pairs(tmp_path, 3)
    write(tmp_path / "source/lonely.png", numbered_image(9))
    data = pairs(tmp_path, skip_bad=True)
    assert {o.scene for stage in STAGES for o in origins(load_all(data, stage).source)} == {0, 1, 2}
    assert "lonely.png has no partner" in capsys.readouterr().err


def test_two_files_of_any_names_are_a_pair(tmp_path: Path):
    write(tmp_path / "noisy.png", numbered_image(0, 0))
    write(tmp_path / "again/second.npy", numbered_image(0, 1))
    pair = load_all(pairs(tmp_path, source="noisy.png", target="again/second.npy", val_fraction=1), "val")
    assert {o.frame for o in origins(pair.source)} == {0} and {o.frame for o in origins(pair.target)} == {1}


def test_two_files_of_one_name_are_refused(tmp_path: Path):
    write_pairs(tmp_path, 2)
    write(tmp_path / "source/00.png", numbered_image(0))
    message = refusal(pairs(tmp_path))
    assert "00.npy" in message and "00.png" in message and "have the same name" in message


def test_files_of_several_pages_are_matched_page_by_page(tmp_path: Path):
    for frame, role in enumerate(("source", "target", "clean")):
        write(tmp_path / role / "a.tif", np.stack([numbered_image(page, frame) for page in range(5)]))
    data = pairs(tmp_path, clean="clean", val_fraction=1)
    pair = load_all(data, "val")
    found = [[o.place for o in origins(images)] for images in (pair.source, pair.target, pair.clean)]
    assert found[0] == found[1] == found[2] and {scene for scene, _, _ in found[0]} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (numbered_image(1, 1, height=41), ["48x41 px, 3 channels of uint8", "48x40 px, 3 channels of uint8"]),
        (numbered_image(1, 1)[..., 0], ["1 channel of uint8", "3 channels of uint8"]),
        (numbered_image(1, 1).astype(np.uint16), ["3 channels of uint16", "3 channels of uint8"]),
        (np.stack([numbered_image(1, 1), numbered_image(1, 2)]), ["2 images of 48x40 px"]),
    ],
)
def test_two_images_that_are_not_alike_are_refused_and_both_named(tmp_path: Path, pixels: np.ndarray, words: list[str]):
    write_pairs(tmp_path, 3)
    write(tmp_path / "target/01.npy", pixels if pixels.ndim > 2 else pixels[..., None])
    message = refusal(pairs(tmp_path))
    for word in (str(tmp_path / "source/01.npy"), str(tmp_path / "target/01.npy"), *words):
        assert word in message
    assert "00.npy" not in message and "02.npy" not in message


# Training and validation


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.99])
def test_scenes_are_held_back_whole(tmp_path: Path, fraction: float):
    write_pairs(tmp_path, 10)
    split = [
        {o.scene for o in origins(load_all(pairs(tmp_path, val_fraction=fraction), stage).source)} for stage in STAGES
    ]
    assert split[0] | split[1] == set(range(10)) and not split[0] & split[1]
    assert len(split[1]) == min(max(round(10 * fraction), 1), 9)


def test_another_seed_holds_back_others(tmp_path: Path):
    write_pairs(tmp_path, 10)
    held_back = {
        tuple(sorted({o.scene for o in origins(load_all(pairs(tmp_path, seed=seed), "val").source)}))
        for seed in range(4)
    }
    assert len(held_back) > 1


def test_all_can_be_kept_for_validation_and_then_there_is_no_training(tmp_path: Path):
    write_pairs(tmp_path, 3)
    data = pairs(tmp_path, val_fraction=1)
    assert {o.scene for o in origins(load_all(data, "val").source)} == {0, 1, 2}
    assert refusal(data) == "val_fraction=1 leaves none for training; set data.val_fraction=0.2"


def test_training_draws_the_same_place_of_source_and_target(tmp_path: Path):
    write_pairs(tmp_path, 4)
    pair = load_all(pairs(tmp_path), "train")
    firsts, seconds = origins(pair.source), origins(pair.target)
    assert [o.place for o in firsts] == [o.place for o in seconds] and len(set(firsts)) > 50
    assert {o.frame for o in firsts} == {0} and {o.frame for o in seconds} == {1}
    assert pair.clean is pair.third is pair.group is None


def test_validation_is_the_same_tiles_whenever_it_is_asked_for(tmp_path: Path):
    write_pairs(tmp_path, 4)
    data = pairs(tmp_path, val_fraction=0.5)
    places = [o.place for o in origins(load_all(data, "val", seed=1).source)]
    assert places == [o.place for o in origins(load_all(data, "val", seed=2).source)]
    assert len(set(places)) == len(places) == 2 * 2 * 3  # of 16x16 px in 40x48
    group = load_all(data, "val").group
    assert group is not None and len(set(group.tolist())) == 2 and group.bincount().max() == 6


def test_clean_images_are_for_validation_alone(tmp_path: Path):
    write_pairs(tmp_path, 4, roles=("source", "target", "clean"))
    data = pairs(tmp_path, clean="clean")
    datamodule = NoisyPairDataModule(data)
    datamodule.setup("fit")
    assert datamodule.monitor == "val/psnr"
    assert load_all(data, "train").clean is None
    pair = load_all(data, "val")
    found = [origins(images) for images in (pair.source, pair.target, pair.clean)]
    assert [{o.frame for o in one} for one in found] == [{0}, {1}, {2}]
    assert [o.place for o in found[0]] == [o.place for o in found[1]] == [o.place for o in found[2]]


def test_without_clean_images_pairs_decide(tmp_path: Path):
    write_pairs(tmp_path, 4)
    datamodule = NoisyPairDataModule(pairs(tmp_path))
    datamodule.setup("fit")
    assert datamodule.monitor == "val/psnr_pairs"


@pytest.mark.parametrize("others", [("val_target",), ("val_clean",), ("val_target", "val_clean")])
def test_validation_can_have_folders_of_its_own_with_pairs_or_clean_images(tmp_path: Path, others: tuple[str, ...]):
    write_pairs(tmp_path / "train", 3)
    write_pairs(tmp_path / "val", 2, roles=("source", "target", "clean"))
    for role, second in (("source", 8), ("target", 9), ("clean", 7)):  # else they were the same files
        for scene in range(2):
            write(tmp_path / "val" / role / f"{scene:02}.npy", numbered_image(scene + 20, second))
    settings = {name: name.replace("val_", "val/") for name in ("val_source", *others)}
    data = pairs(tmp_path, source="train/source", target="train/target", **settings)
    assert {o.scene for o in origins(load_all(data, "train").source)} == {0, 1, 2}
    assert {o.frame for o in origins(load_all(data, "train").target)} == {1}
    pair = load_all(data, "val")
    assert {(o.scene, o.frame) for o in origins(pair.source)} == {(20, 8), (21, 8)}
    for name, images, frame in (("val_target", pair.target, 9), ("val_clean", pair.clean, 7)):
        assert (images is not None) == (name in others)
        assert images is None or {o.frame for o in origins(images)} == {frame}
    source = data.load("val")
    assert (source.has_pairs, source.has_clean) == ("val_target" in others, "val_clean" in others)


def test_an_image_in_both_sets_is_refused(tmp_path: Path):
    write_pairs(tmp_path, 3)
    write(tmp_path / "other/source/x.npy", numbered_image(7))
    write(tmp_path / "other/target/x.npy", numbered_image(2, 1))
    message = refusal(pairs(tmp_path, val_source="other/source", val_target="other/target"))
    assert "x.npy is among the training images too" in message


def test_scores_need_no_second_noisy_image_and_training_does(tmp_path: Path):
    write_pairs(tmp_path, 3, roles=("source", "clean"))
    data = pairs(tmp_path, target=None, clean="clean", val_fraction=1)
    pair = load_all(data, "val")
    assert pair.target is None and {o.frame for o in origins(pair.clean)} == {1}
    assert "training needs a second noisy image" in refusal(pairs(tmp_path, target=None, clean="clean"))
