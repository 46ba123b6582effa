"""The report: its page, its figures, and the command."""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from fake_runs import FIVE_MODELS, Kind, write_run, write_study
from matplotlib.figure import Figure
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from n2n_lightning import report
from n2n_lightning.reporting import curves, pictures
from n2n_lightning.reporting.architecture import sequential_rows, unet_blocks
from n2n_lightning.reporting.comparison import Comparison, compare_runs
from n2n_lightning.reporting.curves import draw_curves
from n2n_lightning.reporting.page import PageFigures, render_page
from n2n_lightning.reporting.pictures import draw_best, image_psnr_db
from n2n_lightning.reporting.runs import read_runs
from n2n_lightning.reporting.summary import headline, notes
from n2n_lightning.reporting.sweep import best_text
from n2n_lightning.reporting.table import comparison_csv, comparison_markdown


def comparison_of(root: Path) -> Comparison:
    return compare_runs(read_runs(root).runs)


def page_of(root: Path) -> str:
    """Return the page without its figures, which take seconds."""
    found = read_runs(root)
    return render_page(compare_runs(found.runs), PageFigures([], [], []), name=root.name, warnings=found.warnings)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five finished models, reported."""
    root = write_study(tmp_path_factory.mktemp("runs") / "five")
    assert report.main([str(root)]) == 0
    return root


@pytest.mark.slow
def test_the_report_has_its_files(study: Path) -> None:
    figures = {"psnr.png", "train_loss.png", "val_loss.png", "architecture_unet.png"}
    figures |= {"unet_images.png", "sequential_images.png"}
    assert {path.name for path in (study / "report").iterdir()} == {"index.html", "table.md", "table.csv"} | figures
    for name in figures:
        assert Image.open(study / "report" / name).width >= 1200


@pytest.mark.slow
def test_the_page_needs_nothing_from_outside(study: Path) -> None:
    page = (study / "report" / "index.html").read_text(encoding="utf-8")
    links = re.findall(r"""(?:src|srcset|href|url)\s*[=(]\s*["']?([^"'\s>)]{1,40})""", page)
    assert links and all(link.startswith(("data:image/png;base64,", "#")) for link in links)
    assert "<script" not in page and "@import" not in page
    anchors = {link[1:] for link in links if link.startswith("#")}
    assert anchors <= set(re.findall(r'id="(\w+)"', page))


@pytest.mark.slow
def test_the_page_says_what_the_runs_say(study: Path) -> None:
    page = (study / "report" / "index.html").read_text(encoding="utf-8")
    assert "U-Net is best: 25.40\u00a0dB, 1.30\u00a0dB above Convtrans + ReLU" in page
    assert "makes 5 claims: 5 hold" in page
    assert page.index("Convtrans + ReLU</td>") < page.index("NN + Sigmoid</td>")


def test_other_runs_give_another_headline_and_other_verdicts(tmp_path: Path) -> None:
    write_study(tmp_path, FIVE_MODELS | {"nn_sigmoid": 26.05})
    comparison = comparison_of(tmp_path)
    assert headline(comparison).title == "NN + Sigmoid is best: 26.05 dB, 0.65 dB above U-Net"
    page = page_of(tmp_path)
    assert "does not hold" in page and "1.30" not in page.split("</h1>")[0]


def test_a_study_that_does_worse_than_its_input_says_so(tmp_path: Path) -> None:
    write_run(tmp_path / "nn_relu", "nn_relu", 20.6, images=False)
    title = headline(comparison_of(tmp_path)).title
    assert title == "No run beats its noisy input: the best, NN + ReLU, is 0.50 dB below it"


def test_one_run_gives_a_page(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "unet", "unet", 24.6))
    assert "U-Net reaches 24.60\u00a0dB, 3.50\u00a0dB above its noisy input" in page
    assert "5 cannot be judged yet" in page


@pytest.mark.slow
def test_an_unfinished_sweep_is_reported_and_pictures_of_an_earlier_report_go(tmp_path: Path) -> None:
    write_run(tmp_path / "nn_relu", "nn_relu", 23.1, status="interrupted", epochs=3)
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "result.json").write_text("{")
    (tmp_path / "report").mkdir()
    for name in ("unet_images.png", "mine.png"):
        (tmp_path / "report" / name).write_bytes(b"old")
    assert report.main([str(tmp_path)]) == 0
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "No run has finished yet" in page and "3/20" in page and "unet/result.json is left out" in page
    pictures = {path.name for path in (tmp_path / "report").glob("*.png")}
    assert pictures == {"mine.png", "psnr.png", "train_loss.png", "val_loss.png", "sequential_images.png"}


