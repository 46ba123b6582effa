"""Many files through one denoiser: all are inspected first, then denoised, each completely or not at all."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from n2n_lightning.image_io.conversion import WriteRows, check_convertible, open_output
from n2n_lightning.image_io.decoding import open_image_file
from n2n_lightning.image_io.image_file import Array, ImageError, ImageReader, name_file, opacity_fault
from n2n_lightning.image_io.net_scale import PATCH_PX, OffsetSurvey, Scale, find_scale
from n2n_lightning.image_io.stack import BLOCK_BYTES
from n2n_lightning.image_io.value_range import (
    Limits,
    ValueSpan,
    ValueSurvey,
    clip_bounds,
    clipping_text,
    finite_limits,
    image_limits,
    join_spans,
    non_finite_pixels,
    range_text,
    scale_fault,
)
from n2n_lightning.inference.denoiser import Denoiser, DeviceMemoryError
from n2n_lightning.inference.jobs import FileJob
from n2n_lightning.inference.manifest import Manifest
from n2n_lightning.inference.noise_line import noise_line
from n2n_lightning.inference.side_by_side import Reporter, Task, side_by_side
from n2n_lightning.inference.tiling import Plan
from n2n_lightning.system.atomic import DISK_FULL

SMALLEST_RANGE, LARGEST_RANGE = 2.0**-100, 2.0**127  # that float32 holds, and values well below them
PROGRAM_BYTES = 0.7e9  # Python, torch and the other libraries, and what they keep


class DiskFullError(Exception):
    """There is no room for an output; nothing of it was left behind."""


class InspectedFile(NamedTuple):
    """A file that can be denoised, as far as its header tells."""

    job: FileJob
    pixels: int  # of all its images
    channels: int
    dtype: np.dtype[Any]
    plan: Plan
    is_exact: bool  # whether tiles give the same as the whole image
    shape: tuple[int, int, int, int]  # (images, H, W, C) of a group, without alpha
    held_bytes: float  # memory that the file takes beside its tiles

    @property
    def kind(self) -> str:
        """Name of the type: "uint16", "float32", ..."""
        return self.dtype.name


@dataclass(frozen=True)
class FileDenoiser:
    """Denoises files.

    Args:
        denoiser: the net.
        manifest: of what is done.
        form: format of the denoised files; None for each file's own.
        range: the value that is 1 to the net, except for 8 bits; None for the training's, or one that is found.
        axes: letters of the files' dimensions, as ``parse_axes`` returns them; None for those that the files name.
        chosen: name of the net where the program chose it; then it says what noise it finds in each file.
    """

    denoiser: Denoiser
    manifest: Manifest
    form: str | None = None
    range: float | None = None
    axes: str | None = None
    chosen: str | None = None
    spans: dict[Path, ValueSpan] = field(default_factory=dict)  # of the files that were looked through
    limits: dict[Path, Array] = field(default_factory=dict)  # of their images and channels, (2, groups, images, C)

    def run(self, jobs: Sequence[FileJob]) -> Iterator[str]:
        """Denoise all files that can be denoised, and yield one message for each of the others.

        Raises:
            DiskFullError: what was finished before stays.
        """
        files, failed = [], 0
        for job in jobs:
            try:
                files.append(self.inspect(job))
            except ImageError as error:
                failed += 1
                yield str(error)
        todo = self.unfinished(files)
        scales = self.find_scales(todo)
        skipped = len(files) - len(todo)
        checks = ((file.job, self.range_fault(file, scales) or self.scale_fault(file)) for file in todo)
        faults = {job: fault for job, fault in checks if fault}
        failed += len(faults)
        yield from faults.values()
        todo = [file for file in todo if file.job not in faults]
        self.manifest.remove_parts(file.job for file in todo)
        self.prepare(todo, scales)
        for file in todo:
            if not file.is_exact:
                print(
                    f"warning: {file.job.input} goes through in tiles, but the net looks at the whole image at once: "
                    "the result differs from that of the whole; more --memory avoids it",
                    file=sys.stderr,
                )
        self.tell_split([file for file in todo if self.denoiser.splits(file.channels)])
        start, done = time.perf_counter(), []
        with ExitStack() as running:
            advance = running.enter_context(progress_bar(sum(file.pixels for file in todo) / 1e6))
            tasks = [Task(self.needed_bytes(file), partial(self.denoise, file, scales, advance)) for file in todo]
            started = running.enter_context(side_by_side(tasks, self.denoiser.working_bytes))
            for file, progress in zip(todo, started, strict=True):
                try:
                    progress.finish()
                    done.append(file)
                except ImageError as error:
                    failed += 1
                    yield str(error)
        unchanged = sum(self.is_unchanged(file.job.input) for file in done)
        print(summary(done, unchanged, skipped, failed, time.perf_counter() - start))

    def prepare(self, files: Sequence[InspectedFile], scales: Mapping[Path, Scale]) -> None:
        """Do what must be done with all files before the first one is denoised."""

    def facts(self, file: InspectedFile) -> dict[str, Any]:
        """Return what the manifest tells of a file beside its range."""
        return {}

    def is_unchanged(self, path: Path) -> bool:
        """Return whether a file's pixels are passed through."""
        return False

    def lines(self, file: InspectedFile) -> list[str]:
        """Return what is said of a file after it was denoised, beside its name and time."""
        return []

    def inspect(self, job: FileJob) -> InspectedFile:
        """Check by its header that a file can be denoised; raise an ImageError where it cannot."""
        denoiser, path = self.denoiser, job.input
        with open_image_file(path, self.axes) as image, name_file(path):
            image.check_uniform()
            shape, itemsize, form = image.colour_shape, image.dtype.itemsize, self.form or image.form
            if not denoiser.takes(shape[3]):
                named = f"--axes {image.axes.replace('?', 'T', 1)} makes its opacity one more, "
                raise ImageError(
                    f"has {shape[3]} channels, the net is for {denoiser.channels}; "
                    f"{named if image.alphas else ''}--per-channel puts each through it by itself"
                )
            check_convertible(image, form)
            held_bytes = held_with(image, form)
            try:
                plan = denoiser.plan(shape, itemsize, held_bytes)
            except DeviceMemoryError as error:
                raise ImageError(f"of {shape[2]}x{shape[1]} px {error}") from error
            except ValueError as error:
                raise ImageError(
                    f"of {shape[2]}x{shape[1]} px {error} of {PROGRAM_BYTES / 1e9:.1f} GB; give --memory their sum"
                ) from error
            if image.dtype.kind == "f" and self.range and math.frexp(self.range)[0] != 0.5:
                raise ImageError(
                    f"holds floats, whose range must be a power of 2, got --range {self.range:.15g}; "
                    "give one, or leave it out"
                )
            is_exact = denoiser.reach.is_local or (plan.rows >= shape[1] and plan.columns >= shape[2])
            pixels = image.count * math.prod(shape[:3])
            return InspectedFile(job, pixels, shape[3], image.dtype, plan, is_exact, shape, held_bytes)

    def needed_bytes(self, file: InspectedFile) -> float:
        """Return the memory that denoising a file takes."""
        return self.denoiser.planned_bytes(file.shape, file.dtype.itemsize, file.plan) + file.held_bytes

    def tell_split(self, files: Sequence[InspectedFile]) -> None:
        """Say which files go through the net channel by channel, unless that was asked for."""
        if files and not self.denoiser.per_channel:
            others = f" and {len(files) - 1} more" if len(files) > 1 else ""
            count = f"{files[0].channels} channel{'s' if files[0].channels > 1 else ''}"
            print(
                f"{files[0].job.input} ({count}){others}: each channel goes through the net by itself, as a grey image",
                flush=True,
            )

    def find_scales(self, files: Sequence[InspectedFile]) -> dict[Path, Scale]:
        """Return the scale of each file; print a line for those of one type that share one found by their values."""
        scales: dict[Path, Scale] = {}
        groups: dict[tuple[str, Scale], list[InspectedFile]] = {}
        for file in files:
            known = self.known_range(file)
            if known is None:
                span, splits = self.span(file), self.denoiser.splits(file.channels)
                scale = find_scale(span, self.limits[file.job.input], file.dtype, by_channel=splits)
            else:
                has_offset = self.denoiser.needs_offset and file.dtype.kind != "u"
                scale = Scale(known, self.span(file).offset if has_offset else 0.0)
            scales[file.job.input] = scale
            if known is None or scale.offset:
                groups.setdefault((file.kind, scale._replace(gain=None)), []).append(file)
        for (kind, scale), alike in sorted(groups.items()):
            span = join_spans([self.span(file) for file in alike])
            others = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
            found = f"range of {kind}: {range_text(span, scale.peak)}, found in {alike[0].job.input}{others}"
            print(found if self.range else f"{found}; --range sets another", flush=True)
        return scales

    def span(self, file: InspectedFile) -> ValueSpan:
        """Return the values of a file, which is looked through once."""
        path = file.job.input
        if path not in self.spans:
            found = look_through(path, self.axes, with_offset=self.denoiser.needs_offset)
            self.spans[path], self.limits[path] = found
        return self.spans[path]

    def scale_fault(self, file: InspectedFile) -> str | None:
        """Return why a file cannot be scaled as the training's were, if so; a range that was given wins."""
        known = self.denoiser.known_range(file.dtype)
        if file.dtype == np.uint8 or self.range or known is None:
            return None
        trained = self.denoiser.module.reach
        fault = scale_fault(self.span(file), known, trained, "--range ")
        if fault is None:
            return None
        text = f"{file.job.input}: {fault.text}"
        if trained is not None or not fault.dark:
            return text
        print(f"warning: {text}", file=sys.stderr)
        return None

    def range_fault(self, file: InspectedFile, scales: Mapping[Path, Scale]) -> str | None:
        """Return why the net's numbers of 32 bits cannot hold a file's range, if so."""
        peak = scales[file.job.input].peak
        if SMALLEST_RANGE <= peak <= LARGEST_RANGE:
            return None
        rule = f"the range must be from {SMALLEST_RANGE:.2g} to {LARGEST_RANGE:.2g}, got {peak:.3g}"
        return f"{file.job.input}: {rule}; multiply its values by a constant"

    def unfinished(self, files: Sequence[InspectedFile]) -> list[InspectedFile]:
        """Return the files that the manifest does not hold as finished."""
        peaks = [self.known_range(file) for file in files]
        return [
            file
            for file, peak in zip(files, peaks, strict=True)
            if not self.manifest.holds(file.job, peak) or (peak is None and self.manifest.took_range(file.job))
        ]

    def given_range(self, file: InspectedFile) -> float | None:
        """Return the range that the user gave, which is not for 8 bits."""
        return None if file.dtype == np.uint8 else self.range

    def known_range(self, file: InspectedFile) -> float | None:
        """Return the range that the user gave, else the training's; None if it must be found."""
        return self.given_range(file) or self.denoiser.known_range(file.dtype)

    def bounds(self, file: InspectedFile, scale: Scale) -> Limits | None:
        """Return what values are clipped to, None for nothing; a range that the user gave clips none."""
        span = None if self.given_range(file) else self.spans.get(file.job.input)
        return span and clip_bounds(span, scale.peak)

    def denoise(
        self,
        file: InspectedFile,
        scales: Mapping[Path, Scale],
        advance: Callable[[float], None],
        reporter: Reporter,
    ) -> None:
        """Denoise a file.

        Args:
            file: what was found by ``inspect``.
            scales: by the file's path.
            advance: called with the number of megapixels after each band.
            reporter: takes warnings and what was done.

        Raises:
            DiskFullError: what was written of it is gone.
            ImageError: it cannot be read, or its output cannot be written.
        """
        job, start = file.job, time.perf_counter()
        scale = scales[job.input]
        bounds, offset = self.bounds(file, scale), {"offset": scale.offset} if scale.offset else {}
        span = self.spans.get(job.input)
        if span and bounds and not self.is_unchanged(job.input):
            keeping = "--range with the largest value keeps them"
            reporter.say(f"warning: {job.input} has {clipping_text(span, bounds)}; {keeping}", is_warning=True)
        try:
            with (
                self.manifest.finishing(
                    job, range=scale.peak, range_given=bool(self.range), **offset, **self.facts(file)
                ) as part,
                open_image_file(job.input, self.axes) as image,
                self.checked_output(image, part, reporter) as write,
            ):
                if self.chosen and (line := noise_line(image, file.plan.rows, bounds, self.chosen)):
                    reporter.say(line)
                for group in range(image.count):
                    for top, rows in self.bands(image, group, file.plan, scale.part(group), bounds):
                        reporter.check()
                        write(group, top, rows)
                        advance(math.prod(rows.shape[:3]) / 1e6)
        except ImageError:
            raise
        except (OSError, RuntimeError, ValueError) as error:  # of the file system, of torch's memory, of encoders
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                raise DiskFullError(
                    f"the disk is full, {job.output} was not written; make room, then the same command goes on"
                ) from error
            raise ImageError(f"{job.output} cannot be written ({type(error).__name__}: {error})") from error
        if not sys.stderr.isatty():
            reporter.say(f"{job.output} ({time.perf_counter() - start:.1f} s)")
        if lines := self.lines(file):
            reporter.say("\n".join(lines))

    def opened_output(self, image: ImageReader, part: Path) -> AbstractContextManager[WriteRows]:
        """Open the output of an image."""
        return open_output(image, self.form or image.form, part)

    def checked_output(self, image: ImageReader, part: Path, reporter: Reporter) -> AbstractContextManager[WriteRows]:
        """Open the output; refuse a TIFF file, or warn of another, whose opacity is like a channel of an image."""
        fault = opacity_fault(image)
        if fault and image.form == "tiff":  # in the others the last of four channels can be nothing else
            raise ImageError(f"{image.path} {fault}")
        if fault:
            reporter.say(f"warning: {image.path} {fault}", is_warning=True)
        return self.opened_output(image, part)

    def bands(
        self, image: ImageReader, group: int, plan: Plan, scale: Scale, bounds: Limits | None
    ) -> Iterator[tuple[int, Array]]:
        """Yield a group's denoised rows from the top down, alpha as it was: first row, (images, rows, W, C).

        Values are clipped to ``bounds`` first, if there are any.
        """
        return denoised_bands(self.denoiser, image, group, plan, scale, bounds)


