"""Files below a folder: links are followed, cycles end, broken links are named."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from n2n_lightning.image_io.listing import list_files, list_images


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Three folders of two images, and a folder to gather them by links."""
    for name in ("one", "two/deep", "three"):
        (tmp_path / "store" / name).mkdir(parents=True)
        for frame in "ab":
            (tmp_path / "store" / name / f"{frame}.png").touch()
    (tmp_path / "root").mkdir()
    return tmp_path / "store"


def link(path: Path, target: str | Path) -> None:
    path.symlink_to(os.path.relpath(target, path.parent) if isinstance(target, Path) else target)


def listed(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in list_images(root)]


def test_folders_behind_links_are_entered(store: Path):
    root = store.parent / "root"
    for name in ("one", "two"):
        link(root / name, store / name)
    (root / "own").mkdir()
    (root / "own/c.png").touch()
    link(root / "own/d.png", store / "three/a.png")
    expected = ["one/a.png", "one/b.png", "own/c.png", "own/d.png", "two/deep/a.png", "two/deep/b.png"]
    assert listed(root) == expected
    link(store.parent / "other", root)
    assert listed(store.parent / "other") == expected, "the root itself may be a link"


def test_links_behind_links_are_followed(store: Path):
    root = store.parent / "root"
    link(store / "one/more", store / "two")
    link(root / "one", store / "one")
    assert listed(root) == ["one/a.png", "one/b.png", "one/more/deep/a.png", "one/more/deep/b.png"]


@pytest.mark.parametrize("target", [".", "..", "../..", "/"])
def test_a_link_to_a_folder_around_it_is_not_followed(store: Path, target: str):
    root = store.parent / "root"
    link(root / "two", store / "two")
    link(root / "back", target)
    link(store / "two/deep/back", target)
    assert listed(root) == ["two/deep/a.png", "two/deep/b.png"]


def test_folders_that_link_to_each_other_end(store: Path):
    names = [f"n{number}" for number in range(12)]  # 12! paths
    for name in names:
        (store / name).mkdir()
        (store / name / "c.png").touch()
    for name in names:
        for other in names:
            if name != other:
                link(store / name / f"to_{other}", store / other)
    root = store.parent / "root"
    link(root / "x", store / "n0")
    found = listed(root)
    assert found[0] == "x/c.png" and len(found) == 12, "each real folder once behind a link"
    assert len(listed(store)) == 18, "links between real folders of the tree add nothing"


def test_a_folder_is_listed_under_its_real_name_or_under_each_link(store: Path):
    root = store.parent / "root"
    (root / "day").mkdir()
    (root / "day/c.png").touch()
    link(root / "a_latest", root / "day")
    assert listed(root) == ["day/c.png"]
    for name in ("first", "second"):
        link(root / name, store / "one")
    assert listed(root) == ["day/c.png", "first/a.png", "first/b.png", "second/a.png", "second/b.png"]


def test_hidden_files_and_folders_are_left_out_but_links_may_lead_there(store: Path):
    root = store.parent / "root"
    (root / ".kept").mkdir()
    (root / ".kept/a.png").touch()
    (root / ".b.png").touch()
    link(root / ".hidden", store / "one")
    link(root / ".broken.png", "nothing")
    with pytest.raises(ValueError, match="holds no images"):
        list_images(root)
    link(root / "shown", root / ".kept")
    assert listed(root) == ["shown/a.png"]


@pytest.mark.parametrize("name", ["c.png", "C.TIF", "scene", "scene_0.5"])
@pytest.mark.parametrize("target", ["nothing", "itself"])
def test_broken_links_are_listed_where_they_may_stand_for_images(store: Path, name: str, target: str):
    link(store / "one" / name, name if target == "itself" else "nothing")
    link(store / "one/notes.txt", "nothing")
    assert sorted(listed(store / "one")) == sorted(["a.png", "b.png", name])


def test_a_folder_that_cannot_be_read_is_named(store: Path, monkeypatch: pytest.MonkeyPatch):
    real = os.scandir

    def scandir(path: str | Path) -> object:
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(ValueError, match=r"deep cannot be read \(Permission denied\); give access"):
        list_files(store, (".png",))


# Files that are no readable images, and paths that are no folders


def test_images_that_are_not_read_are_counted_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("a.HEIC", "b.CR2", "c.cr2", "d.gif", "e.png", "notes.txt", "results.csv", ".f.heic"):
        (tmp_path / name).touch()
    assert list_images(tmp_path) == list_images(tmp_path) == [tmp_path / "e.png"]
    (line,) = capsys.readouterr().err.splitlines()
    assert "4 files" in line and "2 .cr2, 1 .gif, 1 .heic" in line and "PNG" in line and ".txt" not in line


def test_files_of_microscopes_are_to_be_exported(tmp_path: Path):
    (tmp_path / "stack.czi").touch()
    with pytest.raises(ValueError, match=r"holds no images .* 1 file .*1 \.czi.* export TIFF"):
        list_images(tmp_path)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("nowhere", "nowhere does not exist; give a folder of images"),
        ("phtos", "did you mean 'photos'"),
        ("photos/a.png", "photos/a.png is a file; give a folder of images: photos, or another that holds this file"),
        ("photos/*.png", "photos/*.png is a pattern; give a folder of images: photos"),
    ],
)
def test_what_is_no_folder_is_refused_with_what_to_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, words: str
):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Path("photos/a.png").touch()
    with pytest.raises(ValueError, match=re.escape(words)):
        list_images(Path(given))
