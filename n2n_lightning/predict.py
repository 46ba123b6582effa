"""Denoise image files: ``python -m n2n_lightning.predict CHECKPOINT INPUT... --output DIR``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

from n2n_lightning.image_io.formats import FORMAT_SUFFIXES
from n2n_lightning.system import errors
from n2n_lightning.system.arguments import add_plugins_option, make_parser
from n2n_lightning.system.folders import write_fault

if TYPE_CHECKING:  # at run time they are imported after the arguments are checked, because torch takes seconds
    from n2n_lightning.inference.denoiser import Denoiser
    from n2n_lightning.inference.file_runner import FileDenoiser
    from n2n_lightning.inference.jobs import FileJob
    from n2n_lightning.inference.manifest import Manifest

AUTO = "auto"  # the program chooses: weights, device, precision
BF16_FAMILIES = ("nafnet", "sequential", "unet")  # lose less than 0.02 dB by it: ``python -m benchmarks.bf16``
UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 all done, 1 the work failed, 2 some input was wrong, 130 and 143 on signals."""
    return run_on_files(lambda: denoise_all(parse(argv)))


def run_on_files(work: Callable[[], int]) -> int:
    """Do the work of a command that denoises files, and return its exit code."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages for tensors save a seventh of the time
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files can have any bytes
    return errors.run_command(work)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(
        "predict",
        "Denoise image files: same format, size, type and metadata as the input. The same command again "
        "skips files that are done.",
    )
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="a checkpoint, the folder of a run, a name of --list, or auto")
    add("inputs", metavar="INPUT", nargs="+", help="files, folders (their tree is kept), or patterns such as 'a/*.tif'")
    add("--output", metavar="DIR", type=Path, required=True, help="folder for the denoised files")
    add("--list", action=ListWeights, nargs=0, help="list the trained weights: name, noise, PSNR, size, ... and exit")
    add("--format", choices=sorted(FORMAT_SUFFIXES), help="format of the denoised files (default: each file's own)")
    add("--per-channel", action="store_true", help="denoise each channel by itself")
    add("--axes", type=axes_letters, metavar="TZYX", help="the files' dimensions, slowest first: T, Z, C, Y, X letters")
    add("--range", type=positive, help="value that is 1 for the net (8 bits: 255; default: the training's, or found)")
    add("--memory", type=byte_count, default=4e9, metavar="SIZE", help="memory to use: 2GB, 800MB (default: 4GB)")
    add("--precision", choices=(AUTO, "32", "bf16"), default=AUTO, help="bf16: exact to 3 digits (default: 32 on CPUs)")
    add("--device", default=AUTO, help="cpu, cuda, ... (default: cuda where there is one)")
    add("--overwrite", action="store_true", help="replace files in DIR that this command did not make")
    add_plugins_option(parser)
    return parser.parse_args(argv)


class ListWeights(argparse.Action):
    """The option that prints a table of the trained weights and ends the program."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from n2n_lightning.models.trained import list_trained
        from n2n_lightning.reporting.printing import TextTable

        titles = ("name", "noise", "range", "trained on", "PSNR (dB)", "noisy (dB)", "scored at", "size", "licence")
        rows = [
            (w.name, w.noise, w.range, w.trained_on, w.psnr, w.noisy_psnr, w.scored_at, w.size, w.licence)
            for w in list_trained()
        ]
        numeric = [title.endswith("(dB)") or title == "size" for title in titles]
        TextTable(titles, rows, numeric, fold=True, unbroken="name").show()
        print(f"The name {AUTO} takes general, and says what noise it finds in each file.")
        parser.exit()


def positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text}")
    return value


