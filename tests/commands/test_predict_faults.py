"""``predict`` with bad files, checkpoints and options: one message for each, and all good files are denoised."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from conftest import Command
from numbered_images import write
from PIL import Image
from predict_runs import MODEL, WEIGHTS, Array, assert_close, denoise, estimate, files, noise, pixels
from small_runs import assert_refused, stamps

from n2n_lightning import Denoiser, predict
from n2n_lightning.image_io.net_scale import Scale
from n2n_lightning.models import trained

IN = Path("given/in")


# Bad files


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int) -> bytes:
    """Return a PNG file that claims a size and holds one pixel."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0abc")) + chunk(b"IEND", b"")


def write_tiff_of(path: Path, width: int, height: int, compression: str | None) -> None:
    """Write a small TIFF file that claims another size."""
    tifffile.imwrite(path, noise(20, 24, 3), photometric="rgb", compression=compression)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for name, value in (("ImageWidth", width), ("ImageLength", height), ("RowsPerStrip", height)):
            tiff.pages[0].tags[name].overwrite(value)


def with_value(value: float, row: int, column: int) -> Array:
    values = noise(30, 40, 3, dtype="f4")
    values[row, column, 1] = value
    return values


MOST = 2**31 - 1
BAD: dict[str, Any] = {
    "empty.png": lambda path: path.write_bytes(b""),
    "empty.tif": lambda path: path.write_bytes(b""),
    "text.png": lambda path: path.write_text("<html>404: not found</html>"),
    "text.tif": lambda path: path.write_text("<html>404: not found</html>"),
    "text.npy": lambda path: path.write_text("<html>404: not found</html>"),
    "cut.png": lambda path: path.write_bytes(write(path, noise(90, 90, 3)).read_bytes()[:5000]),
    "cut.tif": lambda path: path.write_bytes(write(path, noise(90, 90, 3)).read_bytes()[:5000]),
    "cut.npy": lambda path: path.write_bytes(write(path, noise(90, 90, 3)).read_bytes()[:5000]),
    "palette.png": lambda path: Image.fromarray(noise(20, 24, 3)).quantize(8).save(path),
    "complex.npy": lambda path: np.save(path, np.ones((20, 24, 3), complex)),
    "huge.png": lambda path: path.write_bytes(png_of(MOST, MOST)),
    "big.png": lambda path: path.write_bytes(png_of(20_000, 10_000)),
    "huge.tif": lambda path: write_tiff_of(path, MOST, MOST, None),
    "high.tif": lambda path: write_tiff_of(path, 24, MOST, None),
    "packed_huge.tif": lambda path: write_tiff_of(path, MOST, MOST, "zlib"),
    "packed_high.tif": lambda path: write_tiff_of(path, 24, MOST, "zlib"),
    "packed_wide.tif": lambda path: write_tiff_of(path, MOST, 20, "zlib"),
    "packed_big.tif": lambda path: write_tiff_of(path, 2000, 3000, "zlib"),
    "nan.tif": lambda path: write(path, with_value(np.nan, 3, 4)),
    "infinite.npy": lambda path: write(path, with_value(-np.inf, 29, 39)),
}
WORDS = {
    "empty.png": "is empty; remove it",
    "palette.png": "has a palette of colours instead of RGB; convert it",
    "huge.png": f"has images of {MOST}x{MOST} px, more than a gigapixel",
    "packed_huge.tif": "would grow from ",
    "big.png": "would grow from ",
    "nan.tif": "has pixels that are NaN or infinite, the first at image 1, row 3, column 4; fix or remove it",
    "infinite.npy": "has pixels that are NaN or infinite, the first at image 1, row 29, column 39; fix or remove it",
}


def test_bad_files_are_named_and_the_others_done(command: Command):
    good = {"a.png": noise(20, 24, 3), "m.tif": noise(20, 24, 3, dtype="f4"), "z.npy": noise(20, 24, 3)}
    for name, values in good.items():
        write(IN / name, values)
    for name, spoil in BAD.items():
        spoil(IN / name)
    ended = denoise(command, IN)
    assert ended.code == 2 and files("out") == good.keys()
    for name, values in good.items():
        assert_close(f"out/{name}", estimate(values, 256 if name == "m.tif" else 255))
    assert f"3 of {3 + len(BAD)} files denoised, {len(BAD)} failed" in ended.out
    lines = ended.err.splitlines()
    named = [line.removeprefix("error: given/in/").partition(" ") for line in lines]
    assert sorted(name for name, _, _ in named) == sorted(BAD), ended.err
    said = {name: rest for name, _, rest in named}
    assert all("; " in rest for rest in said.values()), "each has a fix"
    for name, words in WORDS.items():
        assert said[name].startswith(words)
    made = stamps(Path("out"))
    ended = denoise(command, IN)
    assert ended.code == 2 and sorted(ended.err.splitlines()) == sorted(lines) and stamps(Path("out")) == made


def test_only_bad_files(command: Command):
    IN.mkdir(parents=True)
    BAD["nan.tif"](IN / "nan.tif")
    ended = denoise(command, IN, "--range", "1")
    assert ended.code == 2 and files("out") == set() and "0 of 1 files denoised, 1 failed" in ended.out


# Bad checkpoints and options


