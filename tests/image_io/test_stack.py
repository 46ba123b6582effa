"""Reading image files of any depth: values, windows, the cache, and what is refused."""

from __future__ import annotations

import errno
import io
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from numbered_images import write
from PIL import Image, ImageOps
from small_runs import stamps

from n2n_lightning.image_io import stack as image_stack
from n2n_lightning.image_io.listing import list_images
from n2n_lightning.image_io.stack import ImageError, ImageStack, open_stack, open_stacks

Array = npt.NDArray[Any]
H, W = 20, 30


def noise(*shape: int, dtype: str = "u1", seed: int = 0) -> Array:
    """Return random integers of the type's full range, or floats around 0."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 100, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, np.dtype(dtype).newbyteorder("="), endpoint=True).astype(dtype)


def whole(stack: ImageStack) -> Array:
    """Read all images as (N, H, W, C)."""
    count, height, width, _ = stack.shape
    return np.stack([stack.read(number, 0, 0, height, width) for number in range(count)])


def assert_holds(path: Path, cache: Path, expected: Array, *, copied: bool) -> ImageStack:
    """Check that ``path`` reads as ``expected`` (N, H, W, C), from the file itself or from a copy in the cache."""
    stack = open_stack(path, cache)
    assert stack.shape == expected.shape
    found = whole(stack)
    assert found.dtype == expected.dtype.newbyteorder("=") and found.dtype.isnative
    np.testing.assert_array_equal(found, expected)
    assert (stack.low, stack.high) == (expected.min(), expected.max())
    assert (stack.path != path) == copied
    assert sorted(p.suffix for p in cache.iterdir()) == [".json", ".pixels"][: 1 + copied]
    return stack


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def tif(tmp_path: Path) -> Path:
    return tmp_path / "a.tif"


# Values, format by format


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp"])
@pytest.mark.parametrize("shape", [(H, W), (H, W, 3)])
def test_photos_without_loss(tmp_path: Path, cache: Path, suffix: str, shape: tuple[int, ...]):
    pixels = noise(*shape)
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
    grey_as_colour = suffix == ".webp" and len(shape) == 2  # WebP knows colour alone
    expected = np.stack([pixels] * 3, -1) if grey_as_colour else pixels.reshape(H, W, -1)
    assert_holds(tmp_path / f"a{suffix}", cache, expected[None], copied=True)


def test_jpeg_reads_as_pillow_reads_it(tmp_path: Path, cache: Path):
    for name, pixels in (("grey.JPG", noise(H, W)), ("rgb.jpeg", noise(H, W, 3))):
        shutil.rmtree(cache, ignore_errors=True)
        Image.fromarray(pixels).save(tmp_path / name)
        decoded = np.asarray(Image.open(tmp_path / name))
        assert_holds(tmp_path / name, cache, decoded.reshape(1, H, W, -1), copied=True)


def test_a_jpeg_with_previews_is_its_first_image(tmp_path: Path, cache: Path):
    first, preview = Image.fromarray(noise(H, W, 3)), Image.fromarray(noise(H, W, 3, seed=1))
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[preview])
    decoded = np.asarray(Image.open(tmp_path / "a.jpg"))
    assert_holds(tmp_path / "a.jpg", cache, decoded[None], copied=True)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_of_16_bits_keeps_them(tmp_path: Path, cache: Path, channels: int):
    pixels = noise(H, W, channels, dtype="u2")
    if channels in (2, 4):
        pixels[..., -1] = 65535
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    colours = channels - (channels in (2, 4))
    assert_holds(tmp_path / "a.png", cache, pixels[None, ..., :colours], copied=True)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_an_opaque_alpha_channel_is_dropped(tmp_path: Path, cache: Path, mode: str):
    image = Image.fromarray(noise(H, W, 3)).convert(mode)
    image.save(tmp_path / "a.png")
    assert_holds(tmp_path / "a.png", cache, np.asarray(image)[None, ..., :-1], copied=True)


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "i2", "u4", "i4", "f2", "f4", ">f4", "f8"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bigtiff": True},
        {"rowsperstrip": 7},
        {"tile": (16, 16)},
        {"compression": "lzw"},
        {"compression": "zlib", "predictor": True},
        {"compression": "zlib", "predictor": True, "tile": (16, 16), "bigtiff": True},
    ],
    ids=lambda settings: "-".join(settings) or "plain",
)
def test_tiff_of_any_depth(tif: Path, cache: Path, dtype: str, settings: dict[str, Any]):
    pixels = noise(3, H, W, dtype=dtype)
    byteorder = ">" if dtype.startswith(">") else "<"
    tifffile.imwrite(tif, pixels, photometric="minisblack", byteorder=byteorder, **settings)
    copied = "compression" in settings or "tile" in settings
    stack = assert_holds(tif, cache, pixels[..., None], copied=copied)
    assert copied or np.dtype(stack.dtype) == np.dtype(dtype)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(
    ("shape", "axes", "settings"),
    [
        ((H, W, 3), "YXS", {"photometric": "rgb"}),
        ((3, H, W), "SYX", {"photometric": "rgb", "planarconfig": "separate"}),
        ((4, H, W, 3), "NYXS", {"photometric": "rgb"}),
        ((4, 3, H, W), "NSYX", {"photometric": "rgb", "planarconfig": "separate"}),
        ((H, W, 5), "YXS", {"photometric": "minisblack", "planarconfig": "contig"}),
        ((5, H, W), "CYX", {"photometric": "minisblack", "metadata": {"axes": "CYX"}}),
        ((2, 3, 4, H, W), "NMCYX", {"imagej": True, "metadata": {"axes": "TZCYX"}}),
        ((2, 4, H, W, 3), "NMYXS", {"imagej": True, "metadata": {"axes": "TZYXS"}}),
        ((2, 3, 4, H, W), "NCMYX", {"ome": True, "metadata": {"axes": "TCZYX"}, "photometric": "minisblack"}),
        ((2, 2, H, W, 3), "NCYXS", {"ome": True, "metadata": {"axes": "TCYXS"}, "photometric": "rgb"}),
        ((4, H, W), "NYX", {"photometric": "minisblack", "volumetric": True, "tile": (2, 16, 16)}),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_tiff_axes(
    tif: Path, cache: Path, shape: tuple[int, ...], axes: str, settings: dict[str, Any], compression: str | None
):
    pixels = noise(*shape)
    tifffile.imwrite(tif, pixels, compression=compression, **settings)
    order = [i for letters in ("NM", "Y", "X", "CS") for i, axis in enumerate(axes) if axis in letters]
    size = dict(zip(axes, shape, strict=True))
    channels = size.get("C", 1) * size.get("S", 1)
    expected = pixels.transpose(order).reshape(-1, H, W, channels)
    as_they_are = compression is None and order == sorted(order) and "tile" not in settings
    assert_holds(tif, cache, expected, copied=not as_they_are)


@pytest.mark.parametrize("settings", [{}, {"compression": "lzw"}], ids=["plain", "lzw"])
@pytest.mark.parametrize("dtype", ["u1", ">u2"])
def test_tiff_where_0_is_white_is_inverted(tif: Path, cache: Path, dtype: str, settings: dict[str, Any]):
    pixels = noise(3, H, W, dtype=dtype)
    tifffile.imwrite(tif, pixels, photometric="miniswhite", byteorder=">" if dtype == ">u2" else "<", **settings)
    assert_holds(tif, cache, (np.iinfo(dtype).max - pixels)[..., None], copied=True)


def test_the_command_for_a_palette_makes_a_file_that_is_read(tmp_path: Path, cache: Path):
    saved(RGB.convert("P"), tmp_path / "it's.png")
    with pytest.raises(ImageError, match="python -c") as caught:
        open_stack(tmp_path / "it's.png", cache)
    code = str(caught.value).partition('python -c "')[2].rstrip('"')
    exec(code, {})
    assert open_stack(tmp_path / "it's_rgb.png", cache).shape == (1, H, W, 3)


def test_tiff_of_another_writer(tif: Path, cache: Path):
    pages = [Image.fromarray(noise(H, W, 3, seed=i)) for i in range(3)]
    pages[0].save(tif, save_all=True, append_images=pages[1:], compression="tiff_lzw")
    assert_holds(tif, cache, np.stack([np.asarray(page) for page in pages]), copied=True)


def test_tiff_written_array_by_array(tif: Path, cache: Path):
    pixels = noise(2, H, W)
    with tifffile.TiffWriter(tif) as writer:
        for page in pixels:
            writer.write(page)
    assert_holds(tif, cache, pixels[..., None], copied=True)


def test_lower_levels_and_thumbnails_are_left_out(tif: Path, cache: Path):
    pixels = noise(64, 64)
    with tifffile.TiffWriter(tif) as writer:
        writer.write(pixels, subifds=1)
        writer.write(pixels[::2, ::2], subfiletype=1)
        writer.write(pixels[::5, ::5], subfiletype=1)
    assert_holds(tif, cache, pixels[None, ..., None], copied=False)


def test_tiff_with_jpeg_inside_is_rgb(tif: Path, cache: Path):
    y, x = np.mgrid[:H, :W]
    pixels = np.stack([x * 8, y * 12, 255 - 4 * x - 4 * y], -1).astype(np.uint8)  # smooth: JPEG keeps it
    tifffile.imwrite(tif, pixels, photometric="rgb", compression="jpeg", compressionargs={"level": 95})
    with tifffile.TiffFile(tif) as file:
        assert file.pages.first.photometric == tifffile.PHOTOMETRIC.YCBCR
    assert np.abs(whole(open_stack(tif, cache))[0].astype(int) - pixels).max() < 20


@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
def test_an_opaque_alpha_sample_is_dropped(tif: Path, cache: Path, planarconfig: str):
    pixels = noise(2, H, W, 4, dtype="u2")
    pixels[..., 3] = 65535
    stored = pixels if planarconfig == "contig" else np.moveaxis(pixels, -1, 1)
    tifffile.imwrite(tif, stored, photometric="rgb", planarconfig=planarconfig, extrasamples=["unassalpha"])
    assert_holds(tif, cache, pixels[..., :3], copied=True)


def test_an_extra_sample_that_is_no_alpha_is_a_channel(tif: Path, cache: Path):
    pixels = noise(H, W, 4)
    tifffile.imwrite(tif, pixels, photometric="rgb", extrasamples=["unspecified"])
    assert_holds(tif, cache, pixels[None], copied=False)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_orientation_is_honoured(tmp_path: Path, cache: Path, suffix: str, orientation: int):
    path, pixels = tmp_path / f"a{suffix}", noise(H, W, 3)
    exif = Image.Exif()
    exif[274] = orientation
    if suffix == ".tif":
        tifffile.imwrite(path, pixels, photometric="rgb", metadata=None, extratags=[(274, "H", 1, orientation, True)])
    else:
        Image.fromarray(pixels).save(path, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    assert expected.shape == ((H, W, 3) if orientation < 5 else (W, H, 3))
    assert_holds(path, cache, expected[None], copied=suffix != ".tif" or orientation > 1)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((H, W), (1, H, W, 1)),
        ((H, W, 3), (1, H, W, 3)),
        ((H, W, 19), (1, H, W, 19)),
        ((3, H, W), (3, H, W, 1)),
        ((40, 50, 33), (40, 50, 33, 1)),
        ((40, 50, 32), (1, 40, 50, 32)),
        ((2, 40, 3), (2, 40, 3, 1)),
        ((3, H, W, 2), (3, H, W, 2)),
    ],
)
def test_npy_axes(tmp_path: Path, cache: Path, shape: tuple[int, ...], expected: tuple[int, ...]):
    np.save(tmp_path / "a.npy", noise(*shape))
    assert_holds(tmp_path / "a.npy", cache, noise(*shape).reshape(expected), copied=False)


@pytest.mark.parametrize("dtype", ["i1", ">u2", "<i2", ">u4", "u8", "i8", "f2", ">f4", "f8"])
def test_npy_of_any_depth(tmp_path: Path, cache: Path, dtype: str):
    pixels = noise(3, H, W, 2, dtype=dtype)
    np.save(tmp_path / "a.npy", pixels)
    stack = assert_holds(tmp_path / "a.npy", cache, pixels, copied=False)
    assert np.dtype(stack.dtype) == pixels.dtype


def test_npy_in_fortran_order_is_copied(tmp_path: Path, cache: Path):
    pixels = noise(5, H, W, 2, dtype=">f4")
    np.save(tmp_path / "a.npy", np.asfortranarray(pixels))
    stack = assert_holds(tmp_path / "a.npy", cache, pixels, copied=True)
    np.testing.assert_array_equal(np.load(stack.path), pixels)


# Windows


@pytest.mark.parametrize("seek_bytes", [0, 10**9], ids=["row by row", "band"])
@pytest.mark.parametrize("dtype", ["u1", ">u2", "<f4"])
def test_windows_are_slices(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, seek_bytes: int):
    monkeypatch.setattr(image_stack, "SEEK_BYTES", seek_bytes)
    pixels = noise(3, H, W, 2, dtype=dtype)
    np.save(tmp_path / "a.npy", pixels)
    stack = open_stack(tmp_path / "a.npy", cache)
    for number, top, left, height, width in [
        (0, 0, 0, H, W), (2, 3, 4, 5, 6), (1, H - 1, W - 1, 1, 1), (2, 0, W - 7, H, 7), (1, 2, 0, 3, W),
    ]:  # fmt: skip
        window = stack.read(number, top, left, height, width)
        np.testing.assert_array_equal(window, pixels[number, top : top + height, left : left + width])
        assert window.dtype.isnative and window.flags.c_contiguous and window.flags.writeable
        held = window if window.base is None else window.base
        assert held.nbytes == window.nbytes, "the window keeps more than itself in memory"


@pytest.mark.slow
def test_reading_many_windows_takes_no_memory(tmp_path: Path, cache: Path):
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("resident memory is looked up in /proc")
    path, shape = tmp_path / "a.npy", (50, 1024, 2048, 2)  # 200 MB
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + int(np.prod(shape)))
    stack, rng = open_stack(path, cache), np.random.default_rng(0)

    def resident() -> int:
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    before = resident()
    for _ in range(2000):
        number, top, left = (int(rng.integers(room)) for room in (50, 1024 - 128, 2048 - 128))
        stack.read(number, top, left, 128, 128)
    assert resident() - before < 30e6


def test_a_file_cut_off_after_it_was_opened(tmp_path: Path, cache: Path):
    path = tmp_path / "a.npy"
    np.save(path, noise(H, W))
    stack = open_stack(path, cache)
    os.truncate(path, path.stat().st_size - 10)
    stack.read(0, 0, 0, H // 2, W)
    with pytest.raises(ImageError, match=r"a\.npy.*ends 10 bytes early"):
        stack.read(0, 0, 0, H, W)
    path.unlink()
    with pytest.raises(ImageError, match=r"a\.npy can no longer be read"):
        stack.read(0, 0, 0, 1, 1)


# The cache


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(noise(H, W)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_a_second_opening_decodes_nothing(
    photo: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    np.save(photo.with_suffix(".npy"), noise(H, W))
    paths = [photo, photo.with_suffix(".npy")]
    first, written = open_stacks(paths, cache), stamps(cache)
    assert "reading 2 images" in capsys.readouterr().err
    monkeypatch.setattr(image_stack, "open_image_file", lambda *_: pytest.fail("decoded again"))
    assert open_stacks(paths, cache) == first == [open_stack(path, cache) for path in paths]
    assert stamps(cache) == written
    assert capsys.readouterr() == ("", "")


def test_a_changed_file_is_decoded_again(photo: Path, cache: Path):
    before = open_stack(photo, cache)
    Image.fromarray(noise(H, W, seed=1)).save(photo)
    os.utime(photo, ns=(0, 1))
    after = open_stack(photo, cache)
    assert after.digest != before.digest
    np.testing.assert_array_equal(whole(after)[0, ..., 0], noise(H, W, seed=1))


@pytest.mark.parametrize("suffix", [".json", ".pixels"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: os.truncate(path, 60)], ids=["missing", "cut off"])
def test_a_damaged_cache_is_made_again(photo: Path, cache: Path, suffix: str, damage: Callable[[Path], None]):
    stack = open_stack(photo, cache)
    damage(next(cache.glob(f"*{suffix}")))
    assert open_stack(photo, cache) == stack
    np.testing.assert_array_equal(whole(stack)[0, ..., 0], noise(H, W))


@pytest.mark.parametrize("content", ["[]", "{}", "null", '{"path": 1, "shape": 2}', '{"path": "a", "shape": [1]}'])
def test_a_sidecar_with_other_content_is_made_again(photo: Path, cache: Path, content: str):
    stack = open_stack(photo, cache)
    next(cache.glob("*.json")).write_text(content)
    assert open_stack(photo, cache) == stack


def test_several_may_decode_the_same_at_once(photo: Path, cache: Path):
    stacks = open_stacks([photo] * 20, cache)
    assert stacks == [open_stack(photo, cache)] * 20
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".pixels"]


def test_paths_that_are_relative(photo: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(photo.parent)
    stack = open_stack(Path("a.png"), Path("cache"))
    assert stack.name == "a.png"
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(whole(stack)[0, ..., 0], noise(H, W))


def test_a_full_disk_is_not_the_pictures_fault(photo: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(image_stack.np.lib.format, "write_array_header_1_0", full)
    with pytest.raises(OSError, match=r"disk is full.*cache; set data\.cache_dir=FOLDER"):
        open_stacks([photo], cache)
    assert not list(cache.iterdir())


# What is refused


def saved(image: Image.Image, path: Path, **settings: Any) -> None:
    image.save(path, **settings)


def png_claiming(width: int, height: int) -> bytes:
    header = struct.pack(">4sIIBBBBB", b"IHDR", width, height, 8, 0, 0, 0, 0)
    chunks = [part + struct.pack(">I", zlib.crc32(part)) for part in (header, b"IDAT")]
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunks[0] + bytes(4) + chunks[1]


def encoded(suffix: str) -> bytes:
    """Return a valid file, which tests then damage."""
    file = io.BytesIO()
    match suffix:
        case ".tif":
            tifffile.imwrite(file, noise(5, H, W), compression="zlib", photometric="minisblack", metadata=None)
        case ".npy":
            np.save(file, noise(H, W))
        case _:
            Image.fromarray(noise(H, W, 3)).save(file, format=Image.registered_extensions()[suffix])
    return file.getvalue()


GREY, RGB = Image.fromarray(noise(H, W)), Image.fromarray(noise(H, W, 3))
CLEAR = np.dstack([noise(H, W, 3), np.full((H, W), 254, np.uint8)])
PALETTE = {"photometric": "palette", "colormap": noise(3, 256, dtype="u2")}
FLOATS: Any = {"data": noise(H, W, dtype="f4"), "photometric": "miniswhite"}
REFUSED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "palette": ("a.png", lambda path: saved(RGB.convert("P"), path), r"palette .* convert it: python -c .*a_rgb\.png"),
    "one bit": ("a.png", lambda path: saved(GREY.convert("1"), path), "1 bit each; give"),
    "cmyk": ("a.jpg", lambda path: saved(RGB.convert("CMYK"), path), r"CMYK.* python -c"),
    "alpha": ("a.png", lambda path: saved(Image.fromarray(CLEAR), path), "transparent pixels; save it without"),
    "alpha webp": ("a.webp", lambda path: saved(Image.fromarray(CLEAR), path), "transparent pixels"),
    "alpha 16": ("a.png", lambda path: path.write_bytes(imagecodecs.png_encode(noise(H, W, 4, dtype="u2"))), "transp"),
    "colour key": ("a.png", lambda path: saved(RGB, path, transparency=(1, 2, 3)), "transparent pixels"),
    "moving png": ("a.png", lambda path: saved(RGB, path, save_all=True, append_images=[RGB.rotate(90)]), "2 frames"),
    "moving webp": ("a.webp", lambda path: saved(RGB, path, save_all=True, append_images=[RGB.rotate(90)]), "2 frames"),
    "gif in png": ("a.png", lambda path: saved(GREY, path, format="GIF"), "cannot identify image file"),
    "bomb": ("a.png", lambda path: path.write_bytes(png_claiming(40000, 40000)), "40000x40000 px, more than"),
    "tiff alpha": ("a.tif", lambda path: tifffile.imwrite(path, CLEAR, photometric="rgb"), "transparent pixels"),
    "tiff palette": ("a.tif", lambda path: tifffile.imwrite(path, noise(H, W), **PALETTE), "palette .* Fiji"),
    "tiff cmyk": ("a.tif", lambda path: tifffile.imwrite(path, CLEAR, photometric="separated"), "CMYK.* Fiji"),
    "tiff white": ("a.tif", lambda path: tifffile.imwrite(path, **FLOATS), "0 is white"),
    "tiff ycbcr": ("a.tif", lambda path: saved(RGB.convert("YCbCr"), path), "YCBCR; save"),
    "tiff one bit": ("a.tif", lambda path: tifffile.imwrite(path, noise(H, W) > 9, photometric="minisblack"), "bool"),
    "tiff complex": ("a.tif", lambda path: tifffile.imwrite(path, noise(H, W) + 1j), "complex128; convert"),
    "tiff sizes": ("a.tif", lambda path: saved(GREY, path, save_all=True, append_images=[GREY.crop((0, 0, 9, 9))]),
                   "20x30x1 uint8, 9x9x1 uint8"),
    "tiff axes": ("a.tif", lambda path: tifffile.imwrite(path, noise(H, W), metadata={"axes": "ZX"}), "axes ZX"),
    "npy 1 axis": ("a.npy", lambda path: np.save(path, noise(H)), r"1 axes; save it as \(H, W\)"),
    "npy 5 axes": ("a.npy", lambda path: np.save(path, noise(1, 1, 1, H, W)), "5 axes"),
    "npy bool": ("a.npy", lambda path: np.save(path, noise(H, W) > 9), "type bool; convert"),
    "npy complex": ("a.npy", lambda path: np.save(path, noise(H, W) * 1j), "complex128"),
    "npy objects": ("a.npy", lambda path: np.save(path, np.full((H, W), None), allow_pickle=True), "objects"),
    "npy empty": ("a.npy", lambda path: np.save(path, noise(0, H, W)), "a.npy"),
    "npz": ("a.npy", lambda path: path.write_bytes(np_archive()), "archive; save one array"),
    "missing": ("a.png", lambda path: None, "FileNotFoundError"),
    "folder": ("a.png", lambda path: path.mkdir(), "IsADirectoryError|PermissionError"),
}  # fmt: skip


def np_archive() -> bytes:
    file = io.BytesIO()
    np.savez(file, noise(H, W))
    return file.getvalue()


@pytest.mark.parametrize(("name", "write", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(tmp_path: Path, cache: Path, name: str, write: Callable[[Path], object], message: str):
    path = tmp_path / name
    write(path)
    with pytest.raises(ImageError, match=message) as caught:
        open_stack(path, cache)
    assert str(caught.value).startswith(f"{path} ") and "; " in str(caught.value)
    assert not cache.exists() or not list(cache.iterdir())


@pytest.mark.parametrize("suffix", [".bmp", ".jpg", ".npy", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("kept", [0, 3, 8, 40, 0.5, 0.9], ids=str)
def test_what_was_cut_off_is_refused(tmp_path: Path, cache: Path, suffix: str, kept: float):
    data = encoded(suffix)
    (tmp_path / f"a{suffix}").write_bytes(data)
    open_stack(tmp_path / f"a{suffix}", cache)
    (tmp_path / f"b{suffix}").write_bytes(data[: int(kept if kept >= 1 else kept * len(data))])
    with pytest.raises(ImageError, match=rf"b\{suffix} is empty; remove it" if not kept else rf"b\{suffix} .*fix or"):
        open_stack(tmp_path / f"b{suffix}", cache)


@pytest.mark.parametrize("settings", [{}, {"imagej": True}, {"metadata": None}, {"rowsperstrip": 3}], ids=str)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_an_uncompressed_tiff_that_was_cut_off(tif: Path, cache: Path, settings: dict[str, Any], kept: float):
    tifffile.imwrite(tif, noise(10, 100, 100), photometric="minisblack", **settings)
    os.truncate(tif, int(kept * tif.stat().st_size))
    with pytest.raises(ImageError, match=r"a\.tif .*fix or remove it"):
        open_stack(tif, cache)


def test_a_tiff_whose_tiles_are_not_all_there(tif: Path, cache: Path):
    tifffile.imwrite(tif, noise(64, 64), tile=(16, 16))
    with tifffile.TiffFile(tif, mode="r+") as file:
        tag = file.pages.first.tags["TileByteCounts"]
        tag.overwrite([*tag.value[:5], 0, *tag.value[6:]])
    with pytest.raises(ImageError, match=r"a\.tif lacks strips or tiles of page 1"):
        open_stack(tif, cache)


def test_a_tiff_that_claims_any_size(tif: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    tifffile.imwrite(tif, noise(H, W), compression="zlib")
    monkeypatch.setattr(image_stack, "MAX_COPY_BYTES", H * W - 1)
    with pytest.raises(ImageError, match=r"a\.tif would take .* GB decoded"):
        open_stack(tif, cache)
    with tifffile.TiffFile(tif, mode="r+") as file:
        file.pages.first.tags["ImageLength"].overwrite(2**31)
    with pytest.raises(ImageError, match=r"a\.tif lacks strips or tiles of page 1"):
        open_stack(tif, cache)


@pytest.mark.parametrize("name", ["a.npy", "a.tif", "compressed.tif"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_numbers(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: float
):
    monkeypatch.setattr(image_stack, "BLOCK_BYTES", 100)
    pixels = noise(3, H, W, 2, dtype="f4")
    pixels[1, 3, 5, 1] = pixels[1, 3, 5, 0] = pixels[1, 4, 0, 0] = pixels[2, 0, 0, 1] = value
    if name == "a.npy":
        np.save(tmp_path / name, pixels)
    else:
        compression = "zlib" if name == "compressed.tif" else None
        settings: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig", "compression": compression}
        tifffile.imwrite(tmp_path / name, pixels, **settings)
    message = "has 3 pixels that are NaN or infinite, the first at image 2, row 3, column 5; fix or remove it"
    with pytest.raises(ImageError, match=f"{name} {message}"):
        open_stack(tmp_path / name, cache)
    assert not cache.exists() or not list(cache.iterdir())


def test_pillows_own_limit_of_pixels_is_left_as_it_was(photo: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Pillow raises above twice that
    open_stack(photo, cache)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_one_bad_file_among_good_ones(photo: Path, cache: Path):
    bad = photo.with_name("b.png")
    bad.write_bytes(b"no picture")
    first, second, third = open_stacks([photo, bad, photo], cache)
    assert first == third == open_stack(photo, cache)
    assert isinstance(second, ImageError) and str(second).startswith(f"{bad} cannot be read")


# Listing


def test_listing(photo: Path):
    folder = photo.parent
    (folder / "sub").mkdir()
    for name in ("sub/z.TIFF", "sub/b.npy", "notes.txt"):
        (folder / name).write_bytes(b"")
    assert list_images(folder) == [folder / name for name in ("a.png", "sub/b.npy", "sub/z.TIFF")]
    (folder / "nothing").mkdir()
    with pytest.raises(ValueError, match=r"holds no images \(\.bmp .*\); give a folder that does"):
        list_images(folder / "nothing")


# Outliers, copies and axes


def test_a_few_values_far_out_are_counted_and_do_not_set_the_limits(tmp_path: Path, cache: Path):
    pixels = np.random.default_rng(0).normal(1000, 50, (2, 64, 64)).astype(np.uint16)
    expected = pixels.min(), pixels.max()
    pixels[0, 3, 4], pixels[1, 5, 6] = 65535, 0
    np.save(tmp_path / "a.npy", pixels)
    stack = open_stack(tmp_path / "a.npy", cache)
    assert (stack.low, stack.high, stack.outliers) == (*expected, 2)


def test_small_bright_things_are_no_outliers(tmp_path: Path, cache: Path):
    pixels = np.random.default_rng(0).normal(1000, 50, (2, 64, 64)).astype(np.uint16)
    pixels[:, 10:13, 10:13] = 60000
    np.save(tmp_path / "a.npy", pixels)
    stack = open_stack(tmp_path / "a.npy", cache)
    assert (stack.high, stack.outliers) == (60000, 0)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
def test_copies_have_one_digest_in_any_format(tmp_path: Path, cache: Path, suffix: str):
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 256, (2, H, W, 3), dtype=np.uint8)
    write(tmp_path / f"a{suffix}", one)
    np.save(tmp_path / "b.npy", np.stack([other, one, other]))
    first, pages = (open_stack(tmp_path / name, cache).image_digests for name in (f"a{suffix}", "b.npy"))
    assert first == pages[1:2] and pages[0] == pages[2] != pages[1]


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif"])
def test_axes_of_images_come_from_the_files_metadata(tmp_path: Path, cache: Path, name: str):
    pixels = np.random.default_rng(0).integers(0, 999, (5, 4, 2, H, W)).astype(np.uint16)
    options = {} if "ome" in name else {"imagej": True}
    tifffile.imwrite(tmp_path / name, pixels, metadata={"axes": "TZCYX"}, **options)
    assert open_stack(tmp_path / name, cache).image_axes == (("T", 5), ("Z", 4))


def test_what_counts_pages_without_metadata_is_not_known(tmp_path: Path, cache: Path):
    pages = np.random.default_rng(0).integers(0, 999, (5, H, W)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pages, photometric="minisblack", metadata=None)
    assert open_stack(tmp_path / "a.tif", cache).image_axes == (("?", 5),)
