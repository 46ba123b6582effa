"""Files of single noisy images, each denoised as its own noise asks for: the command ``denoise``."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from n2n_lightning.image_io.conversion import WriteRows
from n2n_lightning.image_io.decoding import open_image_file
from n2n_lightning.image_io.image_file import Array, ImageError, ImageReader, name_file
from n2n_lightning.image_io.net_scale import Scale
from n2n_lightning.image_io.value_range import Limits, finite_limits
from n2n_lightning.inference.denoiser import Denoiser, DeviceMemoryError
from n2n_lightning.inference.file_runner import (
    FileDenoiser,
    InspectedFile,
    check_finite,
    denoised_bands,
    held_with,
    progress_bar,
)
from n2n_lightning.inference.single_image import Treatment, choose_treatment, kinds, read_windows, use_adapted
from n2n_lightning.inference.tiling import Plan
from n2n_lightning.training.adaptation import adapt

KEPT_WINDOWS = 300  # of all files together, 0.8 MB each in colour


@dataclass(frozen=True)
class SingleFileDenoiser(FileDenoiser):
    """Denoises files of single noisy images.

    Args:
        minutes: of adaptation, for all images of one kind together; 0 for none.
        spacing: at which the noise of all files is known to be independent, px; None measures it.
    """

    minutes: float = 1.0
    spacing: int | None = None
    treatments: dict[Path, Treatment] = field(default_factory=dict)  # by the file's path

    def prepare(self, files: Sequence[InspectedFile], scales: Mapping[Path, Scale]) -> None:
        """Look at all files, and adapt the net to those whose noise is known."""
        with progress_bar(len(files), "looking", "files") as advance:
            for file in files:
                if treatment := self.look(file, scales[file.job.input], max(KEPT_WINDOWS // len(files), 1)):
                    self.treatments[file.job.input] = treatment
                advance(1)
        if self.minutes:
            groups = kinds(list(self.treatments.values()))
            with progress_bar(60 * self.minutes * len(groups), "adapting", "s") as advance:
                for group in groups:
                    self.adapt(group, advance)

    def look(self, file: InspectedFile, scale: Scale, kept: int) -> Treatment | None:
        """Choose the treatment of a file, and keep at most so many windows; None where it cannot be read.

        What cannot be read is reported later.
        """
        try:
            with open_image_file(file.job.input, self.axes) as image:
                windows = read_windows(image, file.plan.rows, scale, self.bounds(file, scale))
        except ImageError:
            return None
        if finite_limits(windows) is None:
            return None
        treatment = choose_treatment(self.denoiser, windows, scale, file.pixels, kept=kept, spacing=self.spacing)
        if scale.gain is not None:
            low, high = ((value - scale.offset) / scale.peak for value in self.span(file)[:2])
            treatment.noise = treatment.noise._replace(low=low, high=high, saturated=0.0)
        if treatment.noise.kind == "constant" and self.span(file)[0] < self.span(file)[1]:  # beside the windows
            treatment.noise = treatment.noise._replace(kind="clean")
        return treatment

    def adapt(self, group: Sequence[Treatment], advance: Callable[[float], None]) -> None:
        """Adapt the net to the images of one kind."""
        planes = [plane for treatment in group for plane in treatment.planes()]
        adapted = adapt(self.denoiser.module, planes, self.minutes, advance=advance)
        for treatment in group:
            use_adapted(treatment, adapted, self.minutes, len(group))

    def facts(self, file: InspectedFile) -> dict[str, Any]:
        treatment = self.treatments.get(file.job.input)
        return {} if treatment is None else treatment.facts()

    def is_unchanged(self, path: Path) -> bool:
        treatment = self.treatments.get(path)
        return treatment is not None and treatment.denoiser is None

    @contextmanager
    def opened_output(self, image: ImageReader, part: Path) -> Iterator[WriteRows]:
        """Open the output; a file whose pixels are passed through is copied, unless it gets another format."""
        if not self.is_unchanged(image.path) or self.form not in (None, image.form):
            with super().opened_output(image, part) as write:
                yield write
        else:
            yield lambda *_: None
            shutil.copyfile(image.path, part)

    def needed_bytes(self, file: InspectedFile) -> float:
        """Return the memory that a file's treatment takes."""
        treatment = self.treatments.get(file.job.input)
        if treatment is None or treatment.denoiser is None:
            return super().needed_bytes(file)
        try:
            plan = treatment.denoiser.plan(file.shape, file.dtype.itemsize, file.held_bytes)
        except ValueError:  # there is too little, which the file's turn reports
            return 0.0
        return treatment.denoiser.planned_bytes(file.shape, file.dtype.itemsize, plan) + file.held_bytes

    def lines(self, file: InspectedFile) -> list[str]:
        treatment = self.treatments.get(file.job.input)
        return [] if treatment is None else [str(file.job.input), *(f"  {line}" for line in treatment.lines())]

    def bands(
        self, image: ImageReader, group: int, plan: Plan, scale: Scale, bounds: Limits | None
    ) -> Iterator[tuple[int, Array]]:
        """Yield a group's rows as its file's treatment gives them."""
        treatment = self.treatments.get(image.path)
        if treatment is None:
            yield from super().bands(image, group, plan, scale, bounds)
        elif treatment.denoiser is None:
            for top in range(0, image.shape[1], plan.rows):
                rows = image.read(group, top, min(top + plan.rows, image.shape[1]))
                with name_file(image.path):
                    check_finite(rows, group, top)
                yield top, rows
        else:
            plan = plan_for(treatment.denoiser, image, self.form or image.form)
            yield from denoised_bands(treatment.denoiser, image, group, plan, scale, bounds)


def plan_for(denoiser: Denoiser, image: ImageReader, form: str) -> Plan:
    """Return the tiles for a file that is written in this format; an ImageError where there is too little memory."""
    _, height, width, _ = image.shape
    try:
        return denoiser.plan(image.colour_shape, image.dtype.itemsize, held_with(image, form))
    except DeviceMemoryError as error:
        raise ImageError(f"{image.path} of {width}x{height} px {error}") from error
    except ValueError as error:
        raise ImageError(f"{image.path} of {width}x{height} px {error}; give more --memory") from error
