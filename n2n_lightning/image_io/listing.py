"""Files below a folder: symbolic links are followed, without a loop and without a file twice under real names."""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path

from n2n_lightning.image_io.formats import IMAGE_SUFFIXES, INSTRUMENT_SUFFIXES, UNREAD_PHOTO_SUFFIXES
from n2n_lightning.system.folders import suggest_path

UNREAD_SUFFIXES = (*UNREAD_PHOTO_SUFFIXES, *INSTRUMENT_SUFFIXES)
FolderId = tuple[int, int]  # device and inode, which a folder has under all its names


def list_images(
    folder: Path, wanted: str = "a folder of images", suffixes: Collection[str] = IMAGE_SUFFIXES
) -> list[Path]:
    """Return every image file below ``folder``, sorted, as ``list_files`` does; tell which images are not read.

    Args:
        folder: to look in.
        wanted: what to give instead of a path that is no folder.
        suffixes: of the files that are read.

    Raises:
        ValueError: it is no folder, or holds no such image.
    """
    check_folder(folder, wanted)
    files = list_files(folder, (*suffixes, *UNREAD_SUFFIXES))
    found = [path for path in files if path.suffix.lower() not in UNREAD_SUFFIXES]
    unread = unread_text(files)
    if not found:
        fix = f"but {unread}" if unread else "give a folder that does"
        raise ValueError(f"{folder} holds no images ({' '.join(suffixes)}); {fix}")
    if unread:
        warn_once(f"in {folder}, {unread}")
    return found


def file_or_images(path: Path) -> list[Path]:
    """Return the path itself if it is an image file, or every image file below it, as ``list_images`` does."""
    if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
        return [path]
    return list_images(path, "an image or a folder of images")


def check_folder(folder: Path, wanted: str) -> None:
    """Refuse a path that is no folder, and say what to give instead."""
    if folder.is_dir():
        return
    if folder.exists():
        raise ValueError(f"{folder} is a file; give {wanted}: {folder.parent}, or another that holds this file alone")
    if glob.has_magic(str(folder)):
        first = next(number for number, part in enumerate(folder.parts) if glob.has_magic(part))
        raise ValueError(f"{folder} is a pattern; give {wanted}: {Path(*folder.parts[:first])}")
    raise ValueError(f"{folder} does not exist{suggest_path(folder)}; give {wanted}")


def unread_text(paths: Iterable[Path]) -> str:
    """Return how many of the files are images of kinds that are not read, and what to do; empty if there is none."""
    suffixes = [suffix for path in paths if (suffix := path.suffix.lower()) in UNREAD_SUFFIXES]
    if not suffixes:
        return ""
    counts = ", ".join(f"{count} {suffix}" for suffix, count in sorted(Counter(suffixes).items()))
    files = "1 file is" if len(suffixes) == 1 else f"{len(suffixes)} files are"
    fix = "export TIFF from the program that wrote them" if set(suffixes) & {*INSTRUMENT_SUFFIXES} else ""
    return f"{files} of kinds that cannot be read ({counts}); {fix or 'convert them to TIFF or PNG'}"


@cache
def warn_once(text: str) -> None:
    """Print a warning, each text once in a process, as training and validation may look at one folder."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


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
