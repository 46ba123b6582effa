"""The course's files, and the command that writes the stand-in as such files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command
from small_runs import ROOT, photo_data, tensors, write_course_data
from torch import Tensor

from n2n_lightning import standin
from n2n_lightning.data.datamodule import NoisyPairDataModule
from n2n_lightning.data.ee559 import Ee559Data, read_pkl
from n2n_lightning.metrics import RestorationQuality

REAL_DATA = ROOT.parent / "shared" / "data" / "ee559_real"


def standin_command(command: Command, *arguments: str) -> Any:
    return command(*arguments, main=standin.main)


def test_the_standin_command_writes_what_the_reader_reads(command: Command, photographs: Path, tmp_path: Path):
    arguments = ["--root", str(photographs), "--train-pairs", "5", "--val-pairs", "3", "--output", "course"]
    ended = standin_command(command, *arguments)
    assert ended.code == 0
    assert sorted(path.name for path in (tmp_path / "course").iterdir()) == ["train_data.pkl", "val_data.pkl"]
    assert ended.out.split() == ["course/train_data.pkl", "course/val_data.pkl"]

    for stage, count in (("train", 5), ("val", 3)):
        stored = torch.load(tmp_path / "course" / f"{stage}_data.pkl", weights_only=True)
        assert isinstance(stored, tuple)
        assert [(t.dtype, tuple(t.shape)) for t in stored] == [(torch.uint8, (count, 3, 32, 32))] * 2
        read = tensors(Ee559Data(root=str(tmp_path / "course")), stage)
        direct = tensors(photo_data(photographs, tmp_path / "cache", train_pairs=5, val_pairs=3), stage)
        for pairs in (read, direct):
            second, missing = (pairs.clean, pairs.target) if stage == "val" else (pairs.target, pairs.clean)
            assert torch.equal(pairs.source, stored[0]) and torch.equal(second, stored[1]) and missing is None
            assert (pairs.has_clean, pairs.has_pairs) == (stage == "val", stage == "train")

    again = standin_command(command, *arguments)
    assert again.code == 2 and "exists already" in again.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--root", "nowhere", "--output", "course"], "nowhere does not exist"),
        (["--train-pairs", "0", "--output", "course"], "train_pairs must be 1 or more, got 0"),
        ([], "--output"),
    ],
)
def test_the_standin_command_refuses_bad_input(command: Command, arguments: list[str], words: str):
    ended = standin_command(command, *arguments)
    assert ended.code == 2 and words in ended.err and "Traceback" not in ended.err


def images(*shape: int, dtype: torch.dtype = torch.uint8) -> Tensor:
    return torch.ones(shape, dtype=dtype)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ((images(2, 3, 4, 4), images(2, 3, 4, 4, dtype=torch.float32)), "uint8 and torch.float32"),
        ((images(2, 3, 4, 4), images(3, 3, 4, 4)), r"\(2, 3, 4, 4\) and \(3, 3, 4, 4\)"),
        ((images(2, 3, 4), images(2, 3, 4)), r"\(2, 3, 4\)"),
        ((images(0, 3, 4, 4), images(0, 3, 4, 4)), r"\(0, 3, 4, 4\)"),
        ((images(2, 3, 4, 4),), "tuple of two uint8 tensors"),
        ((images(2, 3, 4, 4),) * 3, "tuple of two uint8 tensors"),
        (images(2, 3, 4, 4), "got Tensor"),
        ({"train": images(2, 3, 4, 4)}, "got dict"),
        ((images(2, 3, 4, 4), [1, 2]), "tuple of two uint8 tensors"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, content: object, words: str):
    torch.save(content, tmp_path / "val_data.pkl")
    with pytest.raises(ValueError, match=words) as refusal:
        Ee559Data(root=str(tmp_path)).load("val")
    assert "val_data.pkl" in str(refusal.value)


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: float):
    path = write_course_data(tmp_path, train=4, val=4) / "train_data.pkl"
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"train_data\.pkl .*damaged"):
        Ee559Data(root=str(tmp_path)).load("train")


def test_a_file_that_is_no_pickle_is_refused(tmp_path: Path):
    (tmp_path / "val_data.pkl").write_text("<html>404: not found</html>")
    with pytest.raises(ValueError, match=r"val_data\.pkl"):
        Ee559Data(root=str(tmp_path)).load("val")


class Trap:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path):
    sprung = tmp_path / "sprung"
    torch.save((Trap(sprung), images(2, 3, 4, 4)), tmp_path / "val_data.pkl")
    with pytest.raises(ValueError, match="was not loaded"):
        Ee559Data(root=str(tmp_path)).load("val")
    assert not sprung.exists()
    torch.load(tmp_path / "val_data.pkl", weights_only=False)
    assert sprung.exists(), "the trap itself does not work"


def test_a_missing_file_is_named_with_the_fix(tmp_path: Path):
    with pytest.raises(ValueError, match=r"train_data\.pkl does not exist; set data\.root"):
        Ee559Data(root=str(tmp_path)).load("train")


def test_validation_alone_needs_no_training_file(course_data: Path, tmp_path: Path):
    (tmp_path / "val_data.pkl").write_bytes((course_data / "val_data.pkl").read_bytes())
    datamodule = NoisyPairDataModule(Ee559Data(root=str(tmp_path)))
    datamodule.setup("validate")
    assert datamodule.image_shape == (3, 16, 16)


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the ten real pairs lie beside the checkout, not in it")
def test_the_real_files_are_read_and_their_noise_is_as_measured():
    noisy, clean = (images.float() / 255 for images in read_pkl(REAL_DATA / "val_data.pkl"))
    assert noisy.shape == (10, 3, 32, 32)
    quality = RestorationQuality()
    quality.update(noisy, noisy, clean)
    assert quality.compute()["noisy_psnr"] == pytest.approx(22.34, abs=0.01)
    assert tensors(Ee559Data(root=str(REAL_DATA)), "train").source.shape[1:] == (3, 32, 32)