@pytest.mark.parametrize(
    "name", [MODEL, f"five_models/{MODEL}", "given/run", "given/run/checkpoints", "given/some.ckpt"]
)
def test_checkpoints_by_name_folder_and_path(command: Command, name: str):
    for path in (Path("given/run/checkpoints/best.ckpt"), Path("given/some.ckpt")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(WEIGHTS.read_bytes())
    values = noise(20, 24, 3)
    write(IN / "a.png", values)
    assert denoise(command, IN, model=name).code == 0
    assert_close("out/a.png", estimate(values))


def test_the_name_of_the_unet(command: Command):
    values = noise(20, 24, 3)
    write(IN / "a.png", values)
    assert denoise(command, IN, model="unet").code == 0
    assert np.abs(pixels("out/a.png") - estimate(values).astype(np.float64)).max() > 2, "another net"


def test_names_of_no_or_of_several_models_list_all(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("one/net", "two/net", "two/only"):
        path = tmp_path / "given/weights" / name / "best.ckpt"
        path.parent.mkdir(parents=True)
        path.write_bytes(WEIGHTS.read_bytes())
    monkeypatch.setattr(trained, "weights_folder", lambda: tmp_path / "given/weights")
    write(IN / "a.png", noise(20, 24, 3))
    known = "give a checkpoint, the folder of a run, or one of one/net, two/net, two/only"
    words = {
        "net": "is more than one trained model: one/net, two/net",
        "nets": "does not exist",
        "one": "does not exist",
    }
    for name, rule in words.items():
        assert_refused(denoise(command, IN, model=name), tmp_path, f"{name} {rule}; {known}")
    for name in ("two/net", "only"):
        assert denoise(command, IN, model=name).code == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "given/a.ckpt does not exist; give a checkpoint"),
        ({"state_dict": {}}, "given/a.ckpt is not a checkpoint of n2n_lightning"),
        ([torch.zeros(3)], "given/a.ckpt is not a checkpoint of n2n_lightning"),
        (Path("x"), "given/a.ckpt holds more than tensors and plain types"),
        (b"", "given/a.ckpt"),
        (b"<html>404: not found</html>", "given/a.ckpt"),
        (0.9, "given/a.ckpt is damaged or of another kind"),
    ],
)
def test_checkpoints_of_no_use_are_refused(command: Command, tmp_path: Path, content: Any, words: str):
    write(IN / "a.png", noise(20, 24, 3))
    if isinstance(content, bytes):
        Path("given/a.ckpt").write_bytes(content)
    elif isinstance(content, float):  # cut off
        Path("given/a.ckpt").write_bytes(WEIGHTS.read_bytes()[: int(content * WEIGHTS.stat().st_size)])
    elif content is not None:
        torch.save(content, "given/a.ckpt")
    assert_refused(denoise(command, IN, model="given/a.ckpt"), tmp_path, words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--output", "out", "--memory", "abc"], "--memory: must be a size such as 2GB or 800MB, got abc"),
        (["--output", "out", "--memory", "0GB"], "--memory: must be a size such as 2GB or 800MB, got 0GB"),
        (["--output", "out", "--memory", "2XB"], "--memory: must be a size such as 2GB or 800MB, got 2XB"),
        (["--output", "out", "--range", "much"], "--range: must be a number above 0, got much"),
        (["--output", "out", "--range", "0"], "--range: must be a number above 0, got 0"),
        (["--output", "out", "--range", "nan"], "--range: must be a number above 0, got nan"),
        (["--output", "out", "--format", "gif"], "--format: invalid choice: 'gif'"),
        (["--output", "out", "--precision", "16"], "--precision: invalid choice: '16'"),
        (["--output", "out", "--device", "abacus"], "--device abacus cannot be used ("),
        (["--output"], "--output: expected one argument"),
        ([], "the following arguments are required: --output"),
    ],
)
def test_wrong_options_are_refused(command: Command, tmp_path: Path, line: list[str], words: str):
    write(IN / "a.png", noise(20, 24, 3))
    ended = command(MODEL, str(IN), *line, main=predict.main)
    assert ended.code == 2 and ended.out == ""
    last = ended.err.splitlines()[-1]
    assert "error: " in last and words in last and "Traceback" not in ended.err
    assert {path.name for path in tmp_path.iterdir()} == {"given"}


def test_what_cannot_be_written_is_named_and_the_rest_is_done(command: Command):
    for name in ("a.png", "b/b.png", f"{'c' * 251}.png", "d.png"):
        write(IN / name, noise(20, 24, 3))
    Path("out").mkdir()
    Path("out/b").write_text("in the way")
    ended = denoise(command, IN)
    assert ended.code == 2 and ended.err.count("error: ") == 1
    assert f"error: {Path('out/b/b.png')} cannot be written" in ended.err
    assert files("out") - {"predict.jsonl"} == {"a.png", "b", f"{'c' * 251}.png", "d.png"}


@pytest.mark.slow
def test_memory_is_kept_with_many_channels():
    """Compare the memory of all arrays at one time with what was allowed beside the net's own."""
    values = np.zeros((1, 400, 400, 60), np.uint8)
    denoiser = Denoiser.load(MODEL, per_channel=True, working_bytes=3e7)
    denoiser.denoise(values[0, :9, :9])  # what stays
    tracemalloc.start()
    for _ in denoiser.bands(lambda top, bottom: values[:, top:bottom], values.shape, Scale(255.0)):
        pass
    most = tracemalloc.get_traced_memory()[1]  # numpy's share of it
    tracemalloc.stop()
    assert most < 3e7
