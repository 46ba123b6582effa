"""``predict``: its outputs and messages; channels, range, memory."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from conftest import Command
from numbered_images import write
from PIL import Image
from predict_runs import MODEL, WEIGHTS, Array, assert_close, denoise, estimate, files, noise, pixels
from small_runs import run_python, write_checkpoint

from n2n_lightning import predict
from n2n_lightning.inference.denoiser import Denoiser
from n2n_lightning.inference.file_runner import PROGRAM_BYTES
from n2n_lightning.inference.tiling import Plan

IN = Path("given/in")


# What comes out


@pytest.mark.slow
def test_the_command_line_as_users_type_it(tmp_path: Path):
    """Run the module as a program in a process of its own: exit code, output, files."""
    images = {name: noise(40, 50, 3, seed=number) for number, name in enumerate(("a.png", "b.tif", "sub/c.bmp"))}
    for name, values in images.items():
        write(tmp_path / IN / name, values)
    (tmp_path / IN / "bad.png").write_bytes(b"bad")
    process = run_python(["-m", "n2n_lightning.predict", MODEL, IN, "--output", "out"], tmp_path)
    assert process.returncode == 2
    assert process.stderr.startswith("error: given/in/bad.png cannot be read") and process.stderr.count("\n") == 1
    *lines, summary = process.stdout.splitlines()
    assert [line.split(" (")[0] for line in lines] == [f"out/{name}" for name in images]
    assert summary.startswith("3 of 4 files denoised, 1 failed: 0.01 MP in ")
    for name, values in images.items():
        assert_close(tmp_path / "out" / name, estimate(values))


@pytest.mark.parametrize(
    ("name", "dtype", "peak"),
    [("a.png", "u1", 255), ("a.tif", "u1", 255), ("a.tif", "u2", 4095), ("a.npy", "i4", 2**20 - 1), ("a.npy", "f4", 8)],
)
def test_values_are_the_nets(command: Command, name: str, dtype: str, peak: int):
    values = noise(40, 50, 3, most=0.9 * peak, dtype=dtype)
    write(IN / name, values)
    ended = denoise(command, IN)
    assert ended.code == 0 and ended.err == ""
    assert_close(f"out/{name}", estimate(values, peak))
    assert np.abs(pixels(f"out/{name}") - values.astype(np.float64)).mean() > 0.01 * peak, "the net changes something"


def test_each_page_of_a_stack_is_an_image(command: Command):
    pages = noise(4, 40, 50, 3)
    write(IN / "stack.tif", pages)
    assert denoise(command, IN).code == 0
    assert_close("out/stack.tif", np.stack([estimate(page) for page in pages]))


def test_a_jpeg_stays_one(command: Command):
    values = np.kron(noise(5, 7, 1), np.ones((8, 8, 3), np.uint8))  # which JPEG keeps well
    write(IN / "a.JPG", values)
    assert denoise(command, IN).code == 0
    with Image.open("out/a.JPG") as image:
        assert (image.format, image.size) == ("JPEG", (56, 40))
    difference = pixels("out/a.JPG") - estimate(pixels(IN / "a.JPG")).astype(np.float64)
    assert np.abs(difference).mean() < 5, "of coding it again"


@pytest.mark.parametrize(
    ("form", "name"),
    [("bmp", "a.bmp"), ("npy", "a.npy"), ("png", "a.png"), ("tiff", "a.tif"), ("webp", "a.webp"), ("jpeg", "a.jpg")],
)
def test_another_format(command: Command, form: str, name: str):
    values = noise(20, 24, 3)
    write(IN / "a.png", values)
    assert denoise(command, IN, "--format", form).code == 0
    assert files("out") == {name}
    if form == "jpeg":
        assert np.asarray(Image.open(f"out/{name}")).shape == values.shape
    else:
        assert_close(f"out/{name}", estimate(values))


def test_a_format_that_cannot_hold_it_is_refused(command: Command):
    write(IN / "deep.tif", noise(20, 24, 3, dtype="u2"))
    write(IN / "stack.tif", noise(2, 20, 24, 3))
    write(IN / "good.tif", noise(20, 24, 3))
    ended = denoise(command, IN, "--format", "jpeg")
    assert ended.code == 2 and files("out") == {"good.jpg"}
    assert ended.err.splitlines() == [
        "error: given/in/deep.tif has uint16 values, which jpeg does not hold; give --format tiff or npy",
        "error: given/in/stack.tif holds 2 images, jpeg one; give --format tiff or npy",
    ]


def test_a_name_of_any_bytes(command: Command):
    name = os.fsdecode(b"caf\xe9.png")
    write(IN / "a.png", noise(20, 24, 3))
    os.rename(IN / "a.png", IN / name)
    ended = denoise(command, IN)
    assert ended.code == 0 and files("out") == {name}
    assert "out/caf\\udce9.png" in ended.out
    assert "1 done before" in denoise(command, IN).out


# Messages while it works


def test_the_summary_counts(command: Command):
    write(IN / "a.png", noise(200, 300, 3))
    write(IN / "b.tif", noise(3, 100, 200, 3))
    ended = denoise(command, IN)
    pattern = r"2 of 2 files denoised: 0\.12 MP in (.+) s, (.+) MP/s"
    match = re.fullmatch(pattern, ended.out.splitlines()[-1])
    assert match is not None, ended.out
    seconds, speed = map(float, match.groups())
    assert 0.12 / (seconds + 0.06) <= speed * 1.01 and speed * 0.99 * (seconds - 0.06) <= 0.12


def test_a_bar_shows_on_terminals_how_far_it_is(command: Command, monkeypatch: pytest.MonkeyPatch):
    write(IN / "a.png", noise(200, 300, 3))
    write(IN / "b.tif", noise(3, 100, 200, 3))
    assert denoise(command, IN).err == "", "no terminal, no bar"
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    ended = denoise(command, IN, output="again")
    assert "denoising" in ended.err and "0.1 of 0.1 MP" in ended.err


# Channels


@pytest.mark.parametrize(("name", "channels"), [("a.png", 1), ("a.npy", 2), ("a.tif", 5)])
def test_another_count_of_channels_needs_per_channel(command: Command, name: str, channels: int):
    values = noise(30, 40, channels)
    if name == "a.tif":
        IN.mkdir(parents=True)
        tifffile.imwrite(IN / name, values, photometric="minisblack", planarconfig="contig")
    else:
        write(IN / name, values.squeeze(-1) if channels == 1 else values)
    ended = denoise(command, IN)
    assert ended.code == 2 and files("out") == set()
    assert ended.err == (
        f"error: given/in/{name} has {channels} channels, the net is for 3; "
        "--per-channel puts each through it by itself\n"
    )
    assert denoise(command, IN, "--per-channel").code == 0
    assert_close(f"out/{name}", alone(values).reshape(pixels(IN / name).shape))


def alone(values: Array) -> Array:
    """Return (H, W, C): for each channel as a grey image, the mean of the net's channels."""
    grey = [
        estimate(np.repeat(plane[..., None], 3, axis=2) / 255.0, 1.0).mean(-1) for plane in np.moveaxis(values, -1, 0)
    ]
    return np.rint(np.stack(grey, -1).clip(0, 1) * 255).astype(np.uint8)