def test_runs_that_recorded_nothing_give_a_page(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "result.json").write_text('{"model": "drunet", "status": "failed", "reason": "<b>no</b> data"}')
    assert report.main([str(tmp_path)]) == 0
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "No run has succeeded" in page and "&lt;b&gt;no&lt;/b&gt; data" in page


def test_different_data_is_said(tmp_path: Path) -> None:
    write_run(tmp_path / "a", psnr=25.0)
    assert notes(comparison_of(tmp_path)) == []
    write_run(tmp_path / "b", "nn_relu", 27.0, noisy_psnr=24.0, data={"name": "ee559"})
    text = " ".join(notes(comparison_of(tmp_path)))
    assert "21.10 to 24.00 dB" in text and "name is photos or ee559" in text


def test_a_lead_within_the_seeds_spread_is_called_so(tmp_path: Path) -> None:
    for seed, (unet, other) in enumerate([(25.0, 24.9), (25.4, 25.3)]):
        write_run(tmp_path / f"u{seed}", "unet", unet, overrides={"seed": str(seed)})
        write_run(tmp_path / f"c{seed}", "convtrans_relu", other, overrides={"seed": str(seed)})
    assert "may be chance" in headline(comparison_of(tmp_path)).lede


def test_a_bad_run_is_cut_off_by_the_axis_and_named(tmp_path: Path) -> None:
    write_study(tmp_path)
    write_run(tmp_path / "dead", "nn_relu", 6.5, curve=[6.5] * 20, status="dead", overrides={"optimizer": "adam"})
    comparison = comparison_of(tmp_path)
    picture = draw_curves(comparison, "val/psnr")
    assert picture is not None
    assert "below the axis: NN + ReLU (optimizer adam, dead)" in picture.caption


def test_curves_have_a_version_for_narrow_screens_in_both_themes(tmp_path: Path) -> None:
    write_study(tmp_path)
    picture = draw_curves(comparison_of(tmp_path), "val/psnr")
    assert picture is not None
    wide = Image.open(io.BytesIO(picture.png)).width
    for media, png in picture.variants.items():
        assert (Image.open(io.BytesIO(png)).width < 0.6 * wide) == ("max-width" in media)
    assert sum("max-width" in media for media in picture.variants) == 2
    assert "max-width" in next(iter(picture.variants))  # browsers take the first that fits


def test_long_names_stand_below_the_curves_and_are_not_cut(tmp_path: Path) -> None:
    for number in range(3):
        settings = {
            "data.root": f"/a/long/path/of/a/microscope/day {number}",
            "data.match_levels": "true",
            "minutes": "5",
        }
        write_run(tmp_path / str(number), "nafnet32", overrides=settings, images=False, data=settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a layout that does not fit
        picture = draw_curves(comparison_of(tmp_path), "val/psnr")
    assert picture is not None
    for png in (picture.png, *picture.variants.values()):
        pixels = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
        assert (pixels[:, -2:] == pixels[0, -1]).all(), "something is cut off at the right"


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [1, 2, 300])
def test_curves_of_any_length_and_many_settings_are_drawn(tmp_path: Path, epochs: int) -> None:
    for lr in ("0.1", "0.2", "0.3", "0.4", "0.5"):
        write_run(tmp_path / lr, "nn_relu", overrides={"optimizer.lr": lr}, epochs=epochs, images=False)
    picture = draw_curves(comparison_of(tmp_path), "train/loss")
    assert picture is not None and "Bold: each model's best setting" in picture.caption


def test_pictures_show_the_best_runs_with_their_psnr(tmp_path: Path) -> None:
    write_run(tmp_path / "low", "nn_relu", 22.0, images=False)
    folder = write_run(tmp_path / "high", "convtrans_relu", 24.0)
    (picture,) = draw_best(comparison_of(tmp_path))
    with np.load(folder / "images.npz") as file:
        pairs = list(zip(file["denoised"], file["target"], strict=True))
    expected = [float(peak_signal_noise_ratio(*pair)) for pair in pairs]  # type: ignore[no-untyped-call]  # scikit-image
    assert [image_psnr_db(*pair) for pair in pairs] == pytest.approx(expected)
    assert picture.name == "sequential_images.png" and f"{np.mean(expected):.2f} dB after" in picture.caption
    assert Image.open(io.BytesIO(picture.png)).width > 400


