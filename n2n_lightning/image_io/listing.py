"""Files below a folder: symbolic links are followed, without a loop and without a file twice under real names."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from n2n_lightning.image_io.formats import IMAGE_SUFFIXES
from n2n_lightning.system.folders import suggest_path

FolderId = tuple[int, int]  # device and inode, which a folder has under all its names


def list_images(folder: Path) -> list[Path]:
    """Return every image file below ``folder``, sorted, as ``list_files`` does; a ValueError if there is none."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder{suggest_path(folder)}; give a folder of images")
    found = list_files(folder, IMAGE_SUFFIXES)
    if not found:
        raise ValueError(f"{folder} holds no images ({' '.join(IMAGE_SUFFIXES)}); give a folder that does")
    return found


def list_files(root: Path, suffixes: Collection[str]) -> list[Path]:
    """Return every file below ``root`` with one of the suffixes, sorted; hidden files and folders are left out.

    Folders behind symbolic links are entered, unless they lie below ``root`` under their real names too, or around the
    link. A folder to which several links lead is listed under each. Broken links are listed if they may stand for such
    a file or for a folder, so that whoever opens the files names them.
    """
    entered = {folder_id(parent) for parent in root.resolve().parents}
    files, links = walk_real(root, entered)
    for link in links:
        behind, waiting = set(entered), [link]  # anew for each link from root; each real folder behind it once
        while waiting:
            following = waiting.pop(0)
            around = {folder_id(parent) for parent in following.parent.resolve().parents}
            more, further = walk_real(following, behind, around)
            files += more
            waiting += further
    return sorted(path for path in files if path.suffix.lower() in suffixes or may_be_folder(path))


def walk_real(top: Path, entered: set[FolderId], around: Collection[FolderId] = ()) -> tuple[list[Path], list[Path]]:
    """Return the files in ``top`` and its real sub-folders, and the links to folders that were found there.

    Folders in ``entered`` or ``around`` are left out; those that are visited are added to ``entered``.
    """
    files: list[Path] = []
    links: list[Path] = []
    for name, folders, names in os.walk(top, onerror=refuse_folder):
        place, here = Path(name), folder_id(Path(name))
        if here in entered or here in around:
            folders.clear()
            continue
        entered.add(here)
        shown = [folder for folder in sorted(folders) if not folder.startswith(".")]
        links += [place / folder for folder in shown if (place / folder).is_symlink()]
        folders[:] = [folder for folder in shown if not (place / folder).is_symlink()]
        files += [place / file for file in names if not file.startswith(".") and is_listed(place / file)]
    return files, links


def refuse_folder(error: OSError) -> None:
    """Raise a ValueError for a folder that cannot be read: its images would be missing without a word."""
    raise ValueError(f"{error.filename} cannot be read ({error.strerror}); give access to it, or remove it") from error


def folder_id(folder: Path) -> FolderId:
    stat = folder.stat()
    return stat.st_dev, stat.st_ino


def is_broken_link(path: Path) -> bool:
    """Return whether a path is a link that leads nowhere, or to itself."""
    return os.path.islink(path) and not os.path.exists(path)


def is_listed(path: Path) -> bool:
    """Return whether a path is a file, or a broken link that may have been one."""
    return os.path.isfile(path) or is_broken_link(path)


def may_be_folder(path: Path) -> bool:
    """Return whether a path is a broken link whose name is like a folder's: without the suffix of a kind of file."""
    return not path.suffix[1:2].isalpha() and is_broken_link(path)