def test_colours_can_go_through_one_by_one_too(command: Command):
    values = noise(30, 40, 3)
    write(IN / "a.png", values)
    assert denoise(command, IN, "--per-channel").code == 0
    assert_close("out/a.png", alone(values))
    assert np.abs(alone(values) - estimate(values).astype(np.float64)).max() > 2, "which is something else"


@pytest.mark.parametrize("options", [[], ["--per-channel"]])
def test_transparency_passes_unchanged(command: Command, options: list[str]):
    values = noise(30, 40, 4)
    write(IN / "a.png", values)
    assert denoise(command, IN, *options).code == 0
    colours = alone(values[..., :3]) if options else estimate(values[..., :3])
    assert_close("out/a.png", np.concatenate([colours, values[..., 3:]], axis=-1))
    np.testing.assert_array_equal(pixels("out/a.png")[..., 3], values[..., 3])


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("shape", [(37, 40, 4), (2, 37, 40, 4), (4, 37, 40)])
def test_a_dye_that_is_marked_as_opacity_is_refused_and_denoised_where_the_axes_are_given(
    command: Command, shape: tuple[int, ...], dtype: str
):
    values = noise(*shape, most=250, dtype=dtype)
    axes = {37: "YXC", 2: "TYXC", 4: "CYX"}[shape[0]]
    IN.mkdir(parents=True)
    stored = "separate" if axes == "CYX" else "contig"
    tifffile.imwrite(IN / "a.tif", values, photometric="rgb", planarconfig=stored, extrasamples=["unassalpha"])
    options = (IN, "--per-channel", "--range", "256")
    ended = denoise(command, *options)
    assert ended.code == 2 and files("out") == set()
    assert f"{IN}/a.tif has a channel 4 that is marked as opacity but varies like an image" in ended.err
    assert f"give --axes {axes} to denoise it as a channel" in ended.err
    ended = denoise(command, *options, "--axes", axes.lower())
    assert ended.code == 0
    made = pixels("out/a.tif")
    images, found = ((v[None] if v.ndim == 3 else v) for v in (values, made))
    if axes == "CYX":
        images, found = (np.moveaxis(v, 1, -1) for v in (images, found))
    assert (np.abs(found.astype(float) - images).mean((0, 1, 2)) > 0.01 * float(values.max())).all(), "each channel"
    if dtype == "u1":
        for image, denoised in zip(images, found, strict=True):
            np.testing.assert_allclose(denoised.astype(int), alone(image).astype(int), atol=1)


