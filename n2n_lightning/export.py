"""``python -m n2n_lightning.export CHECKPOINT --format onnx|torch``: a net as one file for other programs."""

from __future__ import annotations

import argparse
import importlib
import io
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n2n_lightning import __version__
from n2n_lightning.system import errors
from n2n_lightning.system.atomic import atomic_write

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

    from n2n_lightning.models.module import DenoiserModule

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # that --format onnx needs
METADATA = "metadata.json"  # the extra file in a .pt2
COMPARED = ((1, 1, 1), (1, 33, 47), (2, 64, 96), (3, 130, 257))  # images, height, width; multiples of the stride or not
LIMIT = 1e-4  # of a difference from PyTorch; sums in another order give some 1e-6


class ExportError(RuntimeError):
    """The net could not be exported, or the file computes something else."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 1 the file could not be made or computes something else, 2 the input was wrong."""
    arguments = parse(argv)
    return errors.run_command(lambda: export_to_file(arguments))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m n2n_lightning.export",
        description="Write a denoiser's net as one file, for ONNX Runtime and the like or for PyTorch without this "
        "package. It is written once it has computed what the net does.",
    )
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="a checkpoint, the folder of a run, or a trained model's name: unet")
    add("--format", choices=SUFFIXES, required=True, help="onnx, or torch for the .pt2 that torch.export.load reads")
    add("--output", metavar="FILE", type=Path, help="the file (default: the run's or the model's name, in this folder)")
    add("--overwrite", action="store_true", help="replace FILE where it exists")
    return parser.parse_args(argv)


def export_to_file(arguments: argparse.Namespace) -> int:
    """Export, compare, write.

    Raises:
        ValueError: the checkpoint or the output cannot be used, or a package is missing; nothing was written.
    """
    from n2n_lightning.models.checkpoint import find_checkpoint, load_denoiser

    checkpoint, kind = find_checkpoint(arguments.checkpoint), arguments.format
    output = arguments.output or Path(default_name(checkpoint) + SUFFIXES[kind])
    check_output(output, kind, overwrite=arguments.overwrite)
    if kind == "onnx":
        check_packages()
    module = load_denoiser(checkpoint)
    try:
        content = export(module, kind)
    except ExportError as error:
        errors.report_error(error)
        return errors.FAILED
    with atomic_write(output) as file:
        file.write(content)
    print(f"{output}, {len(content) / 1e6:.1f} MB")
    return errors.DONE


def default_name(checkpoint: Path) -> str:
    """The run's name, or the file's own where that says more."""
    path = checkpoint.resolve()
    run = path.parents[1] if path.parent.name == "checkpoints" else path.parent
    return run.name if path.stem in ("best", "last") and run.name else path.stem


def check_output(output: Path, kind: str, *, overwrite: bool) -> None:
    if output.suffix != SUFFIXES[kind]:
        raise ValueError(f"the output must end in {SUFFIXES[kind]} for --format {kind}, got {output}; rename it")
    if output.parent.exists() and not output.parent.is_dir():
        raise ValueError(f"{output.parent} is a file, and no folder for the output; give another --output")
    if output.is_dir():
        raise ValueError(f"the output must be a file, {output} is a folder; give another --output")
    if output.exists() and not overwrite:
        raise ValueError(f"{output} exists already; give another --output, or --overwrite to replace it")


def check_packages() -> None:
    try:
        for name in PACKAGES:
            importlib.import_module(name)
    except ImportError as error:
        reason = str(error) or type(error).__name__
        packages = f"{', '.join(PACKAGES[:-1])} and {PACKAGES[-1]}"
        raise ValueError(f"--format onnx needs {packages} ({reason}); pip install 'n2n_lightning[export]'") from error


