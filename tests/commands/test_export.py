"""Exported nets: they compute what the checkpoint's does at any size and tell what they are; failures leave nothing."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Command
from PIL import Image
from small_runs import MODELS, ROOT, assert_refused, skip_where_ignored, write_checkpoint, write_photograph
from torch import Tensor, nn
from torch.nn import functional as F

from n2n_lightning import __version__, export
from n2n_lightning.models.checkpoint import load_denoiser
from n2n_lightning.models.module import DenoiserModule

MISSING = [name for name in export.ONNX_PACKAGES if importlib.util.find_spec(name) is None]
NEEDS_ONNX = pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed")
KINDS = (pytest.param("onnx", marks=NEEDS_ONNX), "torch")
SIZES = ((1, 1, 1), (1, 1, 7), (2, 9, 1), (1, 3, 2), (1, 4, 32), (1, 33, 47), (2, 64, 96), (1, 31, 130), (3, 17, 63))
FAST = "convtrans_sigmoid"  # to export; a sigmoid is never dead


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """Return a checkpoint of the net that is exported fastest."""
    return write_checkpoint(tmp_path / "given" / "net.ckpt", FAST)


def run_file(path: Path) -> Callable[[Tensor], Tensor]:
    """As the file's users run it."""
    if path.suffix == ".pt2":
        return torch.export.load(path).module()
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return lambda noisy: torch.from_numpy(session.run(["denoised"], {"noisy": noisy.numpy()})[0])


def noisy_images(*shape: int) -> Tensor:
    """float32, also outside [0, 1]."""
    return 1.6 * torch.rand(shape, generator=torch.Generator().manual_seed(7)) - 0.3


# What comes out


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_the_files_compute_what_the_net_does_at_any_size(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
):
    checkpoint = write_checkpoint(tmp_path / "given" / "net.ckpt", model)
    module = load_denoiser(checkpoint)
    program = export.traced(module)  # once for both, because it takes seconds
    monkeypatch.setattr(export, "traced", lambda _: program)
    for kind in ("torch",) if MISSING else ("onnx", "torch"):
        ended = command(str(checkpoint), "--format", kind, main=export.main)
        assert ended.code == 0, ended.err
        assert ended.err == ""
        (file,) = (path for path in tmp_path.iterdir() if path.name != "given")
        assert file.name == f"net{export.FILE_SUFFIXES[kind]}"
        *compared, last = ended.out.splitlines()
        assert last == f"{file.name}, {file.stat().st_size / 1e6:.1f} MB"
        assert len(compared) >= 3 and all(float(line.split()[-1]) <= export.MAX_DIFFERENCE for line in compared)
        assert_computes_the_same(run_file(file), module)
        file.unlink()
    if MISSING:
        pytest.skip(f"{', '.join(MISSING)} not installed: only the .pt2 file was tested")


def assert_computes_the_same(run: Callable[[Tensor], Tensor], module: DenoiserModule) -> None:
    for count, height, width in SIZES:
        noisy = noisy_images(count, 3, height, width)
        expected, before = module.denoise(noisy), noisy.clone()
        got = run(noisy)
        assert len(expected.unique()) > expected.numel() / 4, "a dead net shows nothing"
        difference = (got - expected).abs().max() / expected.abs().max()
        assert got.shape == expected.shape and difference < 1e-5, noisy.shape
        assert torch.equal(noisy, before) and not got.requires_grad