def test_opacity_of_a_format_that_has_no_other_fourth_channel_is_warned_of(command: Command):
    write(IN / "a.png", noise(30, 40, 4))
    ended = denoise(command, IN)
    assert ended.code == 0 and "warning: given/in/a.png has a channel 4 that is marked as opacity" in ended.err
    ended = denoise(command, IN, "--axes", "YXC", "--per-channel", "--overwrite")
    assert ended.code == 0 and ended.err == ""
    assert (pixels("out/a.png")[..., 3] != pixels(IN / "a.png")[..., 3]).any()


def test_a_net_for_four_channels_names_the_axes(command: Command):
    IN.mkdir(parents=True)
    write_checkpoint(Path("given/four.ckpt"), MODEL, channels=4)
    tifffile.imwrite(IN / "a.tif", noise(20, 24, 4), photometric="rgb")
    ended = denoise(command, IN, model="given/four.ckpt")
    assert ended.code == 2 and "has 3 channels, the net is for 4; --axes YXC makes its opacity one more" in ended.err
    assert denoise(command, IN, "--axes", "YXC", model="given/four.ckpt").code == 0


def test_other_axes_are_another_way_to_make_an_output(command: Command):
    write(IN / "a.npy", noise(3, 30, 40))
    assert denoise(command, IN, "--per-channel").code == 0
    assert "1 done before" in denoise(command, IN, "--per-channel").out
    ended = denoise(command, IN, "--per-channel", "--axes", "TYX")
    assert ended.code == 2 and "not made by this command" in ended.err
    assert denoise(command, IN, "--per-channel", "--axes", "TYX", "--overwrite").code == 0


@pytest.mark.parametrize("axes", ["", "TZ", "TYXQ", "YXX"])
def test_axes_that_are_none_are_refused(command: Command, axes: str):
    ended = denoise(command, IN, "--axes", axes)
    assert ended.code == 2 and f"got {axes!r}; set data.axes=TYX" in ended.err


# Range


def printed_ranges(out: str) -> list[str]:
    return [line for line in out.splitlines() if line.startswith("range ")]


