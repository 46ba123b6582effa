"""What TensorBoard shows of finished runs: requests to the real server, as its page makes them."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
from PIL import Image
from small_runs import compose_config, read_json, read_table, tiny_overrides, train_in
from warm_processes import SECONDS

from n2n_lightning.training.run import train

pytestmark = pytest.mark.slow  # all read runs of three epochs

Get = Callable[..., Any]
RUNS = {"study/good": "0.1", "study/slow": "0.01", "study/resumed": "0.1"}  # learning rates
SCALARS = {"train/loss", "val/loss", "val/psnr", "val/ssim", "val/psnr_best"}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory, course_data: Path) -> Path:
    """Train three epochs each; one run was cut off when its second epoch had been logged but not saved."""
    folder = tmp_path_factory.mktemp("outputs")
    for run, lr in RUNS.items():
        options = ["model=convtrans_relu", f"optimizer.lr={lr}", "trainer.max_epochs=3"]
        if run == "study/resumed":
            config = compose_config(*tiny_overrides(course_data), *options)
            with pytest.raises(RuntimeError, match="broken off"):
                train(config, folder / run, {"model": "convtrans_relu"}, callbacks=[BreakOff()])
            time.sleep(1.1)  # event files sort by the second, then by a counter of the process as text: 99 after 100
        train_in(folder / run, course_data, *options)
    return folder


class BreakOff(pl.Callback):
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1:
            raise RuntimeError("broken off")


@pytest.fixture(scope="module")
def get(outputs: Path) -> Iterator[Get]:
    """``get(path, **query)`` or ``get(path, body=...)``: return the server's answer, decoded if it is JSON."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(outputs), "--host", "127.0.0.1"]
    server = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(path: str, body: Any = None, **query: Any) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/data/{path}" + (f"?{urllib.parse.urlencode(query)}" if query else ""),
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # this machine, whatever the proxy
        with opener.open(request, timeout=SECONDS) as answer:
            content = answer.read()
            return json.loads(content) if "json" in answer.headers["Content-Type"] else content

    def has_read_all() -> bool:
        try:
            tags = ask("plugin/scalars/tags")
            last = [ask("plugin/scalars/scalars", run=run, tag="train/loss") for run in tags]  # an epoch's last event
        except urllib.error.URLError:
            return False
        return set(tags) == set(RUNS) and all(len(points) >= 3 for points in last)

    try:
        deadline = time.monotonic() + SECONDS
        while not has_read_all():
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server does not show the runs"
            time.sleep(0.2)
        yield ask
    finally:
        server.terminate()
        server.wait(SECONDS)


def values(get: Get, run: str, tag: str) -> list[Any]:
    """Return the series of a scalar without its steps: numbers, and "NaN"."""
    return [value for _, _, value in get("plugin/scalars/scalars", run=run, tag=tag)]


@pytest.mark.parametrize("run", RUNS)
def test_every_epoch_is_shown_once(get: Get, outputs: Path, run: str):
    best = np.maximum.accumulate([float(row["val/psnr"]) for row in read_table(outputs / run)])
    shown = [value for value in values(get, run, "val/psnr_best") if value != "NaN"]  # as it stands before the first
    assert shown == pytest.approx(best, rel=1e-5)
    assert len(get("plugin/images/images", run=run, tag="val/images", sample=0)) == 3


@pytest.mark.parametrize("run", RUNS)
def test_every_run_has_its_scalars(get: Get, run: str):
    tags = set(get("plugin/scalars/tags")[run])
    assert tags >= SCALARS
    assert [tag for tag in tags if "lr-" in tag] == ["train/lr-SGD"]


@pytest.mark.parametrize("tag", ["train/loss", "val/loss", "val/psnr", "val/ssim"])
@pytest.mark.parametrize("run", RUNS)
def test_a_series_is_the_tables_column(get: Get, outputs: Path, run: str, tag: str):
    table = [float(row[tag]) for row in read_table(outputs / run)]
    assert len(table) == 3 and values(get, run, tag) == pytest.approx(table, rel=1e-5)


@pytest.mark.parametrize("run", RUNS)
def test_the_learning_rate_is_the_runs(get: Get, run: str):
    assert values(get, run, "train/lr-SGD") == pytest.approx([float(RUNS[run])] * 3)


def test_pictures_are_rows_of_noisy_denoised_target(get: Get, outputs: Path):
    listed = get("plugin/images/images", run="study/good", tag="val/images", sample=0)
    assert len(listed) == 3
    shown = np.asarray(Image.open(io.BytesIO(get(f"plugin/images/individualImage?{listed[-1]['query']}"))))
    assert shown.shape == (8 * 16, 3 * 16, 3)
    assert read_json(outputs / "study/good/result.json")["best_epoch"] == 3, "the pictures kept are of another epoch"
    with np.load(outputs / "study/good/images.npz") as kept:
        columns = [kept[name].reshape(8 * 16, 16, 3) for name in ("noisy", "denoised", "target")]
    # the logger cuts fractions off where the file rounds
    assert np.abs(shown.astype(int) - np.concatenate(columns, 1)).max() <= 1


def pictures_of(get: Get, run: str, tag: str) -> list[np.ndarray]:
    listed = get("plugin/images/images", run=run, tag=tag, sample=0)
    return [
        np.asarray(Image.open(io.BytesIO(get(f"plugin/images/individualImage?{entry['query']}")))) for entry in listed
    ]


def test_residuals_stand_beside_the_pictures(get: Get, outputs: Path):
    shown = pictures_of(get, "study/good", "val/residual")
    assert len(shown) == 3 and shown[-1].shape == (8 * 16, 2 * 16, 3), "residual | autocorrelation"
    with np.load(outputs / "study/good/images.npz") as kept:
        assert kept["residual"].shape == kept["noisy"].shape and kept["residual"].dtype == np.uint8
        assert np.abs(shown[-1][:, :16].astype(int) - kept["residual"].reshape(8 * 16, 16, 3)).max() <= 1
        inside = (kept["noisy"] > 0) & (kept["noisy"] < 255)
        removed = kept["noisy"].astype(float) - kept["denoised"]
        assert np.corrcoef(removed[inside], kept["residual"][inside])[0, 1] > 0.95
    assert "val/error_map" not in get("plugin/images/tags")["study/good"], "this data has no pairs in validation"


def test_hyper_parameters_rank_the_runs_by_their_best_psnr(get: Get, outputs: Path):
    body = {
        "experimentName": "",
        "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"],
        "colParams": [{"metric": {"group": "", "tag": "val/psnr_best"}, "order": "ORDER_DESC"}],
        "startIndex": 0,
        "sliceSize": 100,
    }
    sessions = {
        session["name"]: {"hparams": group["hparams"], "metrics": session["metricValues"]}
        for group in get("plugin/hparams/session_groups", body=body)["sessionGroups"]
        for session in group["sessions"]
    }
    assert set(sessions) == set(RUNS) and list(sessions)[-1] == "study/slow", "the slow run comes last"
    for run, session in sessions.items():
        assert session["hparams"]["lr"] == float(RUNS[run])
        assert session["hparams"]["model"] == "convtrans_relu"
        (metric,) = session["metrics"]
        assert metric["name"]["tag"] == "val/psnr_best"
        assert metric["value"] == pytest.approx(read_json(outputs / run / "result.json")["val/psnr"], rel=1e-5)
