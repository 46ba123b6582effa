"""The package as a user gets it: built, installed elsewhere, run from an empty folder."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
CHECKOUT_ONLY = ("paper", "fluorescence", "quick_ee559")  # folders of weights


def run(*command: str | Path, cwd: Path) -> str:
    """Return the output of a command that must succeed, run where the checkout cannot be imported by accident."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build_wheel(folder: Path) -> Path:
    folder.mkdir()
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def install(wheel: Path, folder: Path) -> Path:
    """Return the interpreter of a new environment: the wheel, and this environment's packages for all else."""
    venv.create(folder, with_pip=False, symlinks=True)
    interpreter = folder / "bin" / "python"
    (site_packages,) = folder.glob("lib/python*/site-packages")
    # Plain lines of a .pth file extend sys.path without reading the .pth files found there, so that this
    # environment's editable install of the checkout stays out.
    ours = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    (site_packages / "borrowed.pth").write_text("\n".join(ours))
    words = ("install", "--quiet", "--no-deps", "--no-index", "--ignore-installed", wheel)
    run(sys.executable, "-m", "pip", "--python", interpreter, *words, cwd=folder)
    return interpreter


@pytest.mark.slow
def test_the_wheel_works_from_an_empty_folder(tmp_path: Path):
    """One test, because building and installing take longest."""
    wheel = build_wheel(tmp_path / "wheel")
    python = install(wheel, tmp_path / "env")
    check_configuration_and_weights(wheel)
    for check in (check_predict, check_train_and_report):
        folder = tmp_path / check.__name__
        folder.mkdir()
        check(python, folder)


def check_configuration_and_weights(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    packed = {name for name in names if name.endswith(".yaml")}
    assert packed == {f"n2n_lightning/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    packed = {name for name in names if "/weights/" in name}
    trained = {path.relative_to(ROOT) for path in (ROOT / "weights").rglob("*") if path.is_file()}
    assert packed == {f"n2n_lightning/{path}" for path in trained if path.parts[1] not in CHECKOUT_ONLY}
    assert wheel.stat().st_size < 13e6


def check_predict(python: Path, folder: Path) -> None:
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(folder / "a.png")
    names = ("unet", "five_models/nn_sigmoid", "auto")
    lines = [[name, "a.png", "--output", name] for name in names]
    code = f"from n2n_lightning.predict import main; raise SystemExit(any([main(line) for line in {lines}]))"
    run(python, "-c", code, cwd=folder)
    for name in names:
        assert Image.open(folder / name / "a.png").size == (50, 40)
    listed = run(python, "-m", "n2n_lightning.predict", "--list", cwd=folder)
    assert "general " in listed and "impulse" not in listed, "what is installed, and nothing else"


def check_train_and_report(python: Path, folder: Path) -> None:
    assert "train" in run(python.parent / "n2n", "--help", cwd=folder)
    where = run(python, "-c", "import n2n_lightning; print(n2n_lightning.__file__)", cwd=folder)
    assert Path(where.strip()).is_relative_to(python.parents[1])

    example = ("--no-deps", "--no-index", "--no-build-isolation", ROOT / "examples" / "plugin")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", *example, cwd=folder)
    line = ("-m", "model=nn_relu,convtrans_relu,my_net", "loss=my_loss", "debug=fast")
    run(python, "-m", "n2n_lightning.train", *line, cwd=folder)

    results = [json.loads(path.read_text()) for path in sorted(folder.glob("outputs/*/*/result.json"))]
    assert {result["model"] for result in results} == {"nn_relu", "convtrans_relu", "my_net"}
    assert all(result["status"] in ("done", "dead") for result in results)  # four batches train nothing

    run(python, "-m", "n2n_lightning.report", "outputs/debug_fast", cwd=folder)
    assert "Convtrans + ReLU" in (folder / "outputs/debug_fast/report/index.html").read_text()