def caught_figures(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> list[Figure]:
    """Collect the figures that a module draws from now on."""
    figures: list[Figure] = []

    def keep(figure: Figure, dpi: int = 0) -> bytes:
        figures.append(figure)
        return b""

    monkeypatch.setattr(module, "png_bytes", keep)
    return figures


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        ("clean", ["noisy", "denoised", "target"]),
        ("pairs", ["noisy", "denoised", "second noisy image"]),
        ("single", ["noisy", "denoised"]),
    ],
)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_only_clean_targets_give_pictures_a_psnr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind, rows: list[str], channels: int
) -> None:
    figures = caught_figures(monkeypatch, pictures)
    write_run(tmp_path / "unet", kind=kind, image_shape=[channels, 16, 24])
    (picture,) = draw_best(comparison_of(tmp_path))
    texts = [text.get_text() for text in figures[0].texts]
    assert [text.replace("\n", " ") for text in texts if "dB" not in text] == rows
    assert len(texts) - len(rows) == (8 if kind == "clean" else 0)  # of four images, noisy and denoised
    assert len(figures[0].axes) == 4 * len(rows)
    assert ("dB" in picture.caption) == (kind == "clean") and picture.title == f"U-Net: {', '.join(rows)}"
    assert (f"the first of {channels} channels" in picture.caption) == (channels in (2, 4))


