"""The files to denoise, and where the output of each goes."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from n2n_lightning.image_io.formats import FORMAT_SUFFIXES, IMAGE_SUFFIXES
from n2n_lightning.image_io.listing import is_listed, list_files, list_images, unread_text, warn_once
from n2n_lightning.system.folders import suggest_path


class FileJob(NamedTuple):
    """A file to denoise."""

    input: Path
    output: Path


def plan_jobs(inputs: Sequence[str], folder: Path, form: str | None) -> list[FileJob]:
    """Return the files that ``inputs`` stand for, each once, and their places under ``folder``.

    Args:
        inputs: files; folders, whose tree is kept; patterns, whose tree is kept from their first wildcard on.
        folder: of the denoised files.
        form: their format; None for each file's own.

    Raises:
        ValueError: an input does not exist, two would go to one place, or one would be overwritten.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--output must be a folder, {folder} is a file; give another")
    target = folder.resolve()
    jobs: dict[str, FileJob] = {}  # by the input's absolute path, in which links stay
    for text in inputs:
        root, found = find_input(text)
        if root.resolve() == target:
            raise ValueError(
                f"--output {folder} is the folder of the input {text}, and inputs are never overwritten; give another"
            )
        nested = root.resolve() in target.parents
        for path in found:
            if nested and target in real_path(path).parents:
                continue  # an earlier output, which lies inside the input
            output = folder / path.relative_to(root)
            output = output if form is None else output.with_suffix(FORMAT_SUFFIXES[form])
            jobs.setdefault(os.path.abspath(path), FileJob(path, output))
    if not jobs:
        raise ValueError(f"{inputs[0]} holds no images but those in --output {folder}; give another --output")
    check_places(list(jobs.values()), folder)
    return list(jobs.values())


def find_input(text: str) -> tuple[Path, list[Path]]:
    """Return the folder from which an input's tree is kept, and the input's files."""
    if not text:  # a shell's variable that is not set
        raise ValueError("an INPUT is empty; give a file, a folder, or a pattern such as 'a/*.tif'")
    path = Path(text)
    if path.is_dir():
        return path, list_images(path)
    if is_listed(path):
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise ValueError(f"{path} is no image ({' '.join(IMAGE_SUFFIXES)}); leave it out, or convert it")
        return path.parent, [path]
    if not glob.has_magic(text):
        near = suggest_path(path)
        raise ValueError(f"{path} does not exist{near}; give a file, a folder, or a pattern such as 'a/*.tif'")
    fixed = path.parts[:-1]
    first = next((number for number, part in enumerate(fixed) if glob.has_magic(part)), len(fixed))
    root = Path(*fixed[:first])
    if "**" in path.parts:  # glob would run in circles through links that lead back
        below = list_files(root, IMAGE_SUFFIXES) if root.is_dir() else []
        matches = [file for file in below if fits_pattern(file.relative_to(root).parts, path.parts[first:])]
    else:
        matches = sorted(map(Path, glob.glob(text)))
    files = [match for match in matches if is_listed(match) and match.suffix.lower() in IMAGE_SUFFIXES]
    if files and (unread := unread_text(matches)):
        warn_once(f"of {text}, {unread}")
    if not files:
        raise ValueError(
            f"{text} matches no image ({' '.join(IMAGE_SUFFIXES)}); give a pattern for files, where ** is any folders: "
            "'a/**/*.tif'"
        )
    return root, files


def fits_pattern(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether the parts of a path fit those of a pattern, in which ``**`` is any number of folders."""
    if not pattern or not parts:
        return not parts and all(part == "**" for part in pattern)
    if pattern[0] == "**":
        return fits_pattern(parts, pattern[1:]) or fits_pattern(parts[1:], pattern)
    return fnmatch.fnmatchcase(parts[0], pattern[0]) and fits_pattern(parts[1:], pattern[1:])


def real_path(path: Path) -> Path:
    """Return the path of an input with all links followed, as far as they lead."""
    return Path(os.path.realpath(path))


def check_places(jobs: Sequence[FileJob], folder: Path) -> None:
    """Refuse outputs that would overwrite an input or each other, or that a link or ``..`` leads out of the folder."""
    target, sources = folder.resolve(), {real_path(path) for path, _ in jobs}
    taken: dict[Path, Path] = {}
    for path, output in jobs:
        place = place_of(output)
        if place in sources:
            raise ValueError(f"{output} is an input, and inputs are never overwritten; give another --output")
        other = taken.setdefault(place, path)
        if other is not path:
            raise ValueError(
                f"{other} and {path} would both go to {place}; denoise them one after the other, "
                "each to its own --output, or give their common folder"
            )
        if target not in place.parents:
            raise ValueError(
                f"{output} lies outside of --output {folder}, at {place}; give a pattern without '..' after its first "
                "wildcard, and an --output that holds no links"
            )


def place_of(path: Path) -> Path:
    """Return the path with all links followed."""
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # a link to itself
        raise ValueError(f"{path} is a link that leads nowhere; remove it, or give another --output") from error
