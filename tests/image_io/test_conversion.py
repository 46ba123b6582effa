"""Denoised files written in another format: the same values, upright, with the metadata that the format can hold."""

from __future__ import annotations

import struct
from itertools import product
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from known_nets import ICC, Array, denoised, fresh, ramp, refusal, with_opacity
from PIL import Image, ImageOps, JpegImagePlugin, PngImagePlugin

from n2n_lightning.image_io.decoding import open_image_file
from n2n_lightning.image_io.encoding import JPEG_QUALITY, PNG_SIGNATURE, as_chunk, png_chunks
from n2n_lightning.image_io.formats import FORMAT_SUFFIXES

H, W = 37, 45
DPI = (100, 200)


def write(path: Path, values: Array) -> Path:
    """Write (H, W, C) or (N, H, W, C) in the format of the suffix."""
    pixels = values[..., 0] if values.shape[-1] == 1 else values
    match path.suffix:
        case ".npy":
            np.save(path, pixels)
        case ".tif":
            channels = values.shape[-1]
            alpha = ["unassalpha"] if channels in (2, 4) else None
            photometric = "rgb" if channels in (3, 4) else "minisblack"
            planarconfig = "contig" if channels > 1 else None
            tifffile.imwrite(path, pixels, photometric=photometric, planarconfig=planarconfig, extrasamples=alpha)
        case ".png":
            path.write_bytes(imagecodecs.png_encode(pixels))
        case _:
            Image.fromarray(pixels).save(path, **({"lossless": True, "exact": True} if path.suffix == ".webp" else {}))
    return path


def read(path: Path) -> Array:
    """Read (H, W, C) or (N, H, W, C) by other readers than the package's, where there are any."""
    found: Array
    match path.suffix:
        case ".npy":
            found = np.load(path)
        case ".tif":
            with tifffile.TiffFile(path) as tiff:
                pages = [page.asarray() for page in tiff.pages]
            found = pages[0] if len(pages) == 1 else np.stack(pages)
        case ".png":
            found = imagecodecs.png_decode(path.read_bytes())
        case _:
            found = np.asarray(Image.open(path))
    return found


LOSSLESS = (".bmp", ".npy", ".png", ".tif")
CASES = [  # from, to, channels, type
    *product(LOSSLESS, FORMAT_SUFFIXES, (1, 3), ["u1"]),
    *product((".webp", ".jpg"), FORMAT_SUFFIXES, [3], ["u1"]),
    *product((".png", ".webp", ".tif"), ("png", "webp", "tiff"), [4], ["u1"]),
    *product((".png", ".tif"), ("png", "tiff"), [2], ["u1"]),
    *product((".png", ".tif"), ("png", "tiff"), (1, 2, 3, 4), ["u2"]),
    *product((".npy", ".tif"), ("npy", "tiff"), [3], ("i2", ">f4", "f2")),
    *product((".npy", ".tif"), ("npy", "tiff"), [5], ["f8"]),
]


