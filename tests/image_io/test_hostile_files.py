"""Faults that the stress tests found: each was a hang, an error without a message, or a file outside its folder."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from conftest import Command
from known_nets import refusal
from PIL import Image
from predict_runs import WEIGHTS, denoise, files, noise
from small_runs import stamps

from n2n_lightning.data.ee559 import read_pkl
from n2n_lightning.data.photo_crops import read_photograph
from n2n_lightning.image_io.image_file import ImageError, check_packing
from n2n_lightning.image_io.stack import open_stack, sidecar
from n2n_lightning.image_io.tiff_checks import PILLOW_CODECS, check_embedded, embedded_size
from n2n_lightning.models.checkpoint import load_denoiser
from n2n_lightning.system import errors
from n2n_lightning.system.safe_load import safe_load
from stress.bombs import bombs, retagged, tiff_headers
from stress.originals import tiffs

IN = Path("given/in")
COMPRESSION_TAG = 259
WORDS = {
    "unfolds.png": "would grow from",
    "claims.jpg": "would grow from",
    "unfolds.webp": "would grow from",
    "claims_deflate.tif": "would grow from",
    "claims_tiles.tif": "lacks strips or tiles of page 1",
    "many_tiles.tif": "lacks strips or tiles of page 1",
    "inner_jpeg.tif": "holds a JPEG image of 5000x5000 px in a strip or tile of 48x40 px",
    "inner_jpeg2000.tif": "holds a JPEG2000 image of 4000x4000 px in a strip or tile of 48x40 px",
    "inner_jpegxl.tif": "is compressed by JPEGXL, which is not supported inside TIFF",
    "inner_png.tif": "holds a PNG image of 5000x5000 px in a strip or tile of 48x40 px",
    "inner_webp.tif": "holds a WEBP image of 5000x5000 px in a strip or tile of 48x40 px",
    "json_counts.tif": "is cut off, 383999996160 bytes of pixels are missing",
    "ome_counts.tif": "has a header that counts pages of other files",
    "ome_device.tif": "has a header that counts pages of other files",
    "chain_0.tif": "is cut off after page 4",
    "shape_11.npy": "cannot be read (ValueError: Header info length",
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "words"), WORDS.items())
def test_what_would_fill_the_memory_is_refused_by_training_and_predict(tmp_path: Path, name: str, words: str):
    path = tmp_path / name
    path.write_bytes(bombs()[name])
    with pytest.raises(ImageError) as refused:
        open_stack(path, tmp_path / "cache")
    for message in (str(refused.value), refusal(path)):
        assert message.startswith(f"{path} {words}") and len(message.splitlines()) == 1


def test_an_ome_header_opens_no_other_file(tmp_path: Path):
    """Reading from a pipe would never end."""
    os.mkfifo(tmp_path / "pipe")
    uuid = '<UUID FileName="pipe">urn:uuid:1</UUID>'
    content = tiff_headers()["ome_other.tif"].replace(b'"../../../../other.tif"', b'"pipe"'.ljust(24))
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    assert uuid.split()[0].encode() in content and "counts pages of other files" in refusal(path)


def test_pictures_that_are_packed_well_are_read():
    check_packing(2**26, 1)
    check_packing(100 * 10**7, 10**7)
    with pytest.raises(ImageError, match="more than 100 times as much"):
        check_packing(101 * 10**7, 10**7)


def encoded(form: str, values: np.ndarray[Any, Any], **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, photometric="rgb", compression=form, **options)
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        file.seek(page.dataoffsets[0])
        return file.read(page.databytecounts[0])


CODECS = sorted(set(PILLOW_CODECS.values()))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("shape", [(40, 48), (1, 1), (300, 200), (128, 128), (256, 256), (90, 160), (1000, 17)])
def test_the_size_of_an_image_within_a_tiff_is_found(codec: str, shape: tuple[int, int]):
    assert embedded_size(encoded(codec.lower(), noise(*shape, 3)), codec) == (shape[1], shape[0])


@pytest.mark.parametrize("form", ["jpeg", "progressive", "webp", "lossless", "exact"])
def test_the_size_is_found_in_what_other_programs_write(form: str):
    file = io.BytesIO()
    kind = "JPEG" if form in ("jpeg", "progressive") else "WEBP"
    options = {
        "progressive": form == "progressive",
        "lossless": form != "webp",
        "exact": True,
        "icc_profile": b"x" * 300,
    }
    alpha = form == "exact"
    Image.fromarray(noise(33, 50, 3 + alpha)).save(file, kind, **options)
    assert embedded_size(file.getvalue(), kind) == (50, 33)


def test_the_size_within_jpeg_2000s_boxes_counts():
    """The box around the codestream can claim another size. Of two codestreams none is trusted."""
    boxed = bytes(imagecodecs.jpeg2k_encode(noise(60, 50, 3), codecformat="jp2"))
    place = boxed.index(b"ihdr") + 4
    assert struct.unpack_from(">II", boxed, place) == (60, 50)
    claiming = boxed[:place] + struct.pack(">II", 4, 4) + boxed[place + 8 :]
    assert embedded_size(claiming, "JPEG2000") == embedded_size(boxed, "JPEG2000") == (50, 60)
    with pytest.raises(ImageError, match="damaged or unusual JPEG2000 image"):
        embedded_size(bytes(imagecodecs.jpeg2k_encode(noise(4, 4, 3), codecformat="j2k")) + boxed, "JPEG2000")


@pytest.mark.parametrize("number", sorted(tifffile.TIFF.IMAGE_COMPRESSIONS - PILLOW_CODECS.keys()))
def test_a_compression_whose_size_is_not_known_is_refused_by_name(tmp_path: Path, number: int):
    path = tmp_path / "a.tif"
    path.write_bytes(retagged(tiffs()["png.tif"], **{f"t{COMPRESSION_TAG}": number}))
    with pytest.raises(ImageError) as refused:
        open_stack(path, tmp_path / "cache")
    name = tifffile.COMPRESSION(number).name
    for message in (str(refused.value), refusal(path)):
        assert message.startswith(f"{path} is compressed by {name}, ") and "; save it by deflate" in message


def test_jpeg_xl_is_refused_by_name(tmp_path: Path):
    tifffile.imwrite(tmp_path / "a.tif", noise(40, 48, 3), photometric="rgb", compression="jpegxl")
    assert "is compressed by JPEGXL, " in refusal(tmp_path / "a.tif")


def test_a_damaged_image_within_a_tiff_is_refused():
    with pytest.raises(ImageError, match="damaged or unusual JPEG image in a strip or tile; save it by deflate"):
        check_embedded(b"\xff\xd8\xff", 7, (1, 8, 8))


def test_photographs_run_no_other_program(tmp_path: Path):
    """Pillow would run Ghostscript for EPS."""
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 200 200\n%%EndComments\n%%EOF\n")
    with pytest.raises(ValueError, match=r"a\.png cannot be read as a picture \(cannot identify"):
        read_photograph(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n2n_lightning": {"family": "sequential"}}, "is not a checkpoint"),
        ({"n2n_lightning": {"family": ["sequential"], "format": 1}}, "is not a checkpoint"),
        ({"n2n_lightning": {"family": "sequential", "format": "1"}}, "is not a checkpoint"),
        ({"n2n_lightning": {"family": "sequential", "format": 1, "peak": float("nan")}}, "is not a checkpoint"),
        ({"n2n_lightning": {"family": "sequential", "format": 1, "peak": -1.0}}, "is not a checkpoint"),
        ({"hyper_parameters": [1]}, "is not a checkpoint"),
        ({"state_dict": {1: torch.zeros(1)}}, "is not a checkpoint"),
        ({"state_dict": {"net.x": 1}}, "weights that are no tensors"),
        ({"state_dict": {"net.x": torch.zeros(1).expand(10**9)}}, "claim more numbers than the file holds"),
        ({"state_dict": {}}, "do not fit its own description"),
    ],
)
def test_a_checkpoint_of_another_form_is_refused(tmp_path: Path, changes: dict[str, Any], words: str):
    path = tmp_path / "a.ckpt"
    torch.save(torch.load(WEIGHTS, weights_only=True) | changes, path)
    with pytest.raises(ValueError, match=rf"a\.ckpt .*{words}"):
        load_denoiser(path)


@pytest.mark.parametrize("arguments", [{"channels": 10**9}, {"channels": 200}, {"layers": 10**9}, {"channels": "x"}])
def test_no_net_is_built_that_is_larger_than_its_weights(tmp_path: Path, arguments: dict[str, Any]):
    content = torch.load(WEIGHTS, weights_only=True)
    if "layers" in arguments:
        content["n2n_lightning"]["family"] = "dncnn"
        content["hyper_parameters"] = {k: content["hyper_parameters"][k] for k in ("optimizer", "loss")}
    content["hyper_parameters"] |= arguments
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"a\.ckpt holds weights that do not fit its own description") as refused:
        load_denoiser(tmp_path / "a.ckpt")
    assert len(str(refused.value).splitlines()) == 1


def test_an_archive_that_unfolds_is_refused(tmp_path: Path):
    path = tmp_path / "a.ckpt"
    with zipfile.ZipFile(WEIGHTS) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    with pytest.raises(ValueError, match=r"a\.ckpt .*packed data, which torch\.save does not write"):
        safe_load(path)


def test_other_forms_of_archive_are_refused_without_a_warning(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.ckpt", "w") as archive:
        for name in ("a/data.pkl", "a/constants.pkl", "a/version"):
            archive.writestr(name, b"N.")
    with warnings.catch_warnings(), pytest.raises(ValueError, match=r"a\.ckpt "):
        warnings.simplefilter("error")
        safe_load(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    "images", [torch.zeros(1, 3, 8, 8).byte().expand(10**6, 3, 8, 8), torch.zeros(2, 3, 8, 8, device="meta").byte()]
)
def test_course_data_that_claims_more_than_it_holds_is_refused(tmp_path: Path, images: torch.Tensor):
    torch.save((images, images), tmp_path / "a.pkl")
    with pytest.raises(ValueError, match=r"a\.pkl must hold .* claim more numbers than it holds"):
        read_pkl(tmp_path / "a.pkl")


# Places


def test_no_pattern_leads_out_of_the_output(command: Command, tmp_path: Path):
    for name in ("in/deep/a.png", "b.png"):
        path = Path("given") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(20, 24, 3)).save(path)
    ended = denoise(command, "given/in/*/../../b.png")
    assert ended.code == 2 and "out/deep/../../b.png lies outside of --output out" in ended.err
    assert {path.name for path in tmp_path.iterdir()} == {"given"}


@pytest.mark.parametrize("link", ["out/sub", "out/sub/a.png"])
def test_no_link_leads_out_of_the_output(command: Command, tmp_path: Path, link: str):
    (IN / "sub").mkdir(parents=True)
    Path("given/elsewhere").mkdir()
    Image.fromarray(noise(20, 24, 3)).save(IN / "sub/a.png")
    Path(link).parent.mkdir(parents=True)
    Path(link).symlink_to(tmp_path / "given/elsewhere")
    ended = denoise(command, IN, "--overwrite")
    assert ended.code == 2 and "out/sub/a.png lies outside of --output out, at " in ended.err
    assert not list(Path("given/elsewhere").iterdir())


def test_a_link_to_itself_in_the_output_is_refused(command: Command):
    IN.mkdir(parents=True)
    Image.fromarray(noise(20, 24, 3)).save(IN / "a.png")
    Path("out").mkdir()
    Path("out/a.png").symlink_to(Path("out/a.png").absolute())
    ended = denoise(command, IN)
    assert ended.code == 2 and "out/a.png is a link that leads nowhere" in ended.err


@pytest.mark.parametrize("name", ["part", "predict.jsonl"])
def test_nothing_is_written_through_a_link(command: Command, name: str):
    IN.mkdir(parents=True)
    Image.fromarray(noise(20, 24, 3)).save(IN / "a.png")
    Path("out").mkdir()
    precious = Path("given/precious")
    precious.write_text("work")
    place = hashlib.sha256(os.fsencode(Path("out").absolute())).hexdigest()[:8]
    Path("out", f".predict.{place}.0.part" if name == "part" else name).symlink_to(precious.absolute())
    ended = denoise(command, IN)
    assert precious.read_text() == "work"
    if name == "predict.jsonl":
        assert ended.code == 2 and "out/predict.jsonl is a link; remove it" in ended.err
    else:
        assert ended.code == 0 and files("out") == {"a.png"}


@pytest.mark.parametrize("line", ['{"output": "a.png", "made_by": []}', '{"output": {}, "made_by": {}}', "[" * 100_000])
def test_a_strange_record_is_no_record(command: Command, line: str):
    IN.mkdir(parents=True)
    Image.fromarray(noise(20, 24, 3)).save(IN / "a.png")
    Path("out").mkdir()
    Path("out/predict.jsonl").write_text(f"{line}\n")
    assert denoise(command, IN).code == 0


@pytest.mark.parametrize(
    "change", [{"dtype": "|O"}, {"path": "/etc/hostname"}, {"shape": [-1, -8, 8, 3]}, {"offset": -8}]
)
def test_a_strange_entry_of_the_cache_is_not_used(tmp_path: Path, change: dict[str, Any]):
    path, cache = tmp_path / "a.png", tmp_path / "cache"
    Image.fromarray(noise(8, 8, 3)).save(path)
    stack = open_stack(path, cache)
    place = sidecar(path, cache)
    place.write_text(json.dumps(json.loads(place.read_text()) | change))
    assert open_stack(path, cache) == stack


def test_names_cannot_steer_the_terminal(command: Command):
    IN.mkdir(parents=True)
    (IN / "a\x1b[2J\nerror: b.png").write_bytes(b"no picture")
    before = stamps(IN)
    ended = denoise(command, IN)
    assert ended.code == 2 and "\x1b" not in ended.err and len(ended.err.splitlines()) == 1
    assert stamps(IN) == before and errors.escape_controls("Zürich 東京\n") == "Zürich 東京\n"


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("data", [b"", b"\0" * 40, struct.pack(">I4s", 3, b"jxlx")], ids=["empty", "zeros", "box"])
def test_a_size_in_damaged_bytes_is_an_error(codec: str, data: bytes):
    with pytest.raises(ImageError, match=f"damaged or unusual {codec} image"):
        embedded_size(data, codec)