def metadata_of(path: Path) -> dict[str, str]:
    if path.suffix == ".pt2":
        files = {export.METADATA: ""}
        torch.export.load(path, extra_files=files)
        return {key: str(value) for key, value in json.loads(files[export.METADATA]).items()}
    import onnx

    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def parts_of(path: Path) -> list[bytes]:
    """Return the file's content, unpacked."""
    if not zipfile.is_zipfile(path):
        return [path.read_bytes()]
    with zipfile.ZipFile(path) as archive:
        return [archive.read(name) for name in archive.namelist()]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_file_tells_what_it_is_and_nothing_of_the_machine(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    if kind == "torch":  # which works without them
        for name in export.ONNX_PACKAGES:
            monkeypatch.setitem(sys.modules, name, None)
    options = {"channels": 1, "peak": 4095.0, "kind": "uint16"}
    checkpoint = write_checkpoint(tmp_path / "given" / "net.ckpt", FAST, **options)
    file = tmp_path / "a" / "b" / f"c{export.FILE_SUFFIXES[kind]}"
    ended = command(str(checkpoint), "--format", kind, "--output", str(file), main=export.main)
    assert ended.code == 0, ended.err
    assert list(file.parent.iterdir()) == [file], "one file"
    assert metadata_of(file) == {
        **{"family": "sequential", "channels": "1", "peak": "4095.0", "sample_type": "uint16"},
        "n2n_lightning": __version__,
    }
    for part in parts_of(file):
        for private in (str(ROOT), str(tmp_path), str(Path(torch.__file__).parent), ".py"):
            assert private.encode() not in part
    noisy = noisy_images(1, 1, 5, 6)
    torch.testing.assert_close(run_file(file)(noisy), load_denoiser(checkpoint).denoise(noisy), atol=1e-5, rtol=0)
    if kind == "onnx":
        assert_sides_are_named(file, ["batch", 1, "height", "width"])
    else:
        ranges = torch.export.load(file).range_constraints.values()
        assert len(ranges) == 3 and all(side.lower <= 1 and side.upper > 10**9 for side in ranges)


def assert_sides_are_named(file: Path, expected: list[str | int]) -> None:
    import onnx

    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    for values, name in ((model.graph.input, "noisy"), (model.graph.output, "denoised")):
        (value,) = values
        sides = [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]
        assert (value.name, sides) == (name, expected)


class NormalisedChannels(nn.Module):
    """Its strides let torch choose a layout by the number of images while it is traced."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, noisy: Tensor) -> Tensor:
        estimate: Tensor = self.conv(F.layer_norm(noisy.permute(0, 2, 3, 1), (3,)).permute(0, 3, 1, 2))
        return estimate


def test_a_file_refuses_no_single_image(given: Path):
    module = load_denoiser(given)
    module.net = NormalisedChannels()
    run = export.pt2_runner(export.as_pt2(export.traced(module), {}))
    for noisy in (noisy_images(1, 3, 5, 6), noisy_images(2, 3, 5, 6)):
        torch.testing.assert_close(run(noisy), module.denoise(noisy))


@pytest.mark.parametrize(
    ("checkpoint", "name"),
    [
        ("outputs/demo/unet,optimizer.lr=0.1/checkpoints/best.ckpt", "unet,optimizer.lr=0.1"),
        ("outputs/demo/unet/checkpoints/last.ckpt", "unet"),
        ("weights/five_models/nn_relu/best.ckpt", "nn_relu"),
        ("kept/my.net.ckpt", "my.net"),
        ("kept/checkpoints/epoch=3.ckpt", "epoch=3"),
    ],
)
def test_a_file_is_named_after_the_run_or_the_checkpoint(checkpoint: str, name: str):
    assert export.default_name(Path(checkpoint)) == name


def test_a_checkpoint_in_this_folder_is_named_after_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mine" / "checkpoints").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "mine" / "checkpoints")
    assert export.default_name(Path("best.ckpt")) == export.default_name(Path("../checkpoints/best.ckpt")) == "mine"


def test_a_trained_model_is_exported_by_its_name(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    exported: list[DenoiserModule] = []
    monkeypatch.setattr(export, "export", lambda module, kind: exported.append(module) or kind.encode())
    ended = command("convtrans_sigmoid", "--format", "torch", main=export.main)
    assert ended.code == 0, ended.err
    assert (tmp_path / "convtrans_sigmoid.pt2").read_text() == "torch"
    noisy = noisy_images(1, 3, 9, 10)
    assert torch.equal(exported[0].denoise(noisy), load_denoiser("convtrans_sigmoid").denoise(noisy))


@pytest.mark.slow
@NEEDS_ONNX
def test_the_documentations_examples_run(
    command: Command, given: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    for kind, suffix in export.FILE_SUFFIXES.items():
        assert command(str(given), "--format", kind, "--output", f"unet{suffix}", main=export.main).code == 0
    write_photograph(tmp_path / "noisy.png", width=51, height=34)
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(), re.DOTALL)
    assert len(examples) == 2
    capfd.readouterr()
    for example in examples:
        exec(example, {})
        assert "'sample_type': 'uint8'" in capfd.readouterr().out

    def pixels(name: str) -> Tensor:
        return torch.from_numpy(np.array(Image.open(tmp_path / name))).permute(2, 0, 1)[None]

    expected = load_denoiser(given).denoise(pixels("noisy.png")).int()
    assert (pixels("denoised.png").int() - expected).abs().max() <= 1  # a rounding tips over
    assert (pixels("denoised.png").int() == expected).float().mean() > 0.99


# What is refused


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.ckpt", "--format", "torch"], ["none.ckpt does not exist"]),
        (["given/net.ckpt", "--format", "torch", "--output", "net.onnx"], ["must end in .pt2", "got net.onnx"]),
        (["given/net.ckpt", "--format", "onnx", "--output", "net"], ["must end in .onnx", "got net;"]),
        (["given/net.ckpt", "--format", "torch", "--output", "given/a.pt2"], ["given/a.pt2", "is a folder"]),
        (["given/net.ckpt", "--format", "torch", "--output", "given/b.pt2"], ["given/b.pt2 exists", "--overwrite"]),
        (["given/page.ckpt", "--format", "torch"], ["page.ckpt"]),
        (["given/foreign.ckpt", "--format", "torch"], ["foreign.ckpt is not a checkpoint of n2n_lightning"]),
    ],
)
def test_wrong_input_is_refused(command: Command, given: Path, tmp_path: Path, arguments: list[str], words: list[str]):
    (given.parent / "a.pt2").mkdir()
    (given.parent / "b.pt2").write_text("old")
    (given.parent / "page.ckpt").write_text("<html>404: not found</html>")
    torch.save({"state_dict": {}}, given.parent / "foreign.ckpt")
    assert_refused(command(*arguments, main=export.main), tmp_path, *words)
    assert (given.parent / "b.pt2").read_text() == "old"


@pytest.mark.parametrize("arguments", [["net.ckpt"], ["net.ckpt", "--format", "onx"], ["--format", "torch"]])
def test_a_wrong_command_line_is_refused(command: Command, arguments: list[str]):
    ended = command(*arguments, main=export.main)
    assert ended.code == 2 and "usage:" in ended.err and "error:" in ended.err


@pytest.mark.usefixtures("no_exporter")
def test_an_existing_file_is_replaced_when_asked_for(command: Command, given: Path, tmp_path: Path):
    (tmp_path / "net.pt2").write_text("old")
    assert command(str(given), "--format", "torch", "--overwrite", main=export.main).code == 0
    assert (tmp_path / "net.pt2").read_text() == "content"


@pytest.mark.parametrize("package", export.ONNX_PACKAGES)
def test_a_missing_package_is_named_with_the_mend(
    command: Command, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
):
    for name in export.ONNX_PACKAGES:  # also where none is installed
        monkeypatch.setitem(sys.modules, name, None if name == package else sys)
    ended = command(str(given), "--format", "onnx", main=export.main)
    assert_refused(ended, tmp_path, package, "pip install 'n2n_lightning[export]'")


# What fails


@pytest.fixture
def no_exporter(given: Path, monkeypatch: pytest.MonkeyPatch) -> DenoiserModule:
    """Replace the exporter by a written constant, and return the net that computes what the file would."""
    monkeypatch.setattr(export, "traced", lambda module: None)
    monkeypatch.setattr(export, "as_pt2", lambda program, about: b"content")
    module = load_denoiser(given)
    monkeypatch.setattr(export, "pt2_runner", lambda content: module)
    return module


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda estimate: estimate + 3e-4, ["must be 0.0001 at most, got 3.0e-04", "nothing was written"]),
        (lambda estimate: estimate * math.nan, ["must be 0.0001 at most, got nan", "nothing was written"]),
        (lambda estimate: estimate[:, :1], ["turns (1, 3, 1, 1) into (1, 1, 1, 1)", "nothing was written"]),
        (lambda estimate: 1 / 0, ["ZeroDivisionError: division by zero"]),
    ],
)
def test_a_file_that_computes_something_else_is_not_written(
    command: Command,
    given: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_exporter: DenoiserModule,
    change: Callable[[Tensor], Tensor],
    words: list[str],
):
    monkeypatch.setattr(export, "pt2_runner", lambda content: lambda noisy: change(no_exporter(noisy)))
    ended = command(str(given), "--format", "torch", "--output", "new/net.pt2", main=export.main)
    assert_failed(ended, tmp_path, *words)


def test_a_smaller_difference_is_let_through(
    command: Command, given: Path, monkeypatch: pytest.MonkeyPatch, no_exporter: DenoiserModule
):
    monkeypatch.setattr(export, "pt2_runner", lambda content: lambda noisy: no_exporter(noisy) + 5e-5)
    ended = command(str(given), "--format", "torch", main=export.main)
    assert ended.code == 0 and "5.0e-05" in ended.out


def test_an_exporters_error_is_one_line(command: Command, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        print("chatter")
        raise RuntimeError("no such operator\n\nfifty more lines")

    monkeypatch.setattr(export, "traced", fail)
    ended = command(str(given), "--format", "torch", main=export.main)
    assert_failed(ended, tmp_path, "could not be exported (RuntimeError: no such operator)")
    assert ended.out == ""


@pytest.mark.usefixtures("no_exporter")
def test_a_disk_that_fails_leaves_nothing(
    command: Command, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    ended = command(str(given), "--format", "torch", main=export.main)
    assert_failed(ended, tmp_path, "No space left on device")


@pytest.mark.usefixtures("no_exporter")
def test_a_folder_that_cannot_be_made_is_named(command: Command, given: Path, tmp_path: Path):
    ended = command(str(given), "--format", "torch", "--output", "given/net.ckpt/net.pt2", main=export.main)
    assert (
        ended.code == 2
        and ended.err.count("\n") == 1
        and "given/net.ckpt/net.pt2 cannot be written (Not a directory)" in ended.err
    )
    assert [path.name for path in tmp_path.rglob("*.pt2")] == []


@pytest.mark.usefixtures("no_exporter")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_nothing(
    command: Command, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
):
    skip_where_ignored(number)
    monkeypatch.setattr(os, "fsync", lambda descriptor: os.kill(os.getpid(), number))
    ended = command(str(given), "--format", "torch", main=export.main)
    assert ended.code == code and ended.err == ""
    assert [path.name for path in tmp_path.iterdir()] == ["given"]


def assert_failed(ended: tuple[int, str, str], folder: Path, *words: str) -> None:
    code, out, err = ended
    assert code == 1, err
    assert err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in out + err
    for word in words:
        assert word in err
    assert [path.name for path in folder.iterdir()] == ["given"], "something was left behind"


def test_help_needs_no_torch():
    code = "import sys; from n2n_lightning import export; print({'torch', 'onnx', 'onnxruntime'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