def test_each_file_has_its_own_range(command: Command):
    images = {
        "bright.npy": (noise(20, 24, 3, most=2048, dtype="u2"), 4095),
        "dark.tif": (noise(20, 24, 3, most=500, dtype="u2"), 511),
        "dark2.tif": (noise(20, 24, 3, most=400, dtype="u2"), 511),
        "float.tif": (noise(20, 24, 3, most=2.5, dtype="f4"), 4),
        "bytes.png": (noise(20, 24, 3, most=90), 255),
    }
    for name, (values, _) in images.items():
        write(IN / name, values)
    lines = [
        f"range of float32: 0 to 4, found in {IN / 'float.tif'}; --range sets another",
        f"range of uint16: 0 to 511, found in {IN / 'dark.tif'} and 1 more; --range sets another",
        f"range of uint16: 0 to 4095, found in {IN / 'bright.npy'}; --range sets another",
    ]
    ended = denoise(command, IN)
    assert ended.code == 0 and printed_ranges(ended.out) == lines
    for name, (values, peak) in images.items():
        assert_close(f"out/{name}", estimate(values, peak))
    made = Path("out/float.tif").read_bytes()
    Path("out/float.tif").unlink()
    ended = denoise(command, IN)
    assert printed_ranges(ended.out) == lines[:1] and Path("out/float.tif").read_bytes() == made
    assert printed_ranges(denoise(command, IN).out) == [], "nothing is left to do"


def test_transparency_has_no_part_in_the_range(command: Command):
    values = noise(20, 24, 4, most=1000, dtype="u2")
    values[..., 3] = 65535
    IN.mkdir(parents=True)
    tifffile.imwrite(IN / "a.tif", values, photometric="rgb", extrasamples=["unassalpha"])
    assert printed_ranges(denoise(command, IN).out)[0].startswith("range of uint16: 0 to 1023, found in")


def test_a_given_range_wins_but_for_8_bits(command: Command):
    deep, shallow = noise(20, 24, 3, most=4000, dtype="u2"), noise(20, 24, 3)
    write(IN / "deep.tif", deep)
    write(IN / "shallow.png", shallow)
    ended = denoise(command, IN, "--range", "9000")
    assert ended.code == 0 and printed_ranges(ended.out) == []
    assert_close("out/deep.tif", estimate(deep, 9000))
    assert_close("out/shallow.png", estimate(shallow))


@pytest.mark.parametrize(("trained_on", "dtype"), [("uint16", "u2"), ("float32", "f4")])
def test_the_range_of_the_training_holds_for_its_kind(command: Command, trained_on: str, dtype: str):
    content = torch.load(WEIGHTS, weights_only=True)
    content["n2n_lightning"] |= {"peak": 5000.0, "sample_type": trained_on}
    Path("given").mkdir()
    torch.save(content, "given/deep.ckpt")
    images = {kind: noise(20, 24, 3, most=1000, dtype=kind) for kind in ("u2", "f4")}
    for kind, values in images.items():
        write(IN / f"{kind}.npy", values)
    ended = denoise(command, IN, model="given/deep.ckpt")
    assert_close(f"out/{dtype}.npy", estimate(images.pop(dtype), 5000))
    ((other, values),) = images.items()
    found = {"u2": 1023, "f4": 1024}[other]
    assert_close(f"out/{other}.npy", estimate(values, found))
    assert [line.split(", ")[0].split()[-1] for line in printed_ranges(ended.out)] == [str(found)]


def test_values_around_0(command: Command):
    values = noise(20, 24, 3, dtype="f4") - 128
    write(IN / "a.npy", values)
    ended = denoise(command, IN)
    assert ended.code == 0
    assert printed_ranges(ended.out)[0].startswith("range of float32: -128 to 127, 1 stands for 128, found in")
    assert_close("out/a.npy", estimate(values, 128))