def export(module: DenoiserModule, kind: str) -> bytes:
    """The file's content, compared with the module.

    Raises:
        ExportError: the net could not be exported, or the file computes something else.
    """
    about = {"family": module.family, "channels": module.hparams["channels"], "n2n_lightning": __version__}
    about |= {"peak": module.peak, "sample_type": module.sample_type}
    write_as, runner = {"onnx": (as_onnx, onnx_runner), "torch": (as_pt2, pt2_runner)}[kind]
    try:
        with quiet():
            content = write_as(traced(module), about)
            run = runner(content)
        check_same_results(module, run)
    except ExportError:
        raise
    except Exception as error:  # the exporters' errors have no class of their own
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ExportError(f"the net could not be exported ({type(error).__name__}: {reason})") from error
    return content


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' progress and warnings from the user, who is shown the comparison instead."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def traced(module: DenoiserModule) -> ExportedProgram:
    """The net as a graph for any number of images of any size from 1 px."""
    import torch
    from torch.fx.experimental import _config

    net = module.net.eval().requires_grad_(False)
    example = torch.zeros(2, module.hparams["channels"], 34, 38)  # a .pt2 carries it along
    free = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    # Otherwise the graph is for sizes like the example's alone: from 2 px, and no multiples of the stride.
    with _config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]  # torch adds it when it is imported
        program = torch.export.export(net, (example,), dynamic_shapes=(free,))
    # What it still asks of sizes comes from torch's choice of a memory layout, on which no result depends; a .pt2 would
    # refuse single images of some nets for it. Whether other sizes come out right is what the comparison shows.
    program._guards_code = []
    return program


def as_onnx(program: ExportedProgram, about: dict[str, Any]) -> bytes:
    """An ONNX model, weights included."""
    import torch

    names = ({0: "batch", 2: "height", 3: "width"},)
    exported = torch.onnx.export(
        program, input_names=["noisy"], output_names=["denoised"], dynamic_shapes=names, verbose=False
    )
    assert exported is not None
    graph = exported.model.graph
    graph.outputs[0].shape = graph.inputs[0].shape  # it says "the smaller of height and padded height"
    for node in graph.all_nodes():
        node.metadata_props.clear()  # source lines, with the paths of this machine
    exported.model.metadata_props.update({key: str(value) for key, value in about.items()})
    content: bytes = exported.model_proto.SerializeToString()
    return content


def onnx_runner(content: bytes) -> Callable[[Tensor], Tensor]:
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda noisy: torch.from_numpy(session.run(["denoised"], {"noisy": noisy.numpy()})[0])


def as_pt2(program: ExportedProgram, about: dict[str, Any]) -> bytes:
    """What ``torch.export.load`` reads."""
    import torch

    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # source lines, with the paths of this machine
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={METADATA: json.dumps(about)})
    return file.getvalue()


def pt2_runner(content: bytes) -> Callable[[Tensor], Tensor]:
    import torch

    return torch.export.load(io.BytesIO(content)).module()


def check_same_results(module: DenoiserModule, run: Callable[[Tensor], Tensor]) -> None:
    """Print the largest difference between the file's results and the net's.

    Raises:
        ExportError: one exceeds the limit.
    """
    import torch

    for count, height, width in COMPARED:
        shape = (count, module.hparams["channels"], height, width)
        noisy = 1.6 * torch.rand(shape, generator=torch.Generator().manual_seed(0)) - 0.3  # also outside [0, 1]
        with torch.no_grad():
            expected, got = module(noisy), run(noisy)
        if got.shape != expected.shape:
            raise ExportError(f"the exported net turns {shape} into {tuple(got.shape)}; nothing was written")
        difference = (got - expected).abs().max().item()
        print(f"{' x '.join(map(str, shape))}: largest difference from PyTorch {difference:.1e}")
        if not difference <= LIMIT:  # not a number is no match either
            raise ExportError(
                f"the difference from PyTorch must be {LIMIT:g} at most, got {difference:.1e}; nothing was written"
            )


if __name__ == "__main__":
    sys.exit(main())
