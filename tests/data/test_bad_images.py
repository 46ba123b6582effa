"""Bad images through the real command: one message that names the file, nothing left behind, skipped on request."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import Command
from numbered_images import numbered_image, write
from PIL import Image
from small_runs import assert_refused, compose_config, evaluate_main, read_json

SHORT = ["model=convtrans_relu", "debug=fast", "trainer.accelerator=cpu"]
CROPS = ["data.crop_px=16", "data.train_pairs=8", "data.batch_size=4"]
SETTINGS = [*SHORT, *CROPS]
BURST = ["data=burst", "data.root=given/burst"]
PAIRS = ["data=pairs", "data.source=given/source", "data.target=given/target"]
CLEAN = ["data=clean", "data.root=given/clean"]
SINGLE = ["data=single", "data.root=given/single"]


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """Good images for every source: three scenes each, and a burst of three frames."""
    given = tmp_path / "given"
    for number in range(3):
        write(given / f"burst/{number}.png", numbered_image(0, number))
        for frame, folder in enumerate(("source", "target", "clean", "single")):
            write(given / f"{folder}/{number}.png", numbered_image(number, frame))
    return given


def spoil(path: Path) -> None:
    """Give the file the fault that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(numbered_image(1))
    match path.name:
        case "palette.png":
            picture.quantize(16).save(path)
        case "cmyk.jpg" | "cmyk.tif":
            picture.convert("CMYK").save(path)
        case "nan.tif":
            pixels = numbered_image(1).astype(np.float32)
            pixels[3, 4, 1] = np.nan
            tifffile.imwrite(path, pixels, photometric="rgb")
        case "infinite.npy":
            np.save(path, np.where(numbered_image(1) == 7, np.inf, numbered_image(1)).astype(np.float32))
        case "empty.tif":
            path.write_bytes(b"")
        case "no_pages.tif":
            path.write_bytes(b"II*\0\0\0\0\0")
        case "cut.png":
            picture.save(path)
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        case "page.png":
            path.write_text("<html>404: not found</html>")
        case "grey.png":
            picture.convert("L").save(path)
        case "deep.tif":
            tifffile.imwrite(path, numbered_image(1).astype(np.uint16), photometric="rgb")
        case _:
            raise AssertionError(path.name)


FAULTS = [
    ("palette.png", "palette.png has a palette of colours instead of RGB; convert it"),
    ("cmyk.jpg", "cmyk.jpg has colours for printing (CMYK) instead of RGB; convert it"),
    ("cmyk.tif", "cmyk.tif has colours for printing (CMYK) instead of RGB; save it"),
    ("nan.tif", "nan.tif has 1 pixels that are NaN or infinite, the first at image 1, row 3, column 4"),
    ("infinite.npy", "infinite.npy has"),
    ("empty.tif", "empty.tif is empty; remove it"),
    ("no_pages.tif", "no_pages.tif"),
    ("cut.png", "cut.png cannot be read"),
    ("page.png", "page.png cannot be read"),
    ("grey.png", "grey.png holds 1 channel of uint8, others 3 channels of uint8; convert it"),
    ("deep.tif", "deep.tif holds 3 channels of uint16, others 3 channels of uint8; convert it"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "words"), FAULTS)
def test_one_bad_file_among_good_ones_is_named(command: Command, given: Path, tmp_path: Path, name: str, words: str):
    spoil(given / "clean" / name)
    ended = command(*CLEAN, *SETTINGS, "data.cache_dir=given/cache")
    assert_refused(ended, tmp_path, f"given/clean/{words}", "data.skip_bad=true")
    assert "given/clean/0" not in ended.err