def held_with(image: ImageReader, form: str) -> float:
    """Return the memory that a file takes beside its tiles when it is written in this format."""
    converting = 0 if form == image.form else 2 * math.prod(image.shape) * image.dtype.itemsize
    return float(image.held_bytes + converting)


def denoised_bands(
    denoiser: Denoiser, image: ImageReader, group: int, plan: Plan, scale: Scale, bounds: Limits | None
) -> Iterator[tuple[int, Array]]:
    """Yield rows as ``FileDenoiser.bands`` does."""

    def read(top: int, bottom: int) -> Array:
        rows = image.read(group, top, bottom)
        with name_file(image.path):
            check_finite(rows, group, top)
        rows = rows[..., image.colours] if image.alphas else rows
        return rows if bounds is None else np.clip(rows, *bounds).astype(rows.dtype, copy=False)

    for top, rows in denoiser.bands(read, image.colour_shape, scale, plan=plan):
        if image.alphas:
            with_alpha = image.read(group, top, top + rows.shape[1]).copy()
            with_alpha[..., image.colours] = rows
            yield top, with_alpha
        else:
            yield top, rows


def look_through(path: Path, axes: str | None, *, with_offset: bool) -> tuple[ValueSpan, Array]:
    """Return the span of a file's colour values, and the limits of its images and channels, (2, groups, images, C).

    If it cannot be read, which is reported later, they are zeros and empty.
    """
    survey, offsets = ValueSurvey(), OffsetSurvey()
    limits = []
    try:
        with open_image_file(path, axes) as image:
            row_bytes = math.prod(image.shape) // image.shape[1] * image.dtype.itemsize
            rows = max(BLOCK_BYTES // row_bytes // PATCH_PX, 1) * PATCH_PX
            for group in range(image.count):
                for top in range(0, image.shape[1], rows):
                    band = image.read(group, top, min(top + rows, image.shape[1]))
                    check_finite(band, group, top)
                    colours = band[..., image.colours] if image.alphas else band
                    survey.add(colours)
                    band_limits = image_limits(colours)
                    if top == 0:
                        limits.append(band_limits)
                    np.minimum(limits[-1][0], band_limits[0], out=limits[-1][0])
                    np.maximum(limits[-1][1], band_limits[1], out=limits[-1][1])
                    if with_offset:
                        offsets.add(colours)
    except ImageError:
        return ValueSpan(0.0, 0.0), np.empty(0)
    return survey.limits()._replace(offset=offsets.offset()), np.stack(limits, axis=1)


def check_finite(rows: Array, group: int, top: int) -> None:
    """Refuse rows of a group, (images, rows, W, C), with values that are NaN or infinite to the net."""
    if finite_limits(rows) is None:
        image, row, column = np.argwhere(non_finite_pixels(rows))[0]
        number = group * len(rows) + image + 1
        raise ImageError(
            f"has pixels that are NaN or infinite, the first at image {number}, row {top + row}, "
            f"column {column}; fix or remove it"
        )


def summary(done: Sequence[InspectedFile], unchanged: int, skipped: int, failed: int, seconds: float) -> str:
    """Return the last line of the output: how many files were denoised, and how fast."""
    parts = [f"{len(done) - unchanged} of {len(done) + skipped + failed} files denoised"]
    parts += [f"{unchanged} passed through"] if unchanged else []
    parts += [f"{skipped} done before"] if skipped else []
    parts += [f"{failed} failed"] if failed else []
    megapixels = sum(file.pixels for file in done) / 1e6
    speed = f": {megapixels:.2f} MP in {seconds:.1f} s, {megapixels / seconds:.3g} MP/s" if done else ""
    return ", ".join(parts) + speed


@contextmanager
def progress_bar(total: float, text: str = "denoising", unit: str = "MP") -> Iterator[Callable[[float], None]]:
    """Show a bar on standard error if that is a terminal; give the function that moves it."""
    counter = TextColumn(f"{{task.completed:.1f}} of {{task.total:.1f}} {unit}")
    columns = (TextColumn("{task.description}"), BarColumn(), counter, TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(text, total=total)
        yield lambda done: bar.advance(task, done)
