"""What the report says of a search; it needs no Optuna."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_runs import write_run

from n2n_lightning import report
from n2n_lightning.reporting.comparison import compare_runs
from n2n_lightning.reporting.page import PageFigures, render_page
from n2n_lightning.reporting.runs import read_runs
from n2n_lightning.reporting.search import FILE, Search, Trial, read_search
from n2n_lightning.reporting.search_figure import Coordinate, draw_search, make_coordinate, value_coordinate
from n2n_lightning.reporting.table import terminal_table

SPACE = {"optimizer.lr": "tag(log,interval(1e-4,1))", "model": "choice(unet,nn_relu)"}


def trial(number: int, state: str, value: float | None, epochs: int | None, rate: str = "0.01") -> dict[str, Any]:
    params = {"optimizer.lr": rate, "model": "unet"}
    return {"number": number, "state": state, "value": value, "epochs": epochs, "folder": "a", "params": params}


def write_search(folder: Path, *trials: dict[str, Any], **changes: Any) -> Search:
    record = {"monitor": "val/psnr", "direction": "maximize", "space": SPACE, "trials": list(trials)}
    record |= {"importances": {"optimizer.lr": 0.75, "model": 0.25}} | changes
    folder.mkdir(exist_ok=True)
    (folder / FILE).write_text(json.dumps(record))
    found = read_search(folder)
    assert found is not None
    return found


TRIALS = (
    trial(0, "complete", 24.0, 9),
    trial(1, "failed", None, None),
    trial(2, "pruned", 23.0, 1, "1"),
    trial(3, "complete", 25.0, 9, "0.1"),
    trial(4, "pruned", 20.0, 4),
    trial(5, "interrupted", None, 2),
)


def test_trials_are_ranked_by_value_then_by_how_far_they_came(tmp_path: Path):
    search = write_search(tmp_path, *TRIALS)
    assert [one.number for one in search.trials] == [3, 0, 4, 2, 5, 1]
    assert search.headline.startswith("6 trials: 2 complete, 2 pruned, 1 interrupted, 1 failed. The best, trial 3,")
    assert "25.00 dB" in search.headline and "optimizer.lr 0.1" in search.headline
    search = write_search(tmp_path, *TRIALS, direction="minimize", monitor="val/loss")
    assert [one.number for one in search.trials][:2] == [0, 3]


def test_a_folder_without_a_search_has_none(tmp_path: Path):
    assert read_search(tmp_path) is None
    assert write_search(tmp_path, trial(0, "failed", None, None)).headline == "1 trials: 1 failed."


def test_coordinates_have_a_scale_for_numbers_and_a_place_for_each_word(tmp_path: Path):
    search = write_search(tmp_path, *TRIALS)
    rates = make_coordinate(search, "optimizer.lr", ["0.01", "1", "0.1"])
    assert rates.heights == pytest.approx({"0.01": 0, "0.1": 0.5, "1": 1}) and "log" in rates.title
    models = make_coordinate(search, "model", ["unet", "nn_relu", "unet"])
    assert models.heights == {"nn_relu": 0, "unet": 1} and models.ticks == {0: "nn_relu", 1: "unet"}
    assert make_coordinate(search, "optimizer.lr", ["0.1"]).heights == {"0.1": 0}


def test_a_value_far_below_the_others_does_not_stretch_its_axis():
    def axis(values: list[float], pruned: float) -> Coordinate:
        trials = [Trial(**trial(number, "complete", value, 9)) for number, value in enumerate(values)]
        return value_coordinate("val/psnr", [*trials, Trial(**trial(9, "pruned", pruned, 1))])

    far = axis([5.0, 23.0, 24.0, 24.5, 25.0], pruned=10.0)
    assert far.heights["5.0"] == far.heights["10.0"] == 0 and far.heights["25.0"] == 1
    assert far.heights["23.0"] == pytest.approx(2.25 / 4.25)  # from 23 - 1.5 x (24.5 - 23)
    assert far.ticks[0] == "≤ 20.75" and far.ticks[1] == "25"
    assert set(axis([1.0, 1.0], pruned=1.0).heights.values()) == {0}


def test_the_page_shows_trials_importances_and_the_figure(tmp_path: Path):
    write_run(tmp_path / "a", psnr=25.0)
    write_run(tmp_path / "b", psnr=23.0, status="pruned", reason="epoch 1/9: behind", epochs=1, overrides={"seed": "1"})
    search = write_search(tmp_path, *TRIALS)
    comparison = compare_runs(read_runs(tmp_path).runs)
    (figure,) = draw_search(search)
    page = render_page(comparison, PageFigures([], [], [], [figure]), name="s", search=search)
    assert search.headline in page and "75 %" in page and figure.caption in page and 'href="#search"' in page
    assert "epoch 1/9: behind" in page
    assert "pruned" in terminal_table(comparison).text()
    assert 'href="#search"' not in render_page(comparison, PageFigures([], [], []), name="s")
    assert not draw_search(write_search(tmp_path, *TRIALS[1:3]))  # no two values to compare


@pytest.mark.slow
def test_the_report_of_a_searchs_folder_has_its_figure(tmp_path: Path):
    write_run(tmp_path / "a", psnr=25.0, images=False)
    write_search(tmp_path, *TRIALS)
    assert report.main([str(tmp_path)]) == 0
    assert (tmp_path / "report/search.png").exists()
    assert "Which settings mattered" in (tmp_path / "report/index.html").read_text()