@pytest.mark.slow
@pytest.mark.parametrize("source", [BURST, PAIRS, SINGLE])
def test_every_source_names_an_unreadable_file(command: Command, given: Path, tmp_path: Path, source: list[str]):
    folder = {"data=burst": "burst", "data=pairs": "target", "data=single": "single"}[source[0]]
    spoiled = given / folder / "page.png"
    spoil(spoiled)
    (given / "source/page.png").write_bytes((given / "source/0.png").read_bytes())
    ended = command(*source, *SETTINGS, "data.cache_dir=given/cache")
    assert_refused(ended, tmp_path, f"given/{folder}/page.png cannot be read", "data.skip_bad=true")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "words"),
    [
        (["data=burst", "data.root=given/nothing"], "given/nothing holds no images (.bmp"),
        (["data=single", "data.root=given/nowhere"], "given/nowhere does not exist; give an image or a folder"),
        (["data=burst", "data.root=given/single/0.png"], "given/single/0.png is a burst of one frame"),
        (["data=burst", "data.root=given/lone"], "given/lone/a.tif is a burst of one frame"),
        ([*PAIRS[:2], "data.target=given/wide"], "given/wide/1.png holds 49x40 px"),
        ([*PAIRS[:2], "data.target=given/nothing"], "given/nothing holds no images"),
        ([*PAIRS[:2], "data.target=given/two"], "given/source/2.png has no partner in given/two"),
        ([*CLEAN, "data.val_root=given/clean"], "is among the training images too"),
        ([*CLEAN, "data.crop_px=41"], "3 images cannot be used"),
        ([*BURST, "data.crop_px=30"], "given/burst/0.png is the only image, and its 48x40 px are too small"),
    ],
)
def test_input_that_makes_no_data_set_is_refused(
    command: Command, given: Path, tmp_path: Path, source: list[str], words: str
):
    (given / "nothing").mkdir()
    (given / "nothing/notes.txt").write_text("no image")
    write(given / "lone/a.tif", numbered_image(0))
    for number in range(3):
        write(given / f"wide/{number}.png", numbered_image(number, 1, width=48 + (number == 1)))
    for number in range(2):
        write(given / f"two/{number}.png", numbered_image(number, 1))
    assert_refused(command(*SETTINGS, *source, "data.cache_dir=given/cache"), tmp_path, words)


def test_a_refused_command_leaves_nothing_but_the_cache_and_no_part_of_a_file(
    command: Command, given: Path, tmp_path: Path
):
    spoil(given / "clean/nan.tif")
    ended = command(*CLEAN, *SETTINGS)
    assert ended.code == 2 and "nan.tif" in ended.err
    assert {path.name for path in tmp_path.iterdir()} == {"given", "outputs"}
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["cache"]
    kept = sorted(path.suffix for path in (tmp_path / "outputs/cache").iterdir())
    assert kept == [".json"] * 3 + [".pixels"] * 3, "of the good files"


@pytest.mark.slow
def test_bad_files_are_skipped_on_request_and_named(command: Command, given: Path, tmp_path: Path):
    for name, _ in FAULTS:
        spoil(given / "clean" / name)
    ended = command(*CLEAN, *SETTINGS, "data.skip_bad=true", "hydra.run.dir=run")
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err and ended.err.count("images cannot be used (left out)") == 1
    left_out = {name for name, words in FAULTS if words in ended.err}
    assert len(left_out) == len(FAULTS)
    result = read_json(tmp_path / "run/result.json")
    assert result["status"] in ("done", "dead") and result["epochs"] == 1
    assert compose_config(*CLEAN)["data"]["skip_bad"] is False, "only on request"


@pytest.mark.slow
def test_evaluation_names_bad_files_too(command: Command, given: Path, tmp_path: Path):
    trained = command(*CLEAN, *SETTINGS, "hydra.run.dir=given/run", "data.cache_dir=given/cache")
    assert trained.code == 0, trained.err
    spoil(given / "single/nan.tif")
    checkpoint = "checkpoint=given/run/checkpoints/best.ckpt"
    ended = command(checkpoint, *SINGLE, *CROPS, "data.cache_dir=given/cache", main=evaluate_main)
    assert_refused(ended, tmp_path, "given/single/nan.tif has 1 pixels that are NaN or infinite")