def test_a_dark_page_is_scaled_by_itself(command: Command):
    bright = noise(20, 24, 3, most=4000, dtype="u2")
    write(IN / "a.tif", np.stack([bright, bright // 100, bright]))
    assert denoise(command, IN).code == 0
    for page, scale in zip(pixels("out/a.tif"), (1, 64, 1), strict=True):
        expected = estimate(bright if scale == 1 else bright // 100, 4095 / scale)
        np.testing.assert_allclose(page.astype(int), expected.astype(int), atol=1)


def hounsfield(pages: int = 2) -> Array:
    """Return noisy slices of air, -1010, and tissue around 0, of which the last one has no air."""
    values = np.random.default_rng(0).normal(0, 40, (pages, 40, 48, 3))
    values[:-1, :, :30] -= 1010
    values[0, 0, 0] = 2500
    return np.rint(values).astype(np.int16)


@pytest.mark.parametrize("options", [(), ("--range", "4095")])
def test_values_far_below_0_get_an_offset_for_the_whole_file(command: Command, options: tuple[str, ...]):
    """Hounsfield units are denoised as the same images with a constant added: one for all pages and tiles."""
    values = hounsfield()
    write(IN / "a.tif", values)
    ended = denoise(command, IN, *options)
    found = f"range of int16: -1024 to 3071, found in {IN / 'a.tif'}"
    assert printed_ranges(ended.out) == [found if options else f"{found}; --range sets another"]
    for page, denoised in zip(values, pixels("out/a.tif"), strict=True):
        expected = estimate((page + 1024).astype(np.float32), 4095)
        np.testing.assert_allclose(denoised, np.rint(expected) - 1024, atol=1)
    assert json.loads(Path("out/predict.jsonl").read_text())["offset"] == -1024
    assert "1 done before" in denoise(command, IN, *options).out


def write_deep(peak: float, sample_type: str, reach: list[float] | None) -> Path:
    """Write a checkpoint that was trained on values of this type."""
    content = torch.load(WEIGHTS, weights_only=True)
    content["n2n_lightning"] |= {"peak": peak, "sample_type": sample_type} | ({"reach": reach} if reach else {})
    Path("given").mkdir(exist_ok=True)
    torch.save(content, "given/deep.ckpt")
    return Path("given/deep.ckpt")


@pytest.mark.parametrize("dtype", ["f4", "u2"])
@pytest.mark.parametrize("reach", [[900.0, 1000.0], None])
def test_files_on_another_scale_are_refused(command: Command, dtype: str, reach: list[float] | None):
    """Files are 10 times brighter, alike, and 1000 times darker. Without a record only what is brighter is refused."""
    sizes = {"bright": 10_000, "same": 1000, "dark": 1}
    for name, most in sizes.items():
        write(IN / f"{name}.npy", noise(20, 24, 3, most=most, dtype=dtype))
    model = write_deep(1024.0, "float" if dtype == "f4" else "uint16", reach)
    ended = denoise(command, IN, model=model)
    assert ended.code == 2 and files("out") == ({"same.npy"} if reach else {"same.npy", "dark.npy"})
    assert f"error: {IN / 'bright.npy'}: values go from 0 to 10000" in ended.err and "--range 8192" in ended.err
    assert f"{'error' if reach else 'warning'}: {IN / 'dark.npy'}: values go from 0 to 1" in ended.err
    ended = denoise(command, IN, "--range", "8192", model=model, output="wide")
    assert ended.code == 0 and ended.err == "", "a given range wins"


def test_a_value_far_out_does_not_set_the_range(command: Command):
    values = noise(64, 64, 3, most=400, dtype="u2")
    values[10, 20, 1] = 65535
    write(IN / "a.tif", values)
    ended = denoise(command, IN)
    assert ended.code == 0 and printed_ranges(ended.out)[0].startswith("range of uint16: 0 to 511, found in")
    assert f"warning: {IN / 'a.tif'} has 1 value far out" in ended.err
    assert_close("out/a.tif", estimate(values.clip(0, 511), 511))


def test_a_file_of_another_type_has_a_range_of_its_own(command: Command):
    photo, mask = noise(20, 24, 3, most=1000, dtype="u2"), np.full((20, 24, 3), 2**31, np.uint32)
    write(IN / "photo.npy", photo)
    write(IN / "mask.npy", mask)
    assert denoise(command, IN).code == 0
    assert_close("out/photo.npy", estimate(photo, 1023))


def test_floats_take_a_power_of_two_for_range(command: Command):
    write(IN / "a.npy", noise(20, 24, 3, most=1, dtype="f4"))
    write(IN / "b.npy", noise(20, 24, 3, most=1000, dtype="u2"))
    ended = denoise(command, IN, "--range", "4095")
    assert ended.code == 2 and "a.npy holds floats" in ended.err and "--range 4095" in ended.err
    assert files("out") - {"predict.jsonl"} == {"b.npy"}


# Memory


@pytest.mark.parametrize(("name", "dtype"), [("a.png", "u1"), ("a.tif", "u2"), ("a.npy", "f4")])
def test_memory_changes_nothing_in_the_result(command: Command, monkeypatch: pytest.MonkeyPatch, name: str, dtype: str):
    write(IN / name, noise(230, 300, 3, dtype=dtype, most=60000 if dtype == "u2" else 255))
    plans: list[Plan] = []
    make = Denoiser.plan
    monkeypatch.setattr(Denoiser, "plan", lambda *arguments: plans.append(make(*arguments)) or plans[-1])
    assert denoise(command, IN, output="large").code == 0
    large = plans.pop()
    assert denoise(command, IN, "--memory", f"{PROGRAM_BYTES + 3e6:.0f}", output="small").code == 0
    small = plans.pop()
    assert large.rows >= 230 and large.columns >= 300
    assert small.rows < 230 and small.columns < 300, "it was made of tiles"
    assert_close(f"small/{name}", pixels(f"large/{name}"))


def test_too_little_memory_says_how_much_is_needed(command: Command):
    write(IN / "a.png", noise(600, 700, 3))
    write(IN / "b.png", noise(20, 24, 3))
    ended = denoise(command, IN, "--memory", f"{PROGRAM_BYTES / 1e6 + 2}MB")
    assert ended.code == 2 and files("out") == {"b.png"}
    match = re.fullmatch(
        r"error: given/in/a\.png of 700x600 px needs (.+) GB beside the program's own memory of (.+) GB; "
        r"give --memory their sum\n",
        ended.err,
    )
    assert match is not None, ended.err
    assert denoise(command, IN, "--memory", f"{sum(map(float, match.groups()))}GB").code == 0
    assert files("out") == {"a.png", "b.png"}


def test_files_side_by_side_are_as_one_after_the_other(command: Command):
    """One of them is damaged, and the largest comes first, so that others end before it."""
    for number, side in enumerate((300, 20, 30, 25, 40)):
        write(IN / f"{number}.png", noise(side, side + 4, 3, seed=number))
    content = (IN / "2.png").read_bytes()
    (IN / "2.png").write_bytes(content[: len(content) // 2])
    before = torch.get_num_threads()
    ended = {}
    try:
        for cores in (1, 3):
            torch.set_num_threads(cores)
            ended[cores] = denoise(command, IN, output=f"with{cores}")
    finally:
        torch.set_num_threads(before)
    for cores, end in ended.items():
        assert end.code == 2 and end.err.startswith(f"error: {IN / '2.png'} cannot be read")
        assert "4 of 5 files denoised, 1 failed" in end.out
        named = re.findall(rf"^with{cores}/(.)\.png", end.out, re.MULTILINE)
        assert named == ["0", "1", "3", "4"], "lines are in the order of the files"
    assert files("with1") == files("with3")
    for name in files("with1"):
        np.testing.assert_array_equal(pixels(f"with1/{name}"), pixels(f"with3/{name}"))


# Precision and device


def test_bfloat16_is_near(command: Command):
    values = noise(40, 50, 3)
    write(IN / "a.png", values)
    assert denoise(command, IN, "--precision", "bf16").code == 0
    difference = np.abs(pixels("out/a.png") - estimate(values).astype(np.float64))
    assert 0 < difference.max() < 16 and difference.mean() < 2


@pytest.mark.parametrize(
    ("device", "family", "expected"), [("cuda", "unet", True), ("cuda", "dncnn", False), ("cpu", "unet", False)]
)
def test_bfloat16_is_for_devices_and_families_that_it_suits(
    monkeypatch: pytest.MonkeyPatch, device: str, family: str, expected: bool
):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    denoiser: Any = SimpleNamespace(module=SimpleNamespace(device=torch.device(device), family=family))
    assert predict.suits_bf16(denoiser) is expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without CUDA")
def test_without_cuda_auto_is_the_cpu_and_cuda_is_refused(command: Command):
    write(IN / "a.png", noise(20, 24, 3))
    assert denoise(command, IN, "--device", "auto", "--precision", "auto").code == 0
    assert denoise(command, IN, "--device", "cpu", "--precision", "32").out.startswith("0 of 1 files denoised, 1 done")
    ended = denoise(command, IN, "--device", "cuda", output="other")
    assert ended.code == 2 and "--device cuda cannot be used (" in ended.err and "give --device cpu" in ended.err
    assert not Path("other").exists()
