"""NPY, PNG, WebP, BMP and JPEG files out of ``predict``: what the net does not change is as it was."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from known_nets import ICC, Array, Negative, denoised, fresh, ramp, refusal, replaced
from PIL import Image, JpegImagePlugin

H, W = 37, 45
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><about>nothing</about></x:xmpmeta>'
PASSES = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]  # Adam7
Chunk = tuple[bytes, bytes]


def exif(orientation: int = 1) -> bytes:
    found = Image.Exif()
    found[274], found[271], found[306] = orientation, "a maker", "2020:02:03 04:05:06"
    found.get_ifd(0x8769)[0x927C] = b"a maker's note"
    return found.tobytes()


@pytest.mark.parametrize("suffix", [".bmp", ".jpg", ".png", ".webp"])
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, W, 3), (H, 1, 3)], ids=str)
def test_the_smallest(tmp_path: Path, suffix: str, shape: tuple[int, ...]):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(ramp(*shape)).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    with Image.open(path) as old, Image.open(denoised(path)) as new:
        difference = np.asarray(new).astype(int) - np.asarray(old)
    assert difference.shape == shape and np.abs(difference).max() <= (8 if suffix == ".jpg" else 0)


# NPY


@pytest.mark.parametrize(
    ("dtype", "order"),
    [*zip(["u1", "i1", "<u2", ">u2", ">i2", "<u4", "<i8", "f2", ">f4", "f8"], "CF" * 5, strict=True)],
)
@pytest.mark.parametrize("shape", [(H, W), (H, W, 3), (4, H, W), (2, H, W, 5)], ids=str)
def test_arrays(tmp_path: Path, shape: tuple[int, ...], dtype: str, order: str):
    path, values = tmp_path / "a.npy", ramp(*shape, dtype=dtype)
    np.save(path, np.asarray(values, order=order))
    assert denoised(path).read_bytes() == path.read_bytes()
    others = fresh(*shape, dtype=dtype)
    np.save(tmp_path / "b.npy", np.asarray(others, order=order))
    assert replaced(path, others).read_bytes() == (tmp_path / "b.npy").read_bytes()


# PNG


def as_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(pixels: Array, before: Sequence[Chunk] = (), after: Sequence[Chunk] = (), interlaced: bool = False) -> bytes:
    """(H, W, C) as a PNG file, with chunks before and after the pixels'; written by hand."""
    height, width, channels = pixels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, kind, 0, 0, interlaced)
    parts = [pixels[y::dy, x::dx] for y, x, dy, dx in PASSES] if interlaced else [pixels]
    rows = b"".join(b"\0" + row.astype(f">u{row.itemsize}").tobytes() for part in parts if part.size for row in part)
    chunks = [(b"IHDR", header), *before, (b"IDAT", zlib.compress(rows)), *after, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(as_chunk(*chunk) for chunk in chunks)


def chunks_of(path: Path) -> tuple[list[Chunk], list[Chunk]]:
    """Those before and those after the pixels', once all their check sums have been seen to be right."""
    content, start, found = path.read_bytes(), 8, []
    while start < len(content):
        (length,) = struct.unpack_from(">I", content, start)
        found.append((content[start + 4 : start + 8], content[start + 8 : start + 8 + length]))
        assert content[start : start + 12 + length] == as_chunk(*found[-1])
        start += 12 + length
    kinds = [kind for kind, _ in found]
    assert kinds[0] == b"IHDR" and kinds[-1] == b"IEND"
    pixels = [place for place, kind in enumerate(kinds) if kind == b"IDAT"]
    assert pixels == list(range(pixels[0], pixels[-1] + 1))
    return found[1 : pixels[0]], found[pixels[-1] + 1 : -1]


def png_values(path: Path) -> Array:
    values: Array = imagecodecs.png_decode(path.read_bytes())
    return values.reshape(*values.shape[:2], -1)


@pytest.mark.parametrize("interlaced", [False, True], ids=["in order", "interlaced"])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png(tmp_path: Path, channels: int, dtype: str, interlaced: bool):
    path, values = tmp_path / "a.png", fresh(H, W, channels, dtype=dtype)
    if channels in (2, 4):
        values[:9, ..., -1] = 0  # out of sight, but not out of the file
        values[9:20, ..., -1] = np.iinfo(dtype).max
    path.write_bytes(png(values, interlaced=interlaced))
    found = png_values(denoised(path))
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found, values)
    negative = np.iinfo(dtype).max - values
    if channels in (2, 4):
        negative[..., -1] = values[..., -1]
    np.testing.assert_array_equal(png_values(denoised(path, net=Negative)), negative)
    if dtype == "u1":
        np.testing.assert_array_equal(np.asarray(Image.open(denoised(path))).reshape(values.shape), values)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_chunks_of_a_png_stay(tmp_path: Path, dtype: str):
    before = [
        (b"gAMA", struct.pack(">I", 30000)),
        (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
        (b"iCCP", b"a profile\0\0" + zlib.compress(ICC)),
        (b"sBIT", bytes([5, 6, 5])),
        (b"bKGD", bytes(6)),
        (b"pHYs", struct.pack(">IIB", 3937, 7874, 1)),
        (b"tEXt", b"Title\0A title"),
        (b"prVt", b"private"),
    ]
    after = [
        (b"tIME", struct.pack(">HBBBBB", 2020, 2, 3, 4, 5, 6)),
        (b"zTXt", b"Comment\0\0" + zlib.compress(b"a comment")),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        (b"eXIf", exif(6).removeprefix(b"Exif\0\0")),
    ]
    path, values = tmp_path / "a.png", fresh(H, W, 3, dtype=dtype)
    path.write_bytes(png(values, before, after))
    output = denoised(path)
    assert chunks_of(output) == (before, after)
    np.testing.assert_array_equal(png_values(output), values)
    with Image.open(output) as image:
        image.load()
        assert image.info["icc_profile"] == ICC and image.getexif()[274] == 6 and image.info["Title"] == "A title"


def test_a_png_without_an_end(tmp_path: Path):
    path, values = tmp_path / "a.png", fresh(H, W, 3)
    path.write_bytes(png(values, before=[(b"tEXt", b"Title\0A title")])[:-12])
    output = denoised(path)
    assert chunks_of(output) == ([(b"tEXt", b"Title\0A title")], [])
    np.testing.assert_array_equal(png_values(output), values)


@pytest.mark.parametrize("bits", [2, 4])
def test_a_png_of_few_bits_takes_8(tmp_path: Path, bits: int):
    path, values = tmp_path / "a.png", fresh(H, W) >> 8 - bits
    places = np.arange(bits)[::-1]
    rows = np.packbits((values[..., None] >> places & 1).reshape(H, -1), axis=1)
    header = struct.pack(">IIBBBBB", W, H, bits, 0, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = [(b"IHDR", header), (b"bKGD", struct.pack(">H", 1)), (b"IDAT", data), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(as_chunk(*chunk) for chunk in chunks))
    np.testing.assert_array_equal(np.asarray(Image.open(denoised(path))), values * (255 // (2**bits - 1)))


# WebP and BMP


@pytest.mark.parametrize("channels", [3, 4])
def test_webp(tmp_path: Path, channels: int):
    path, values = tmp_path / "a.webp", fresh(H, W, channels)
    if channels == 4:
        values[:9, ..., 3] = 0
    Image.fromarray(values).save(path, lossless=True, exact=True, exif=exif(6), icc_profile=ICC, xmp=XMP)
    negative = 255 - values
    negative[..., 3:] = values[..., 3:]
    with Image.open(denoised(path)) as same, Image.open(path) as old:
        np.testing.assert_array_equal(np.asarray(same), values)
        for key in ("exif", "icc_profile", "xmp"):
            assert same.info[key] == old.info[key]
    np.testing.assert_array_equal(imagecodecs.webp_decode(denoised(path, net=Negative).read_bytes()), negative)


@pytest.mark.parametrize("dpi", [(72, 144), (0, 0)])
@pytest.mark.parametrize("shape", [(H, W), (H, W, 3)], ids=str)
def test_bmp(tmp_path: Path, shape: tuple[int, ...], dpi: tuple[int, int]):
    path, values = tmp_path / "a.bmp", fresh(*shape)
    Image.fromarray(values).save(path, dpi=dpi)
    output = denoised(path)
    assert output.read_bytes() == path.read_bytes()
    np.testing.assert_array_equal(imagecodecs.bmp_decode(output.read_bytes(), asrgb=len(shape) == 3), values)


def test_a_bmp_with_alpha_is_refused(tmp_path: Path):
    """Which no writer here knows."""
    pixels = fresh(H, W, 4)
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, W, H, 1, 32, 3, pixels.nbytes, 0, 0, 0, 0) + masks + bytes(52)
    start = struct.pack("<2sIHHI", b"BM", 14 + 108 + pixels.nbytes, 0, 0, 14 + 108)
    (tmp_path / "a.bmp").write_bytes(start + header + pixels.tobytes())
    with Image.open(tmp_path / "a.bmp") as image:
        assert image.mode == "RGBA"
    assert "4 channels with alpha, which bmp does not hold; give --format png" in refusal(tmp_path / "a.bmp")


# JPEG


@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
@pytest.mark.parametrize("subsampling", [0, 1, 2], ids=["4:4:4", "4:2:2", "4:2:0"])
def test_jpeg(tmp_path: Path, subsampling: int, progressive: bool):
    path, pixels = tmp_path / "a.jpg", np.dstack([ramp(H, W), 3 * ramp(H, W), 200 - 2 * ramp(H, W)])
    settings: dict[str, Any] = {"quality": 80, "subsampling": subsampling, "progressive": progressive}
    about = {"exif": exif(6), "icc_profile": ICC, "xmp": XMP, "dpi": (72, 144), "comment": b"a comment"}
    Image.fromarray(pixels).save(path, **settings, **about)
    output = denoised(path)
    Image.fromarray(pixels).save(tmp_path / "b.jpg", quality=95)
    with Image.open(path) as old, Image.open(output) as new, Image.open(tmp_path / "b.jpg") as reference:
        difference = np.abs(np.asarray(new).astype(int) - np.asarray(old))
        assert difference.max() <= 8 and difference.mean() < 1
        assert JpegImagePlugin.get_sampling(new) == subsampling
        assert new.quantization == reference.quantization
        assert {key: new.info[key] for key in about} == about


def test_grey_jpeg(tmp_path: Path):
    path = tmp_path / "a.jpeg"
    Image.fromarray(ramp(H, W) * 3).save(path, quality=90)
    with Image.open(path) as old, Image.open(denoised(path)) as new:
        assert new.mode == "L"
        assert np.abs(np.asarray(new).astype(int) - np.asarray(old)).max() <= 3


def test_a_jpeg_with_previews_goes_out_without(tmp_path: Path):
    path, first = tmp_path / "a.jpg", Image.fromarray(ramp(H, W, 3))
    first.save(path, "MPO", save_all=True, append_images=[first.rotate(180)], quality=90, subsampling=1)
    with Image.open(path) as old, Image.open(denoised(path)) as new:
        assert (old.format, new.format) == ("MPO", "JPEG")
        assert JpegImagePlugin.get_sampling(new) == 1
        assert np.abs(np.asarray(new).astype(int) - np.asarray(old)).max() <= 8