@pytest.mark.parametrize(
    ("suffix", "form", "channels", "dtype"), [case for case in CASES if case[1:3] != ("webp", 1)], ids=str
)
def test_values(tmp_path: Path, suffix: str, form: str, channels: int, dtype: str):
    whole = dtype.startswith("u") and form != "jpeg"
    values = fresh(H, W, channels, dtype=dtype) if whole else ramp(H, W, channels, dtype=dtype) * 2
    path = write(tmp_path / f"a{suffix}", with_opacity(values) if suffix == ".tif" and channels in (2, 4) else values)
    expected = read(path)
    found = read(denoised(path, FORMAT_SUFFIXES[form], form))
    assert found.shape == expected.shape and found.dtype == np.dtype(dtype).newbyteorder("=")
    if form == "jpeg":
        assert np.abs(found.astype(int) - expected).max() <= 8
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("form", ["npy", "tiff"])
@pytest.mark.parametrize("suffix", [".npy", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_several_images(tmp_path: Path, suffix: str, form: str, channels: int):
    path = write(tmp_path / f"a{suffix}", ramp(4, H, W, channels, dtype="u2"))
    np.testing.assert_array_equal(read(denoised(path, FORMAT_SUFFIXES[form], form)), read(path))


def test_slices_of_a_volume_are_images(tmp_path: Path):
    volume, path = ramp(4, H, W), tmp_path / "a.tif"
    tifffile.imwrite(path, volume, photometric="minisblack", volumetric=True, tile=(2, 16, 16), compression="zlib")
    for form in ("npy", "tiff"):
        np.testing.assert_array_equal(read(denoised(path, FORMAT_SUFFIXES[form], form)), volume)


def test_channels_of_their_own_become_colours(tmp_path: Path):
    planes, path = fresh(3, H, W), tmp_path / "a.tif"
    tifffile.imwrite(path, planes, ome=True, metadata={"axes": "CYX"}, photometric="minisblack")
    np.testing.assert_array_equal(read(denoised(path, ".png", "png")), np.moveaxis(planes, 0, -1))


@pytest.mark.parametrize(
    "shape", [(1, 2, 40, 3), (40, 50, 3, 1), (1, 60, 60, 33), (1, 60, 60, 32), (3, H, W, 1)], ids=str
)
def test_an_array_is_read_as_it_was_meant(tmp_path: Path, shape: tuple[int, ...]):
    """(40, 50, 3) could be one image of three channels, or forty of one."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for image in ramp(*shape):
            layout = {"planarconfig": "contig"} if shape[3] > 1 else {}
            writer.write(image.squeeze(), photometric="minisblack", metadata=None, **layout)
    output = denoised(tmp_path / "a.tif", ".npy", "npy")
    with open_image_file(output) as image:
        assert (image.count, *image.shape[1:]) == shape
    np.testing.assert_array_equal(np.load(output).reshape(shape), ramp(*shape))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("suffix", "form"),
    [
        *product([".jpg"], sorted(FORMAT_SUFFIXES.keys() - {"jpeg"})),
        (".png", "jpeg"),
        (".webp", "png"),
        (".tif", "webp"),
    ],
    ids=str,
)
def test_upright(tmp_path: Path, suffix: str, orientation: int, form: str):
    path, about = tmp_path / f"a{suffix}", Image.Exif()
    about[274], about[271] = orientation, "a maker"
    pixels = np.dstack([ramp(H, W), 3 * ramp(H, W), 200 - 2 * ramp(H, W)])
    if suffix == ".tif":
        tifffile.imwrite(path, pixels, photometric="rgb", metadata=None, extratags=[(274, "H", 1, orientation, True)])
    else:
        Image.fromarray(pixels).save(path, exif=about, lossless=True)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    output = denoised(path, FORMAT_SUFFIXES[form], form)
    np.testing.assert_allclose(read(output).astype(int), expected, atol=8 if form == "jpeg" else 0)
    if form not in ("npy", "bmp"):
        with Image.open(output) as image:
            assert image.getexif().get(274, 1) == 1
            assert form == "tiff" or suffix == ".tif" or image.getexif()[271] == "a maker"


@pytest.mark.parametrize("has_end", [True, False])
def test_what_follows_a_pngs_pixels_counts(tmp_path: Path, has_end: bool):
    """The EXIF data stand after the pixels, and some files lack the last chunk."""
    path, about = tmp_path / "a.png", Image.Exif()
    about[274] = 6
    values = fresh(H, W, 3)
    Image.fromarray(values).save(path, exif=about)
    chunks = list(png_chunks(path.read_bytes()))
    ordered = sorted(chunks, key=lambda chunk: [b"IHDR", b"IDAT", b"eXIf", b"IEND"].index(chunk[0]))
    kept = ordered if has_end else ordered[:-1]
    path.write_bytes(PNG_SIGNATURE + b"".join(as_chunk(*chunk) for chunk in kept))
    np.testing.assert_array_equal(read(denoised(path, ".tif", "tiff")), np.rot90(values, -1))
    np.testing.assert_array_equal(read(denoised(path)), values)
    assert [kind for kind, _ in png_chunks((path.parent / "denoised/a.png").read_bytes()) if kind != b"IDAT"] == [
        b"IHDR",
        b"eXIf",
        b"IEND",
    ]


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_a_png_is_decoded_alike_for_every_use(tmp_path: Path, mode: str):
    values = fresh(H, W, len(mode))
    Image.fromarray(values.squeeze(-1) if mode == "L" else values, mode).save(tmp_path / "a.png")
    for is_upright_first in (True, False):
        with open_image_file(tmp_path / "a.png") as image:
            assert not is_upright_first or image.upright_shape[1:3] == (H, W)
            np.testing.assert_array_equal(image.read(0, 0, H)[0], values)


def test_orientation_of_xmp(tmp_path: Path):
    """Readers use the orientation in XMP where EXIF has none."""
    path, pixels = tmp_path / "a.webp", fresh(H, W, 3)
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    Image.fromarray(pixels).save(path, xmp=xmp, lossless=True)
    upright = ImageOps.exif_transpose(Image.open(path))
    assert upright.size == (H, W)
    for form in ("png", "jpeg"):
        with Image.open(denoised(path, FORMAT_SUFFIXES[form], form)) as image:
            assert image.size == ImageOps.exif_transpose(image).size == (H, W)
            assert image.info["xmp"] == xmp.replace(b'"6"', b'"1"')


CARRIED = {  # by Pillow's names
    ".jpg": {"icc_profile", "dpi", "exif", "xmp", "comment"},
    ".png": {"icc_profile", "dpi", "exif", "xmp"},
    ".webp": {"icc_profile", "exif", "xmp"},
    ".tif": {"icc_profile", "dpi", "xmp"},
    ".bmp": {"dpi"},
}


@pytest.mark.parametrize("target", CARRIED)
@pytest.mark.parametrize("source", CARRIED)
def test_metadata(tmp_path: Path, source: str, target: str):
    about: dict[str, Any] = {"icc_profile": ICC, "dpi": DPI, "xmp": b"<x:xmpmeta/>", "comment": b"a comment"}
    about["exif"] = exif = Image.Exif()
    exif[271] = "a maker"
    settings = {key: about[key] for key in CARRIED[source]}
    if source == ".png":
        settings["pnginfo"] = PngImagePlugin.PngInfo()
        settings["pnginfo"].add_itxt("XML:com.adobe.xmp", "<x:xmpmeta/>")
    if source == ".tif":
        settings["tiffinfo"] = {700: about["xmp"]}
    Image.fromarray(ramp(H, W, 3)).save(tmp_path / f"a{source}", **settings)
    form = next(form for form, suffix in FORMAT_SUFFIXES.items() if suffix == target)
    with Image.open(denoised(tmp_path / f"a{source}", target, form)) as image:
        found = image.info | {"exif": image.getexif()}
    for key in CARRIED[source] & CARRIED[target]:
        if key == "exif":
            assert found["exif"][271] == "a maker"
        elif key == "dpi":
            assert found["dpi"] == pytest.approx(DPI, rel=1e-3)
        else:
            assert found[key] == about[key]


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_moves_as_it_is(tmp_path: Path, order: str):
    """Offsets in makers' notes and of the thumbnail count from the first byte of EXIF, so that no byte may move."""
    entries = [(271, 2, 4, b"me\0\0"), (274, 3, 1, struct.pack(f"{order}HH", 6, 0)), (37500, 7, 4, b"note")]
    packed = [struct.pack(f"{order}HHI", *entry[:3]) + entry[3] for entry in entries]
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IH", 8, len(entries))
    start, exif = b"Exif\0\0", head + b"".join(packed) + bytes(4) + b"what the note is about"
    Image.fromarray(fresh(H, W, 3)).save(tmp_path / "a.webp", exif=start + exif, lossless=True)
    for form, suffix in (("jpeg", ".jpg"), ("png", ".png")):
        with Image.open(denoised(tmp_path / "a.webp", suffix, form)) as image:
            image.load()
            turned = struct.pack(f"{order}HHIHH", 274, 3, 1, 6, 0), struct.pack(f"{order}HHIHH", 274, 3, 1, 1, 0)
            assert image.size == (H, W)
            assert image.info["exif"].removeprefix(start) == exif.replace(*turned)


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0no tags at all", b"Exif\0\0II*\0\x08\0\0\0\x09\0"], ids=str)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # which it is
def test_damaged_exif_is_no_hindrance(tmp_path: Path, exif: bytes):
    Image.fromarray(ramp(H, W, 3)).save(tmp_path / "a.jpg", exif=exif)
    for form, suffix in ((None, ".jpg"), ("png", ".png"), ("tiff", ".tif")):
        with Image.open(denoised(tmp_path / "a.jpg", suffix, form)) as image:
            assert image.size == (W, H)


@pytest.mark.parametrize("form", ["bmp", "jpeg", "png", "tiff"])
@pytest.mark.parametrize("dpi", [254_000, 10**9, 0.1])
def test_resolution_is_right_or_left_out(tmp_path: Path, dpi: float, form: str):
    """A microscope's resolution is more than JPEG can hold."""
    tifffile.imwrite(tmp_path / "a.tif", ramp(H, W, 3), photometric="rgb", resolution=(dpi, dpi), resolutionunit="INCH")
    with Image.open(denoised(tmp_path / "a.tif", FORMAT_SUFFIXES[form], form)) as image:
        found = image.info.get("dpi", (0, 0))
    held = form == "tiff" or (dpi == 254_000 and form != "jpeg") or (dpi == 0.1 and form == "bmp")
    assert found == pytest.approx((dpi, dpi) if held else (0, 0), rel=0.02)


@pytest.mark.parametrize("form", ["bmp", "jpeg", "png"])
def test_no_resolution_stays_none(tmp_path: Path, form: str):
    Image.fromarray(ramp(H, W)).save(tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert 282 not in tiff.pages.first.tags
    with Image.open(denoised(tmp_path / "a.tif", FORMAT_SUFFIXES[form], form)) as image:
        assert image.info.get("dpi", (0, 0)) == (0, 0)


def test_a_file_that_has_the_format_already_stays_as_it_is(tmp_path: Path):
    tiff, jpeg, about = tmp_path / "a.tif", tmp_path / "b.jpg", Image.Exif()
    tifffile.imwrite(tiff, fresh(H, W), description="ours", software="a microscope's", compression="lzw")
    about[274] = 6
    Image.fromarray(ramp(H, W, 3)).save(jpeg, exif=about)
    assert denoised(tiff, ".tif", "tiff").read_bytes() == denoised(tiff, ".tif").read_bytes() == tiff.read_bytes()
    with Image.open(denoised(jpeg, ".jpg", "jpeg")) as image:
        assert image.size == (W, H) and image.getexif()[274] == 6


def test_jpeg_of_another_format_keeps_all_colours(tmp_path: Path):
    path = write(tmp_path / "a.png", ramp(H, W, 3))
    Image.fromarray(ramp(H, W, 3)).save(tmp_path / "b.jpg", quality=JPEG_QUALITY)
    with Image.open(denoised(path, ".jpg", "jpeg")) as image, Image.open(tmp_path / "b.jpg") as reference:
        assert JpegImagePlugin.get_sampling(image) == 0
        assert image.quantization == reference.quantization


IMPOSSIBLE = [
    ((H, W), "f4", ".tif", "png", "float32 values, which png does not hold; give --format tiff or npy"),
    ((H, W), "f4", ".npy", "jpeg", "float32 values"),
    ((H, W, 3), "u2", ".png", "webp", "uint16 values"),
    ((H, W, 3), "u2", ".tif", "bmp", "uint16 values"),
    ((H, W), "u4", ".tif", "png", "uint32 values"),
    ((H, W), "i1", ".npy", "png", "int8 values"),
    ((H, W, 4), "u1", ".png", "jpeg", "4 channels with alpha, which jpeg does not hold; give --format png"),
    ((H, W, 4), "u1", ".webp", "bmp", "4 channels with alpha"),
    ((H, W, 2), "u1", ".tif", "webp", "2 channels with alpha"),
    ((H, W, 1), "u1", ".bmp", "webp", "1 channels, which webp does not hold"),
    ((H, W, 5), "u1", ".npy", "webp", "5 channels, which webp does not hold"),
    ((H, W, 4), "u1", ".npy", "png", "4 channels, which png does not hold"),
    ((3, H, W, 3), "u1", ".tif", "png", "holds 3 images, png one; give --format tiff or npy"),
    ((3, H, W, 1), "u1", ".npy", "jpeg", "holds 3 images, jpeg one"),
    ((2, 16384, 3), "u1", ".png", "webp", "has 16384x2 px, webp at most 16383 a side"),
    ((65536, 2, 3), "u1", ".bmp", "jpeg", "has 2x65536 px, jpeg at most 65500 a side"),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "dtype", "suffix", "form", "message"), IMPOSSIBLE)
def test_impossible(tmp_path: Path, shape: tuple[int, ...], dtype: str, suffix: str, form: str, message: str):
    values = ramp(*shape, dtype=dtype)
    fault = refusal(write(tmp_path / f"a{suffix}", values[..., None] if len(shape) == 2 else values), form)
    assert message in fault and "; give --format " in fault


def test_metadata_that_are_too_long(tmp_path: Path):
    about = Image.Exif()
    about[271] = "maker" * 20000
    Image.fromarray(ramp(H, W, 3)).save(tmp_path / "a.webp", exif=about, lossless=True)
    assert "cannot be written as JPEG (" in refusal(tmp_path / "a.webp", "jpeg")
    denoised(tmp_path / "a.webp", ".png", "png")