def axes_letters(text: str) -> str:
    from n2n_lightning.image_io.axes import parse_axes

    try:
        return parse_axes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def byte_count(text: str) -> float:
    """Return the number of bytes.

    >>> byte_count("2GB"), byte_count("500M")
    (2000000000.0, 500000000.0)
    """
    number = text.upper().removesuffix("B").rstrip("KMGT")
    try:
        return positive(number) * UNITS[text.upper().removesuffix("B")[len(number) :]]
    except (KeyError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(f"must be a size such as 2GB or 800MB, got {text}") from None


def denoise_all(arguments: argparse.Namespace) -> int:
    """Find the files, check them, and denoise them.

    Raises:
        ValueError: the input is wrong; nothing was written.
    """
    return run_jobs(*prepare(arguments))


def run_jobs(file_denoiser: FileDenoiser, jobs: list[FileJob]) -> int:
    """Denoise files, report faults at the end, and return the exit code."""
    from n2n_lightning.inference.file_runner import DiskFullError

    faults = []
    try:
        with file_denoiser.manifest.locked():
            for fault in file_denoiser.run(jobs):
                faults.append(fault)
    except DiskFullError as error:
        errors.report_error(error)
        return errors.FAILED
    except (KeyboardInterrupt, SystemExit):
        print("interrupted; the same command goes on", file=sys.stderr)
        raise
    finally:
        for fault in faults:
            print(f"error: {errors.escape_controls(fault, keep='')}", file=sys.stderr)
    return errors.BAD_INPUT if faults else errors.DONE


def prepare(arguments: argparse.Namespace) -> tuple[FileDenoiser, list[FileJob]]:
    """Return the denoiser, and all files with their outputs, after everything was checked that can be."""
    from n2n_lightning.inference.denoiser import Denoiser
    from n2n_lightning.inference.file_runner import PROGRAM_BYTES, FileDenoiser
    from n2n_lightning.inference.jobs import plan_jobs
    from n2n_lightning.inference.manifest import Manifest
    from n2n_lightning.models.checkpoint import find_checkpoint
    from n2n_lightning.models.trained import GENERAL

    chosen = GENERAL if arguments.checkpoint == AUTO else None
    checkpoint, folder = find_checkpoint(chosen or arguments.checkpoint), arguments.output
    jobs = plan_jobs(arguments.inputs, folder, arguments.format)
    working_bytes = arguments.memory - PROGRAM_BYTES
    denoiser = Denoiser.load(checkpoint, working_bytes=working_bytes, per_channel=arguments.per_channel)
    move_to(denoiser, arguments.device)
    denoiser.bf16 = suits_bf16(denoiser) if arguments.precision == AUTO else arguments.precision == "bf16"
    options = {"per_channel": denoiser.per_channel, "bf16": denoiser.bf16}
    named = {"axes": arguments.axes} if arguments.axes else {}  # left out otherwise, as by versions without the option
    free = ["bf16"] if arguments.precision == AUTO else []  # it may be another on the machine that goes on
    manifest = Manifest(folder, checkpoint, options | {"format": arguments.format} | named, free=free)
    prepare_output(manifest, jobs, overwrite=arguments.overwrite)
    return FileDenoiser(denoiser, manifest, arguments.format, arguments.range, arguments.axes, chosen), jobs


def move_to(denoiser: Denoiser, device: str) -> None:
    """Move the net to a device; a ValueError if that cannot be used."""
    import torch

    try:
        denoiser.module.to(("cuda" if torch.cuda.is_available() else "cpu") if device == AUTO else device)
    except (RuntimeError, AssertionError) as error:  # from torch
        raise ValueError(f"--device {device} cannot be used ({error}); give --device cpu") from error


def suits_bf16(denoiser: Denoiser) -> bool:
    """Return whether bf16 is faster on the net's device and leaves the result as good."""
    import torch

    module = denoiser.module
    return (
        module.device.type == "cuda"
        and module.family in BF16_FAMILIES
        and torch.cuda.is_bf16_supported(including_emulation=False)
    )


def prepare_output(manifest: Manifest, jobs: list[FileJob], *, overwrite: bool) -> None:
    """Make the folder of the output, after checking that it can be written and nothing foreign is replaced."""
    foreign = [job.output for job in jobs if job.output.exists() and not manifest.holds(job)]
    if foreign and not overwrite:
        others = f" and {len(foreign) - 1} other outputs are" if len(foreign) > 1 else " is"
        raise ValueError(
            f"{foreign[0]}{others} there already, but not made by this command from the input as it is now; "
            "give another --output, or --overwrite to replace"
        )
    if fault := write_fault(manifest.path):
        raise ValueError(f"--output {manifest.folder} cannot be written ({fault}); give another")
    manifest.folder.mkdir(parents=True, exist_ok=True)


if __name__ == "__main__":
    sys.exit(main())
