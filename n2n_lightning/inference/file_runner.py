"""Many files through one denoiser: looked into first, then denoised one by one, each finished or not there at all."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from n2n_lightning.image_io.banded import BandedImage, open_banded
from n2n_lightning.image_io.conversion import check_convertible, converted
from n2n_lightning.image_io.image_file import Array, ImageError, naming
from n2n_lightning.image_io.stack import FLOAT32_MAX, blame
from n2n_lightning.image_io.value_range import found_range
from n2n_lightning.inference.denoiser import Denoiser
from n2n_lightning.inference.jobs import FileJob
from n2n_lightning.inference.manifest import Manifest
from n2n_lightning.inference.tiling import Plan
from n2n_lightning.system.atomic import DISK_FULL

PROGRAM_BYTES = 0.7e9  # Python, torch and the other libraries, and what they keep
SCAN_BYTES = 2**24


class DiskFullError(Exception):
    """There is no room for an output; nothing of it was left behind."""


class Found(NamedTuple):
    """A file that can be denoised, by its header."""

    job: FileJob
    pixels: int  # of all its images
    dtype: np.dtype[Any]
    plan: Plan
    exact: bool  # whether tiles give what the whole image would

    @property
    def kind(self) -> str:
        """Files of a kind have one range: "uint16", "float32", ..."""
        return self.dtype.name


@dataclass
class FileDenoiser:
    """Files to denoise, and how.

    Args:
        denoiser: the net.
        record: of what is done.
        form: of the denoised files; None for each file's own.
        range: the value that is 1 to the net, but for 8 bits; None for the training's, or one that is found.
        faults: of files that cannot be denoised.
    """

    denoiser: Denoiser
    record: Manifest
    form: str | None = None
    range: float | None = None
    faults: list[str] = field(default_factory=list)

    def run(self, jobs: Sequence[FileJob]) -> int:
        """Denoise all that can be; the number of files done.

        Raises:
            DiskFullError: what was finished before stays.
        """
        found = [look for look in map(self.look, jobs) if look is not None]
        ranges: dict[str, float] = {}
        todo = self.unfinished(found, ranges)
        if todo:  # those that are done count for the range too, and are done again where it is another by now
            ranges = self.find_ranges(found)
            todo = self.unfinished(found, ranges)
        skipped = len(found) - len(todo)
        todo = [look for look in todo if self.range_of(look, ranges) is not None]  # the others are faults
        for look in todo:
            if not look.exact:
                print(
                    f"warning: {look.job.input} goes through in tiles, but the net looks at the whole image at once: "
                    "the result differs from that of the whole; more --memory avoids it",
                    file=sys.stderr,
                )
        start, done = time.perf_counter(), []
        with progress(sum(look.pixels for look in todo)) as advance:
            for look in todo:
                if self.denoise(look, ranges, advance):
                    done.append(look)
        print(self.summary(done, skipped, time.perf_counter() - start))
        return len(done)

    def look(self, job: FileJob) -> Found | None:
        """See that a file can be denoised; None, and a fault, when it cannot."""
        path, denoiser = job.input, self.denoiser
        try:
            with opened(path) as picture:
                shape, itemsize = colours(picture), picture.dtype.itemsize
                if not denoiser.takes(shape[3]):
                    raise ImageError(
                        f"{path} has {shape[3]} channels, the net is for {denoiser.channels}; "
                        "--per-channel puts each through it by itself"
                    )
                with naming(path):
                    check_convertible(picture, self.form or picture.form)
                held = picture.held_bytes
                if self.converts(picture):
                    held += 2 * int(np.prod(picture.shape)) * itemsize
                try:
                    plan = denoiser.plan(shape, itemsize, held)
                except ValueError as error:
                    raise ImageError(
                        f"{path} of {shape[2]}x{shape[1]} px {error} of {PROGRAM_BYTES / 1e9:.1f} GB; "
                        "give --memory their sum"
                    ) from error
                if picture.dtype.kind == "f" and self.range and math.frexp(self.range)[0] != 0.5:
                    raise ImageError(
                        f"{path} holds floats, whose range is a power of two, got --range {self.range:.15g}; "
                        "give one, or leave it out"
                    )
                exact = denoiser.reach.is_local or (plan.rows >= shape[1] and plan.columns >= shape[2])
                return Found(job, picture.count * int(np.prod(shape[:3])), picture.dtype, plan, exact)
        except ImageError as error:
            self.faults.append(str(error))
            return None

    def converts(self, picture: BandedImage) -> bool:
        return self.form not in (None, picture.form)

    def find_ranges(self, found: Sequence[Found]) -> dict[str, float]:
        """The range of each kind of file where neither user nor training tells it; faults where there is none."""
        ranges = {}
        unknown = [look for look in found if self.range_of(look, {}) is None]
        for kind in sorted({look.kind for look in unknown}):
            looks = [look for look in unknown if look.kind == kind]
            limits = [(*extremes(look.job.input), str(look.job.input)) for look in looks]
            low, high = min(low for low, _, _ in limits), max(high for _, high, _ in limits)
            try:
                ranges[kind] = found_range(low, high, looks[0].dtype)
            except ValueError as error:
                fault = f"{error} in {kind}; give --range, the value that is to be 1 to the net"
                self.faults += [f"{look.job.input} has no range: {fault}" for look in looks]
                continue
            brightest = next(name for _, most, name in limits if most == high)
            print(f"range of {kind}: 0 to {ranges[kind]:.15g}, found in {brightest}; --range sets another", flush=True)
        return ranges

    def unfinished(self, found: Sequence[Found], ranges: Mapping[str, float]) -> list[Found]:
        return [look for look in found if not self.record.holds(look.job, self.range_of(look, ranges))]

    def range_of(self, look: Found, ranges: Mapping[str, float]) -> float | None:
        """The value that is 1 to the net, told by the user or the training, or one of ``ranges``."""
        told = None if look.dtype == np.uint8 else self.range
        return told or self.denoiser.known_range(look.dtype) or ranges.get(look.kind)

    def denoise(self, look: Found, ranges: dict[str, float], advance: Callable[[int], None]) -> bool:
        """Denoise a file; False, and a fault, when that cannot be done.

        Raises:
            DiskFullError: what was written of it is gone.
        """
        job, start = look.job, time.perf_counter()
        peak = self.range_of(look, ranges)
        assert peak is not None
        try:
            job.output.parent.mkdir(parents=True, exist_ok=True)
            with self.record.finishing(job, range=peak) as part, opened(job.input) as picture:
                target = converted(picture, str(self.form), part) if self.converts(picture) else picture.copied(part)
                with target as write:
                    for group in range(picture.count):
                        for top, rows in self.bands(picture, group, look, peak):
                            write(group, top, rows)
                            advance(int(np.prod(rows.shape[:3])))
        except ImageError as error:
            self.faults.append(str(error))
            return False
        except (OSError, RuntimeError, ValueError) as error:  # of the file system, of torch's memory, of encoders
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                raise DiskFullError(
                    f"the disk is full, {job.output} was not written; make room, then the same command goes on"
                ) from error
            self.faults.append(f"{job.output} cannot be written ({type(error).__name__}: {error})")
            return False
        if not sys.stderr.isatty():
            print(f"{job.output} ({time.perf_counter() - start:.1f} s)", flush=True)
        return True

    def bands(self, picture: BandedImage, group: int, look: Found, peak: float) -> Iterator[tuple[int, Array]]:
        """A group's denoised rows from the top down, alpha as it was."""
        path = look.job.input
        inside = colour_channels(picture)

        def read(top: int, bottom: int) -> Array:
            with blame(path):
                rows = picture.read(group, top, bottom)
                check_finite(rows, group, top)
            return rows[..., inside] if picture.alphas else rows

        for top, rows in self.denoiser.bands(read, colours(picture), peak, plan=look.plan):
            if picture.alphas:
                whole = picture.read(group, top, top + rows.shape[1]).copy()
                whole[..., inside] = rows
                yield top, whole
            else:
                yield top, rows

    def summary(self, done: Sequence[Found], skipped: int, seconds: float) -> str:
        parts = [f"{len(done)} of {len(done) + skipped + len(self.faults)} files denoised"]
        parts += [f"{skipped} done before"] if skipped else []
        parts += [f"{len(self.faults)} failed"] if self.faults else []
        megapixels = sum(look.pixels for look in done) / 1e6
        speed = f": {megapixels:.2f} MP in {seconds:.1f} s, {megapixels / seconds:.3g} MP/s" if done else ""
        return ", ".join(parts) + speed


