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
pytestmark = pytest.mark.xdist_group("wheel")  # one worker builds it, and one environment


def run(*command: str | Path, cwd: Path) -> str:
    """Return the output of a command that must succeed, run where the checkout cannot be imported by accident."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Interpreter of a fresh environment: the wheel, and this environment's packages for all else (no downloads)."""
    folder = tmp_path_factory.mktemp("env")
    venv.create(folder, with_pip=False, symlinks=True)
    interpreter = folder / "bin" / "python"
    (site_packages,) = folder.glob("lib/python*/site-packages")
    # Plain lines of a .pth file extend sys.path without reading the .pth files found there, so that this
    # environment's editable install of the checkout stays out.
    ours = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    (site_packages / "borrowed.pth").write_text("\n".join(ours))
    install = ("install", "--quiet", "--no-deps", "--no-index", "--ignore-installed", wheel)
    run(sys.executable, "-m", "pip", "--python", interpreter, *install, cwd=folder)
    return interpreter


def test_wheel_carries_every_configuration_file(wheel: Path):
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".yaml")}
    assert packed == {f"n2n_lightning/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}


@pytest.mark.slow
def test_wheel_carries_the_trained_models(wheel: Path, python: Path, tmp_path: Path):
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if "/weights/" in name}
    trained = {path.relative_to(ROOT) for path in (ROOT / "weights").rglob("*") if path.is_file()}
    assert packed == {f"n2n_lightning/{path}" for path in trained if path.parts[1] != "paper"}
    assert wheel.stat().st_size < 10e6
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "a.png")
    names = ("unet", "five_models/nn_sigmoid")
    lines = [[name, "a.png", "--output", name] for name in names]
    code = f"from n2n_lightning.predict import main; raise SystemExit(any([main(line) for line in {lines}]))"
    run(python, "-c", code, cwd=tmp_path)
    for name in names:
        assert Image.open(tmp_path / name / "a.png").size == (50, 40)


@pytest.mark.slow
def test_wheel_trains_from_an_empty_folder(python: Path, tmp_path: Path):
    where = run(python, "-c", "import n2n_lightning; print(n2n_lightning.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(python.parents[1])

    run(python, "-m", "n2n_lightning.train", "-m", "model=nn_relu,convtrans_relu", "debug=fast", cwd=tmp_path)

    results = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("outputs/*/*/result.json"))]
    assert {result["model"] for result in results} == {"nn_relu", "convtrans_relu"}
    assert all(result["status"] in ("done", "dead") for result in results)  # four batches train nothing

    run(python, "-m", "n2n_lightning.report", "outputs/debug_fast", cwd=tmp_path)
    assert "Convtrans + ReLU" in (tmp_path / "outputs/debug_fast/report/index.html").read_text()
