"""What all sources of image files share: one range, one kind of image, what is left out, what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numbered_images import Array, load_all, make_data, numbered_image, origins, write
from PIL import Image

from n2n_lightning.data.clean import CleanData
from n2n_lightning.data.datamodule import NoisyPairDataModule
from n2n_lightning.data.paired import BurstData
from n2n_lightning.data.pairs import STAGES
from n2n_lightning.data.single import SingleData


def clean(folder: Path, **settings: Any) -> CleanData:
    """Clean images without any noise."""
    return make_data(
        CleanData, folder, **{"root": str(folder / "root"), "noise": {"name": "gaussian", "sigma": 0}} | settings
    )


def write_images(folder: Path, *images: Array, suffix: str = ".npy") -> None:
    for number, pixels in enumerate(images):
        write(folder / f"{number:02}{suffix}", pixels)


def grey(most: float, dtype: str, low: float = 0) -> Array:
    """(40, 48, 1) from ``low`` to ``most``."""
    return np.linspace(low, most, 40 * 48).reshape(40, 48, 1).astype(dtype)


# The range


@pytest.mark.parametrize(
    ("most", "dtype", "found"),
    [
        *((100, "u1", 255), (255, "u1", 255)),
        *((4095, "<u2", 4095), (4096, "<u2", 8191), (4095, ">u2", 4095), (65535, "<u2", 65535), (1, "<u2", 1)),
        *((1023, "<i2", 1023), (70000, "<i4", 131071)),
        *((1.0, "<f4", 1.0), (0.7, "<f4", 1.0), (0.3, "<f4", 0.5), (1.01, "<f4", 2.0), (255.0, "<f4", 256.0)),
        *((1.0, "<f8", 1.0), (1000.0, ">f4", 1024.0)),
    ],
)
def test_the_range_is_found(tmp_path: Path, most: float, dtype: str, found: float):
    write_images(tmp_path / "root", grey(most / 2, dtype), grey(most, dtype), grey(most / 3, dtype))
    assert clean(tmp_path).peak == found


def test_a_given_range_wins(tmp_path: Path):
    write_images(tmp_path / "root", grey(5000, "<u2"), grey(5000, "<u2"))
    assert clean(tmp_path, range=16383).peak == 16383
    write_images(tmp_path / "root", grey(-5, "<f4", low=-10), grey(-5, "<f4", low=-10))
    assert clean(tmp_path, range=2.5).peak == 2.5


def test_eight_bits_have_one_range(tmp_path: Path):
    write_images(tmp_path / "root", numbered_image(0), numbered_image(1))
    assert clean(tmp_path, range=255).peak == 255
    with pytest.raises(ValueError, match=r"8-bit images have the range 255, got 60"):
        clean(tmp_path, range=60).load("train")


def test_copies_of_an_image_go_to_one_stage(tmp_path: Path):
    names = [0, 0, 0, 1, 1, 2]
    write_images(tmp_path / "root", *[numbered_image(name) for name in names])
    for seed in range(6):
        content = clean(tmp_path, seed=seed, val_fraction=0.5).content
        stages = [{names[region.scene] for region in content.regions[stage]} for stage in ("train", "val")]
        assert all(stages) and not stages[0] & stages[1]


@pytest.mark.parametrize(
    ("low", "most", "dtype", "found"),
    [
        (-10.0, 5.0, "<f4", 16.0),
        (-2.0, 0.0, "<f4", 2.0),
        (-1000.0, 1400.0, "<i2", 2047.0),
        (-5000.0, -3.0, "<i2", 8191.0),
    ],
)
def test_the_range_covers_values_below_zero(tmp_path: Path, low: float, most: float, dtype: str, found: float):
    write_images(tmp_path / "root", grey(most, dtype, low), grey(most, dtype, low))
    data = clean(tmp_path)
    assert data.peak == found and data.span == (low, most)


def test_images_that_are_0_everywhere_have_no_range(tmp_path: Path):
    write_images(tmp_path / "root", grey(0, "<f4"), grey(0, "<f4"))
    with pytest.raises(ValueError, match=r"all values are 0.*0[01]\.npy.*data\.range"):
        clean(tmp_path).load("train")
    assert clean(tmp_path, range=1).load("train")


def test_noise_around_black_is_no_obstacle(tmp_path: Path):
    write_images(tmp_path / "root", grey(0.9, "<f4", low=-0.2), grey(0.9, "<f4", low=-0.2))
    assert clean(tmp_path).peak == 1


def test_training_and_validation_have_one_range(tmp_path: Path):
    write_images(tmp_path / "root", grey(1000, "<u2"), grey(900, "<u2"))
    write_images(tmp_path / "val", grey(3000, "<u2"))
    data = clean(tmp_path, val_root=str(tmp_path / "val"))
    assert data.peak == 4095
    datamodule = NoisyPairDataModule(data)
    datamodule.setup("fit")
    for stage, most in zip(STAGES, (1000, 3000), strict=True):
        (pair, *_) = datamodule.loader(stage)
        scaled = datamodule.on_after_batch_transfer(pair, 0).source
        assert scaled.dtype == torch.float32 and 0.5 * most / 4095 < scaled.max() <= most / 4095 + 1e-6


# Kinds and sizes


def test_sizes_may_differ(tmp_path: Path):
    sizes = [(30, 31), (40, 22), (26, 50), (60, 33)]
    write_images(tmp_path / "root", *(numbered_image(scene, 0, *size) for scene, size in enumerate(sizes)))
    write(tmp_path / "val/a.npy", numbered_image(9, 0, 50, 60))
    data = clean(tmp_path, val_root=str(tmp_path / "val"), train_pairs=300)
    found = origins(load_all(data, "train").source.round().byte())
    assert {o.scene for o in found} == {0, 1, 2, 3}
    for scene, (height, width) in enumerate(sizes):
        places = [(o.top, o.left) for o in found if o.scene == scene]
        assert max(top for top, _ in places) <= height - 16 and max(left for _, left in places) <= width - 16


def test_whole_images_of_one_size_need_no_crop(tmp_path: Path):
    write_images(tmp_path / "root", *(numbered_image(scene) for scene in range(4)))
    data = clean(tmp_path, crop_px=None)
    for stage, count in zip(STAGES, (64, 1), strict=True):
        source = data.load(stage)
        assert source.image_shape == (3, 40, 48) and len(source) == count
        assert {(o.top, o.left) for o in origins(load_all(data, stage).source.round().byte())} == {(0, 0)}


@pytest.mark.parametrize(
    ("odd", "settings", "words"),
    [
        (numbered_image(1)[..., :1], {}, "1 channel of uint8, others 3 channels of uint8; convert it"),
        (numbered_image(1).astype(np.uint16), {}, "3 channels of uint16, others 3 channels of uint8; convert it"),
        (numbered_image(1).astype(np.float32), {}, "3 channels of float, others 3 channels of uint8; convert it"),
        (numbered_image(1, height=15), {}, "48x15 px, a crop 16x16; set a smaller data.crop_px"),
        (numbered_image(1, width=47), {"crop_px": None}, "47x40 px, others 48x40; set data.crop_px=64"),
        (numbered_image(1), {"crop_px": 4, "noise": {"name": "pixelate", "cell_px": 11}}, "48x40 px, a crop 44x44"),
    ],
)
def test_an_image_that_does_not_fit_the_others_is_named_or_left_out(
    tmp_path: Path, odd: Array, settings: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
):
    size = (48, 48) if "noise" in settings else (40, 48)
    write_images(tmp_path / "root", *(numbered_image(scene, 0, *size) for scene in range(4)))
    write(tmp_path / "root/odd.npy", odd)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(tmp_path))}/root/odd\.npy (holds|is) {words}") as caught:
        clean(tmp_path, **settings).load("train")
    assert "00.npy" not in str(caught.value)
    capsys.readouterr()
    data = clean(tmp_path, skip_bad=True, **settings)
    assert [scene.name[-6:] for scene in data.content.scenes] == [f"{n:02}.npy" for n in range(4)]
    assert "odd.npy" in capsys.readouterr().err


def test_all_bad_files_are_named_in_one_message_and_what_they_leave_is_used_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_images(tmp_path / "root", *(grey(100, "<f4") + scene for scene in range(4)))
    spoilt = grey(100, "<f4")
    spoilt[3, 5] = np.nan
    write(tmp_path / "root/spoilt.npy", spoilt)
    (tmp_path / "root/cut.tif").write_bytes(b"II*\0")
    (tmp_path / "root/empty.png").write_bytes(b"")
    names = ("spoilt.npy has 1 pixels that are NaN or infinite", "cut.tif", "empty.png is empty")
    with pytest.raises(ValueError, match=r"^3 images cannot be used") as caught:
        clean(tmp_path).load("train")
    assert all(name in str(caught.value) for name in names)
    capsys.readouterr()
    data = clean(tmp_path, skip_bad=True)
    assert len(data.content.scenes) == 4 and data.peak == 128
    told = capsys.readouterr().err
    assert all(name in told for name in names) and "left out" in told


def test_more_bad_files_than_anybody_reads_are_counted(tmp_path: Path):
    write_images(tmp_path / "root", numbered_image(0), numbered_image(1))
    for number in range(65):
        write(tmp_path / f"root/bad{number:02}.npy", numbered_image(1, height=9))
    with pytest.raises(ValueError, match=r"^65 images cannot be used") as caught:
        clean(tmp_path).load("train")
    message = str(caught.value)
    assert message.count("root/bad") == 50 and "and 15 more" in message


def test_a_file_of_several_pages_is_named_once(tmp_path: Path):
    write_images(tmp_path / "root", numbered_image(0), numbered_image(1))
    write(tmp_path / "root/pages.npy", np.stack([numbered_image(2, page, height=9) for page in range(5)]))
    with pytest.raises(ValueError, match=r"pages\.npy is 48x9 px, a crop 16x16") as caught:
        clean(tmp_path).load("train")
    assert str(caught.value).count("pages.npy") == 1


def test_nothing_but_bad_files_is_refused_in_any_case(tmp_path: Path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root/empty.png").write_bytes(b"")
    for skip_bad in (False, True):
        with pytest.raises(ValueError, match=r"empty\.png is empty"):
            clean(tmp_path, skip_bad=skip_bad).load("train")


# Orientation, identity


def test_an_orientation_tag_is_followed(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees clockwise to show"
    (tmp_path / "root").mkdir()
    for scene in range(2):
        turned = np.rot90(numbered_image(scene))
        Image.fromarray(turned).save(tmp_path / f"root/{scene}.png", exif=exif)
    assert len(origins(load_all(clean(tmp_path), "train").source.round().byte())) == 64


def test_the_fingerprint_is_of_the_bytes(tmp_path: Path):
    write_images(tmp_path / "root", numbered_image(0), numbered_image(1))
    before = clean(tmp_path).fingerprint()
    assert clean(tmp_path).fingerprint() == clean(tmp_path, train_pairs=5).fingerprint() == before
    write(tmp_path / "root/01.npy", numbered_image(2))
    assert clean(tmp_path).fingerprint() != before


def test_nothing_is_read_before_it_is_needed(tmp_path: Path):
    for data in (
        clean(tmp_path, root="nowhere"),
        make_data(SingleData, tmp_path, root="nowhere"),
        make_data(BurstData, tmp_path, root="nowhere"),
    ):
        NoisyPairDataModule(data)
        with pytest.raises(ValueError, match="nowhere does not exist"):
            data.load("train")


def test_a_loader_with_processes_gives_the_same_batches(tmp_path: Path):
    write_images(tmp_path / "root", *(numbered_image(scene) for scene in range(4)))
    batches = []
    for workers in (0, 2):
        datamodule = NoisyPairDataModule(
            clean(tmp_path, noise={"name": "gaussian"}), batch_size=16, num_workers=workers
        )
        datamodule.setup("fit")
        batches.append(torch.cat([pair.source for pair in datamodule.loader("train")]))
    assert torch.equal(*batches)