@contextmanager
def opened(path: Path) -> Iterator[BandedImage]:
    """``open_banded``; only what goes wrong with opening is blamed on the file."""
    with ExitStack() as stack:
        with blame(path):
            picture = stack.enter_context(open_banded(path))
        yield picture


def colour_channels(picture: BandedImage) -> list[int]:
    return [channel for channel in range(picture.shape[3]) if channel not in picture.alphas]


def colours(picture: BandedImage) -> tuple[int, int, int, int]:
    """(images, H, W, C) of a group, alpha left out."""
    count, height, width, channels = picture.shape
    return count, height, width, channels - len(picture.alphas)


def extremes(path: Path) -> tuple[float, float]:
    """Least and greatest colour of a file; zeros for one that cannot be read, which is said later."""
    low, high = 0.0, 0.0
    try:
        with blame(path), open_banded(path) as picture:
            count, height, width, channels = picture.shape
            inside = colour_channels(picture)
            rows = max(SCAN_BYTES // (count * width * channels * picture.dtype.itemsize), 1)
            for group in range(picture.count):
                for top in range(0, height, rows):
                    band = picture.read(group, top, min(top + rows, height))
                    check_finite(band, group, top)
                    band = band[..., inside] if picture.alphas else band
                    low, high = min(low, float(band.min())), max(high, float(band.max()))
    except ImageError:
        return 0.0, 0.0
    return low, high


def check_finite(rows: Array, group: int, top: int) -> None:
    """(images, rows, W, C) are numbers that the net can take."""
    low, high = float(rows.min()), float(rows.max())
    if max(-low, high) <= FLOAT32_MAX:  # which NaN, coming through min and max, is not
        return
    image, row, column, _ = np.argwhere(~(np.abs(rows) <= FLOAT32_MAX))[0]
    raise ImageError(
        f"has pixels that are NaN or infinite, the first at image {group * len(rows) + image}, row {top + row}, "
        f"column {column}; mend or remove it"
    )


@contextmanager
def progress(pixels: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error; the function that moves it by so many pixels."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[done]}"), TimeRemainingColumn())
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda count: None
        return
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("denoising", total=pixels, done="")
        moved = 0

        def advance(count: int) -> None:
            nonlocal moved
            moved += count
            bar.update(task, advance=count, done=f"{moved / 1e6:.1f} of {pixels / 1e6:.1f} MP")

        yield advance
