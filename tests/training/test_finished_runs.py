"""The same command on a finished run: skipped while its data is what it was, refused when it has changed or is gone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Command
from noisy_files import ALL, source, write_noisy_images
from PIL import Image
from small_runs import photo_data, read_json, stamps, tiny_overrides, train_with, write_course_data, write_photograph

from n2n_lightning.data import ee559, photos
from n2n_lightning.image_io import stack
from n2n_lightning.system import errors

SHORT = ("model=convtrans_relu", "trainer.max_epochs=1", "trainer.accelerator=cpu")
KINDS = ("burst", "clean", "pairs", "single", "photos", "ee559")


def write_data(kind: str, folder: Path) -> tuple[list[str], Path]:
    """Write a data set of a kind below ``folder``; return the overrides for a short run on it, and one of its files."""
    if kind == "ee559":
        write_course_data(folder)
        return [*tiny_overrides(folder), *SHORT], folder / "train_data.pkl"
    if kind == "photos":
        for number in range(3):
            write_photograph(folder / f"photos/{number}.png", seed=number)
        pairs = ("data.train_pairs=16", "data.val_pairs=8", "data.batch_size=8", f"data.cache_dir={folder / 'cache'}")
        return ["data=photos", f"data.root={folder / 'photos'}", *pairs, *SHORT], folder / "photos/1.png"
    write_noisy_images(folder)
    files = {"burst": "frames/1/1.png", "clean": "clean/1.png", "pairs": "1/1.png", "single": "0/1.png"}
    return [*source(kind, folder), *ALL, "trainer.max_epochs=1"], folder / files[kind]


def change(file: Path) -> None:
    """Change the pixels of one file of a data set."""
    if file.suffix == ".pkl":
        write_course_data(file.parent, sigma_255=20)
    else:
        Image.open(file).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(file)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_run_is_skipped_only_while_its_data_is_what_it_was(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    overrides, file = write_data(kind, tmp_path / "data")
    run = train_with(tmp_path / "outputs/runs/run", *overrides)
    before = stamps(run)
    train_with(run, *overrides)
    assert "already done, skipped" in capsys.readouterr().out

    change(file)
    with pytest.raises(errors.InputError, match=r"the data is not what .*run was .* set another study=NAME, or resume"):
        train_with(run, *overrides)
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(errors.InputError, match=r"data that .*run was trained on cannot be .*(?s:.)*study=NAME"):
        train_with(run, *overrides)
    assert stamps(run) == before


def test_one_file_that_is_gone_is_named_in_the_refusal(tmp_path: Path):
    overrides, file = write_data("pairs", tmp_path / "data")
    run = train_with(tmp_path / "run", *overrides)
    file.unlink()
    with pytest.raises(errors.InputError, match=r"cannot be read now: .*0/1\.png has no partner"):
        train_with(run, *overrides)


def test_changed_data_is_trained_on_where_the_run_starts_over(tmp_path: Path):
    overrides, file = write_data("ee559", tmp_path / "data")
    run = train_with(tmp_path / "run", *overrides)
    earlier = read_json(run / "result.json")["data"]["fingerprint"]
    change(file)
    train_with(run, *overrides, "resume=false")
    assert read_json(run / "result.json")["data"]["fingerprint"] != earlier


def test_a_record_without_a_fingerprint_is_skipped_as_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    overrides, file = write_data("ee559", tmp_path / "data")
    run = train_with(tmp_path / "run", *overrides)
    text = (run / "result.json").read_text()
    (run / "result.json").write_text(text.replace('"fingerprint"', '"of_an_earlier_version"'))
    change(file)
    train_with(run, *overrides)
    assert "already done, skipped" in capsys.readouterr().out


@pytest.mark.slow
def test_in_a_sweep_a_job_whose_data_has_changed_is_refused_and_the_others_are_skipped(
    command: Command, tmp_path: Path
):
    for name in ("a", "b"):
        write_course_data(tmp_path / name)
    line = ["-m", "data=ee559", "data.root=a,b", "data.batch_size=8", *SHORT]
    assert command(*line).code == 0
    write_course_data(tmp_path / "b", sigma_255=20)
    ended = command(*line)
    assert ended.code == 2
    table = ended.out.partition("Jobs in")[2].splitlines()
    assert [row.split()[0] for row in table[1:3]] == ["skipped", "refused"] and "the data is not what" in table[2]


READERS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "burst": lambda patch: patch.setattr(stack, "decode_stack", None),
    "photos": lambda patch: patch.setattr(Path, "read_bytes", refuse_pictures),
    "ee559": lambda patch: patch.setattr(ee559, "safe_load", None),
}
read_bytes = Path.read_bytes


def refuse_pictures(path: Path) -> bytes:
    assert path.suffix in (".json", ".ckpt"), f"{path} is read"
    return read_bytes(path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", READERS)
def test_skipping_reads_no_image(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    overrides, _ = write_data(kind, tmp_path / "data")
    run = train_with(tmp_path / "run", *overrides)
    READERS[kind](monkeypatch)
    train_with(run, *overrides)
    assert "already done, skipped" in capsys.readouterr().out


# Hashes of photographs, kept in the cache


def test_photographs_have_the_fingerprint_of_their_bytes_with_and_without_a_cache(tmp_path: Path):
    _, file = write_data("photos", tmp_path / "data")
    folder = file.parent
    first = photo_data(folder, tmp_path / "cache").fingerprint()
    assert photo_data(folder, tmp_path / "cache").fingerprint() == first
    (tmp_path / "file").write_text("where the cache's folder should be")
    assert photo_data(folder, tmp_path / "file" / "cache").fingerprint() == first, "an unwritable cache is no fault"
    for record in (tmp_path / "cache").glob("photos-hashes-*"):
        record.write_text("{")
    assert photo_data(folder, tmp_path / "cache").fingerprint() == first
    change(file)
    assert photo_data(folder, tmp_path / "cache").fingerprint() != first


def test_a_file_is_hashed_again_only_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _, file = write_data("photos", tmp_path / "data")
    paths, read = sorted(file.parent.iterdir()), []
    hashes = photos.hash_files(paths, tmp_path / "cache")
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or read_bytes(path))
    assert photos.hash_files(paths, tmp_path / "cache") == hashes
    change(file)
    assert [one == other for one, other in zip(hashes, photos.hash_files(paths, tmp_path / "cache"), strict=True)] == [
        *(True, False, True)
    ]
    assert [path for path in read if path.suffix == ".png"] == [file]
