"""Metadata and layout of TIFF files that ``predict`` writes: both stay as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from known_nets import ICC, Negative, denoised, fresh, ramp, refusal, replaced, with_opacity
from tiff_comparison import GREY, RGB, H, W, assert_kept, assert_rewritten, by_libtiff, renumber

from n2n_lightning.image_io import tiff_rewriting
from n2n_lightning.image_io.tiff_reading import TiffReader


@pytest.fixture
def tif(tmp_path: Path) -> Path:
    return tmp_path / "a.tif"


# What lies beside the pixels


@pytest.mark.parametrize("compression", [None, "lzw"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_tags_stay(tif: Path, compression: str | None, orientation: int):
    extra = [
        (274, 3, 1, orientation, True),
        (315, 2, 0, "an artist", True),
        (33432, 2, 0, "all rights", True),
        (65000, 12, 3, (1.5, 2.5, -3.0), True),
        (65001, 7, 5, b"\0\1\2\3\4", False),
    ]
    tifffile.imwrite(
        tif, ramp(2, H, W, 3), compression=compression, rowsperstrip=8, description="what it shows",
        software="a microscope", datetime="2020:02:03 04:05:06", resolution=(123.5, 0.5), resolutionunit="CENTIMETER",
        iccprofile=ICC, extratags=extra, metadata=None, **RGB,
    )  # fmt: skip
    assert_rewritten(tif, ramp(2, H, W, 3))
    with tifffile.TiffFile(denoised(tif)) as tiff:
        tags = tiff.pages.first.tags
        assert tags.valueof(34675) == ICC and tags.valueof(274) == orientation and tags.valueof(282) == (247, 2)
        assert tags.valueof("Software") == "a microscope" and tags.valueof(65001) == bytes(range(5))


def test_ome_xml_stays_byte_by_byte(tif: Path):
    xml = '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    xml += '<Image ID="Image:0" Name="m&#181;"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="45" '
    xml += 'SizeY="37" SizeC="1" SizeZ="2" SizeT="1"><Channel ID="Channel:0:0"/><TiffData/></Pixels></Image></OME>'
    tifffile.imwrite(tif, ramp(2, H, W), description=xml, compression="zlib", metadata=None, **GREY)
    with tifffile.TiffFile(tif) as tiff:
        assert tiff.is_ome and tiff.series[0].axes == "ZYX"
    assert_rewritten(tif, ramp(2, H, W))
    assert xml.encode() in denoised(tif).read_bytes()


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("ome", [False, True])
def test_lower_levels_and_thumbnails_stay(tif: Path, compression: str | None, ome: bool):
    values = ramp(2, 64, 64)
    settings: dict[str, Any] = {"compression": compression, "tile": (16, 16), **GREY}
    with tifffile.TiffWriter(tif, ome=ome) as writer:
        writer.write(values, subifds=2, metadata={"axes": "ZYX"} if ome else None, **settings)
        for step in (2, 4):
            writer.write(values[:, ::step, ::step], subfiletype=1, **settings)
        if not ome:
            writer.write(values[0, ::5, ::5], subfiletype=1, metadata=None)
    others = fresh(2, 64, 64)
    output = replaced(tif, others[..., None])
    np.testing.assert_array_equal(tifffile.imread(denoised(tif)), values)
    assert_kept(tif, output)
    with tifffile.TiffFile(output) as tiff:
        np.testing.assert_array_equal(tiff.series[0].asarray(), others)
        levels = [level.asarray() for level in tiff.series[0].levels[1:]]
        assert len(levels) == 2
        for step, level in zip((2, 4), levels, strict=True):
            np.testing.assert_array_equal(level, values[:, ::step, ::step])
        if not ome:
            np.testing.assert_array_equal(tiff.pages[-1].asarray(), values[0, ::5, ::5])


@pytest.mark.parametrize("kind", ["assocalpha", "unassalpha"])
@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("settings", [{}, {"compression": "zlib"}], ids=str)
def test_alpha_passes_unchanged(tif: Path, channels: int, planarconfig: str, kind: str, settings: dict[str, Any]):
    values = with_opacity(fresh(2, H, W, channels))
    stored = values if planarconfig == "contig" else np.moveaxis(values, -1, 1)
    colours = RGB if channels == 4 else GREY
    tifffile.imwrite(tif, stored, planarconfig=planarconfig, extrasamples=[kind], rowsperstrip=8, **colours, **settings)
    expected = 255 - stored
    expected[(..., -1) if planarconfig == "contig" else np.s_[:, -1]] = values[..., -1]
    output = denoised(tif, net=Negative)
    np.testing.assert_array_equal(tifffile.imread(output), expected)
    assert_kept(tif, output)


@pytest.mark.parametrize("settings", [{}, {"compression": "zlib", "rowsperstrip": 8}], ids=str)
def test_a_file_where_0_is_white_stays_one(tif: Path, settings: dict[str, Any]):
    values = fresh(2, H, W)
    tifffile.imwrite(tif, values, photometric="miniswhite", **settings)
    output = denoised(tif, net=Negative)
    np.testing.assert_array_equal(tifffile.imread(output), 255 - values)
    assert_kept(tif, output)


def test_extra_samples_that_are_no_alpha_are_denoised(tif: Path):
    values = fresh(H, W, 4)
    tifffile.imwrite(tif, values, extrasamples=["unspecified"], **RGB)
    np.testing.assert_array_equal(tifffile.imread(denoised(tif, net=Negative)), 255 - values)


# Where the segments lie


@pytest.mark.parametrize("settings", [{"tile": (16, 16)}, {"tile": (16, 16), "compression": "zlib"}], ids=str)
def test_segments_that_share_one_place(tif: Path, settings: dict[str, Any]):
    tifffile.imwrite(tif, np.full((2, H, W), 9, np.uint8), **GREY, **settings)
    with tifffile.TiffFile(tif, mode="r+") as tiff:
        first = tiff.pages.first.dataoffsets[0], tiff.pages.first.databytecounts[0]
        for page in list(tiff.pages):
            tags = page.aspage().tags
            for name, value in zip(("TileOffsets", "TileByteCounts"), first, strict=True):
                tags[name].overwrite([value] * tags[name].count)
    assert_rewritten(tif, np.full((2, H, W), 9, np.uint8))


def test_counts_at_the_end_of_the_file(tif: Path):
    """Segments that grow are written after the counts; the new counts, of a longer type, must go after the segments."""
    tifffile.imwrite(tif, ramp(64, 64), tile=(16, 16), compression="zlib", **GREY)
    with tifffile.TiffFile(tif, mode="r+") as tiff:
        tag = tiff.pages.first.tags["TileByteCounts"]
        counts = tag.value
        tag.overwrite(0, dtype="H").overwrite(counts)
    with tifffile.TiffFile(tif) as tiff:
        tag = tiff.pages.first.tags["TileByteCounts"]
        assert tag.valueoffset + 2 * tag.count == tif.stat().st_size
    others = fresh(64, 64)
    output = replaced(tif, others[None, ..., None])
    np.testing.assert_array_equal(tifffile.imread(output), others)
    np.testing.assert_array_equal(by_libtiff(output), others)


def test_counts_that_are_missing(tif: Path):
    """Uncompressed strips need no counts; two separate pages keep tifffile from reading them as one block."""
    values = ramp(2, H, W)
    with tifffile.TiffWriter(tif, byteorder="<") as writer:
        for image in values:
            writer.write(image, metadata=None)
    with tifffile.TiffFile(tif, mode="r+") as tiff:
        for page in list(tiff.pages):
            renumber(tiff, page.aspage().tags["StripByteCounts"], 280)  # which is of no use here
    others = fresh(2, H, W)
    np.testing.assert_array_equal(tifffile.imread(denoised(tif)), values)
    np.testing.assert_array_equal(tifffile.imread(replaced(tif, others[..., None])), others)


@pytest.mark.parametrize("settings", [{}, {"rowsperstrip": 8}, {"tile": (16, 16)}], ids=str)
def test_uncompressed_files_keep_their_size(tif: Path, settings: dict[str, Any]):
    tifffile.imwrite(tif, ramp(2, H, W), **GREY, **settings)
    output = replaced(tif, fresh(2, H, W, 1))
    assert output.stat().st_size == tif.stat().st_size


def test_a_file_that_would_grow_too_big(tif: Path, monkeypatch: pytest.MonkeyPatch):
    tifffile.imwrite(tif, ramp(H, W, dtype="u2"), bitspersample=12, **GREY)
    monkeypatch.setattr(tiff_rewriting, "CLASSIC_LIMIT", tif.stat().st_size + 100)
    assert "would grow beyond the 4 GB" in refusal(tif)
    tifffile.imwrite(tif, ramp(H, W, dtype="u2"), bitspersample=12, bigtiff=True, **GREY)
    denoised(tif)


def test_a_strip_that_cannot_be_decoded(tif: Path):
    tifffile.imwrite(tif, ramp(H, W), rowsperstrip=8, compression="zlib", **GREY)
    with tifffile.TiffFile(tif) as tiff:
        start = tiff.pages.first.dataoffsets[3]
    data = bytearray(tif.read_bytes())
    data[start : start + 8] = b"nonsense"
    tif.write_bytes(data)
    assert "cannot be read" in refusal(tif)


# Reading


@pytest.mark.parametrize("settings", [{}, {"compression": "lzw", "tile": (16, 16)}, {"compression": "zlib"}], ids=str)
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((H, W, 3), RGB),
        ((2, 3, H, W), RGB | {"planarconfig": "separate"}),
        ((2, 3, 2, H, W), {"imagej": True, "metadata": {"axes": "TZCYX"}}),
        ((2, 3, 2, H, W), GREY | {"ome": True, "metadata": {"axes": "TCZYX"}}),
        ((4, H, W), GREY | {"volumetric": True, "tile": (2, 16, 16)}),
    ],
    ids=str,
)
def test_bands_are_slices(tif: Path, shape: tuple[int, ...], axes: dict[str, Any], settings: dict[str, Any]):
    tifffile.imwrite(tif, fresh(*shape), **settings | axes)
    with tifffile.TiffFile(tif) as tiff:
        (images,) = TiffReader(tiff, tif).series
        for group, numbers in enumerate(images.groups):
            whole = images.decode(group, 0, H)
            assert whole.shape == images.shape
            for top, bottom in [(0, 11), (5, 30), (3, 4), (16, 32), (36, 37), (0, H), (7, 8)]:
                band = images.decode(group, top, bottom)
                np.testing.assert_array_equal(band, whole[:, top:bottom])
                pages = images.to_pages(band)
                assert len(pages) == len(numbers)
                for number, page in zip(numbers, pages, strict=True):
                    stored = images.stored(int(number)).asarray().reshape(images.page_shape)
                    np.testing.assert_array_equal(page, stored[images.band(top, bottom)])