def test_the_residual_has_a_row_where_the_run_kept_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of earlier versions have none. Below each is its autocorrelation, here of stripes and of white noise."""
    figures = caught_figures(monkeypatch, pictures)
    file = write_run(tmp_path / "unet", kind="pairs", image_shape=[1, 32, 24]) / "images.npz"
    with np.load(file) as kept:
        arrays = dict(kept)
    residual = np.random.default_rng(0).integers(0, 255, arrays["noisy"].shape).astype(np.uint8)
    residual[0] = np.arange(24)[None, :, None] % 2 * 200
    np.savez(file, **arrays, residual=residual)
    (picture,) = draw_best(comparison_of(tmp_path))
    assert picture.title.endswith(", residual") and "signal that was removed" in picture.caption
    assert len(figures[0].axes) == 4 * 4
    shown = [float(text.get_text()[4:]) for text in figures[0].texts if text.get_text().startswith("r = ")]
    assert abs(shown[0]) > 0.9 and len(shown) == 4 and all(abs(value) < 0.15 for value in shown[1:])


def test_the_best_seed_without_clean_images_is_pictured(tmp_path: Path) -> None:
    for seed, loss in (("0", 0.2), ("1", 0.1), ("2", 0.3)):
        write_run(tmp_path / seed, kind="single", val_loss=[loss], curve=[20.0], overrides={"seed": seed})
    assert "best epoch, seed 1;" in draw_best(comparison_of(tmp_path))[0].caption


def test_broken_pictures_are_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "unet")
    (folder / "images.npz").write_bytes(b"PK\x03\x04 not a whole archive")
    assert draw_best(comparison_of(tmp_path)) == []


def test_the_loss_has_its_floor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = caught_figures(monkeypatch, curves)
    write_run(tmp_path / "pairs" / "a", kind="pairs")
    write_run(tmp_path / "clean" / "a")
    for kind in ("pairs", "clean"):
        picture = draw_curves(comparison_of(tmp_path / kind), "val/loss")
        axes = figures[-1].axes[0]
        floors = [line for line in axes.lines if list(line.get_ydata()) == [0.0035, 0.0035]]  # type: ignore[arg-type]
        labels = [text.get_text() for text in axes.texts if "floor" in text.get_text()]
        assert picture is not None and ("no net can come below" in picture.caption) == (kind == "pairs")
        if kind == "clean":
            assert not floors and not labels
        else:
            assert floors[0].is_dashed() and labels == ["floor: the targets' noise"]
            assert axes.get_ylim()[0] < 0.0035


@pytest.mark.slow
def test_runs_without_clean_images_have_a_curve_of_their_estimate(tmp_path: Path) -> None:
    write_run(tmp_path / "a", psnr=31.2, kind="pairs", image_shape=[1, 32, 32])
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "psnr.png").write_bytes(b"of an earlier report")
    assert report.main([str(tmp_path)]) == 0
    names = {path.name for path in (tmp_path / "report").glob("*.png")}
    assert names == {"psnr_pairs.png", "train_loss.png", "val_loss.png", "architecture_unet.png", "unet_images.png"}
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "U-Net reaches an estimated 31.20\u00a0dB, 10.10\u00a0dB above its noisy input" in page
    assert "There are no clean images" in page and "31.20 [30.9, 31.6]" in page
    assert (
        "1 channel," in page
        and "claims" not in page
        and "SSIM" not in page
        and "against the clean image, with" not in page
    )


def test_a_lead_between_estimates_is_said(tmp_path: Path) -> None:
    write_study(tmp_path, {"unet": 31.2, "nn_relu": 30.0}, kind="pairs")
    found = headline(comparison_of(tmp_path))
    assert found.title == "U-Net is best: an estimated 31.20 dB, 1.20 dB above NN + ReLU"
    assert "The noisy validation images have 21.10 dB" in found.lede
    assert found.key_numbers[:2] == [
        ("31.20 dB", "PSNR from noisy pairs, U-Net"),
        ("+10.10 dB", "above the noisy input"),
    ]


def test_single_noisy_images_have_no_psnr_anywhere(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "unet", kind="single")
    assert headline(comparison_of(tmp_path)).title == "U-Net reaches a val/loss of 0.004"
    write_run(tmp_path / "b", "nn_relu", kind="single", loss={"name": "l1"}, val_loss=[0.1] * 20)
    assert headline(comparison_of(tmp_path)).title == "U-Net has the best val/loss: 0.004"
    assert "different losses cannot be compared: l2, l1" in " ".join(notes(comparison_of(tmp_path)))
    assert " dB" not in page_of(tmp_path) and "\u00a0dB" not in page_of(tmp_path)


def test_mixed_runs_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = caught_figures(monkeypatch, curves)
    write_study(tmp_path, {"unet": 25.4, "nn_relu": 23.8})
    write_run(tmp_path / "pairs", "drunet", 31.2, kind="pairs")
    comparison = comparison_of(tmp_path)
    assert headline(comparison).title == "U-Net is best: 25.40 dB, 1.60 dB above NN + ReLU"
    assert "2 of 3 runs are ranked" in headline(comparison).lede
    assert "Runs measured by val/psnr_pairs are not ranked" in " ".join(notes(comparison))
    picture = draw_curves(comparison, "val/loss")
    assert picture is not None and "A cross" not in picture.caption  # it is done and not dead
    assert all(line.get_marker() != "X" for line in figures[0].axes[0].lines)
    page = page_of(tmp_path)
    assert "no clean images: val/psnr_pairs 31.20 dB" in page and "independent" in page and "SSIM" in page


# Filters beside the net


def filters_of(best: float) -> dict[str, dict[str, float]]:
    scores = {"median": best - 2, "gaussian": best - 1, "non_local_means": best}
    return {name: {"strength": 1.0, "psnr_pairs": score} for name, score in scores.items()}


def test_filters_stand_beside_the_noisy_input(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "unet", 31.0, kind="pairs", images=False, filters=filters_of(29.76))
    comparison = comparison_of(tmp_path)
    table = comparison_markdown(comparison)
    assert "| noisy (dB) | best filter (dB) |" in table and "| 29.76, non-local means |" in table
    assert "non-local means 29.8, Gaussian blur 28.8, median 27.8 dB." in table and "better than the net" not in table
    assert "The best filter there, non-local means, has 29.76 dB." in headline(comparison).lede
    assert "Gaussian blur 28.8" in page_of(tmp_path) and not notes(comparison)
    rows = list(csv.DictReader(io.StringIO(comparison_csv(comparison))))
    assert float(rows[0]["best_filter"]) == 29.76


def test_a_net_that_loses_to_a_filter_is_named_with_what_helps(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "unet", 26.13, kind="pairs", images=False, filters=filters_of(29.76))
    write_run(tmp_path / "b", "nn_relu", 31.0, kind="pairs", images=False, filters=filters_of(29.76))
    comparison = comparison_of(tmp_path)
    (note,) = (text for text in notes(comparison) if "filter" in text)
    assert "(U-Net: non-local means is 3.63 dB better)" in note and "init_from" in note
    assert note in comparison_markdown(comparison) and note in page_of(tmp_path)
    assert best_text(tmp_path / "a") == ("done", "best val/psnr_pairs 26.13 dB, non-local means is 3.63 dB better")
    assert best_text(tmp_path / "b") == ("done", "best val/psnr_pairs 31.00 dB")


def test_the_advice_of_the_report_follows_from_the_run(tmp_path: Path) -> None:
    done = {"config": {"minutes": 2.0}, "start": "starting from weights/general"}
    write_run(tmp_path / "a", "unet", 26.13, kind="pairs", images=False, filters=filters_of(29.76), **done)
    (note,) = (text for text in notes(comparison_of(tmp_path)) if "filter" in text)
    assert "minutes=" in note and "init_from" not in note and "max_epochs" not in note


def test_runs_without_clean_images_show_their_estimate_beside_others(tmp_path: Path) -> None:
    write_run(tmp_path / "demo/unet", "unet", 25.4, images=False)
    minutes = {"config": {"minutes": 2.0, "trainer": {"max_epochs": 20}}}
    own = {"data": "burst", "minutes": "2"}
    write_run(tmp_path / "cat", "unet", 31.0, kind="pairs", images=False, overrides=own, **minutes)
    write_run(tmp_path / "dog", "unet", 32.0, images=False, overrides={"trainer.max_epochs": "5"})
    rows = list(csv.DictReader(io.StringIO(comparison_csv(comparison_of(tmp_path)))))
    cat = next(row for row in rows if row["data"] == "burst")
    assert float(cat["val/psnr_pairs"]) == 31.0 and float(cat["noisy_psnr_pairs"]) == 21.1 and not cat["val/psnr"]
    assert float(cat["gain_db"]) == pytest.approx(9.9)
    assert cat["study"] == tmp_path.name, "not ., the folder that was searched"
    assert cat["trainer.max_epochs"] == "by minutes", "nobody typed it"
    others = [row for row in rows if row is not cat]
    assert not any(row["val/psnr_pairs"] or row["noisy_psnr_pairs"] for row in others)
    table = comparison_markdown(comparison_of(tmp_path))
    assert "| PSNR from noisy pairs (dB) |" in table and "| noisy, from noisy pairs (dB) |" in table


def test_many_nets_that_lose_are_counted(tmp_path: Path) -> None:
    for model, loss in zip(FIVE_MODELS, range(5), strict=True):
        write_run(tmp_path / model, model, 26.0 - loss, kind="pairs", images=False, filters=filters_of(29.76 + loss))
    comparison = comparison_of(tmp_path)
    assert "(5 of 5 rows)" in notes(comparison)[0]
    assert "U-Net: non-local means 29.8" in comparison_markdown(comparison), "filters differ from row to row"


def test_the_drawn_unet_is_the_papers() -> None:
    blocks, parameters = unet_blocks(3)
    assert parameters == 991_203
    encoder = [layer.name for (side, _), layers in blocks.items() if side == "enc" for layer in layers]
    assert encoder == [f"enc_conv{i}" for i in range(7)]
    assert {level for side, level in blocks if side == "enc"} == set(range(6))
    assert [level for side, level in blocks if side == "dec"] == [4, 3, 2, 1, 0]
    assert blocks["dec", 0][0].inputs == 99 and blocks["dec", 3][0].inputs == 144
    assert [channels for _, _, channels in sequential_rows(3)] == [48, 48, 96, 96, 48, 48, 3, 3]


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "n2n_lightning.report", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_command_writes_where_it_is_told_and_says_so(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "unet", "unet", 25.0)
    done = run_command(str(tmp_path / "runs"), "--output", str(tmp_path / "there"))
    assert done.returncode == 0 and done.stderr == ""
    assert str(tmp_path / "there" / "index.html") in done.stdout and "U-Net" in done.stdout and "25.00" in done.stdout
    assert not (tmp_path / "runs" / "report").exists()


@pytest.mark.parametrize("kind", ["missing", "empty", "broken"])
def test_nothing_to_report_on_is_exit_code_2(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "runs"
    if kind != "missing":
        folder.mkdir()
    if kind == "broken":
        (folder / "result.json").write_text("{")
    done = run_command(str(folder))
    assert done.returncode == 2 and "Traceback" not in done.stderr and done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(errors) == 1 and errors[0].startswith("error: ") and str(folder) in errors[0]


def test_a_report_that_cannot_be_written_is_exit_code_1(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "a", images=False)
    (tmp_path / "file").write_text("")
    assert report.main([str(tmp_path / "runs"), "--output", str(tmp_path / "file")]) == 1
