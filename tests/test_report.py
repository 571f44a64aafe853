"""The report command on a small real sweep, and on scores of new data; the page in a browser."""

import base64
import csv
import hashlib
import html
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from deepsvdd_jax import datasets
from deepsvdd_jax.cli.commands import report, sweep
from deepsvdd_jax.cli.reporting import score_report
from deepsvdd_jax.configs import DataConfig
from deepsvdd_jax.io import models
from deepsvdd_jax.viz import pages
from deepsvdd_jax.viz.page_script import SCRIPT
from tests.helpers import rows_of

Call = Callable[..., int]
Calling = Callable[[ModuleType], AbstractContextManager[Call]]
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture(scope="module")
def swept(
    request: pytest.FixtureRequest, calling: Calling, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A sweep's folder with its report."""
    out = tmp_path_factory.mktemp("report") / "digits"
    # Programs that run for a second are compiled for longer than that.
    jax.config.update("jax_disable_most_optimizations", True)
    request.addfinalizer(lambda: jax.config.update("jax_disable_most_optimizations", False))
    with calling(sweep) as call:
        methods = "--methods=deep_svdd,dcae,isolation_forest"
        small = ("--normal_classes=0,1", "--seeds=2", "--epochs=2", "--milestones=1")
        assert call(*small, methods, "--save_models", f"--out={out}") == 0
    with calling(report) as call:
        assert call(f"--out={out}") == 0
    return out


@pytest.fixture
def reporting(calling: Calling) -> Iterator[Call]:
    with calling(report) as call:
        yield call


def signed(out: Path) -> None:
    """Makes edited files of a sweep pass for its own."""
    for path in (out / "rows").glob("*.json"):
        kept = json.loads(path.read_text())
        for name in kept["files"]:
            kept["files"][name] = hashlib.sha256((out / name).read_bytes()).hexdigest()
        path.write_text(json.dumps(kept))


def text_of(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]*>", " ", page.read_text().split("</style>")[1]))


def copied(swept: Path, folder: Path) -> Path:
    return Path(shutil.copytree(swept, folder, ignore=shutil.ignore_patterns("report*")))


# --- a sweep ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_page_holds_the_summary_and_every_section(swept: Path) -> None:
    page = (swept / "report.html").read_text()
    text = text_of(swept / "report.html")
    assert "Normal: each of 2 classes in turn; anomalous: all others." in text
    for row in rows_of(swept / "summary.csv"):
        assert f"{100 * float(row['auroc_mean']):.2f}" in text
        assert f"{100 * float(row['auroc_ensemble']):.2f}" in text
    for row in rows_of(swept / "runs.csv"):
        assert f"{100 * float(row['average_precision']):.2f}" in text
    anchors = re.findall(r'<section id="([\w-]+)"', page)
    assert anchors == [
        *("summary", "roc", "scores", "training", "images"),
        *("reconstructions", "filters", "embeddings", "runs", "settings"),
    ]
    assert re.findall(r'<a href="#([\w-]+)"', page) == anchors
    versions = json.loads((swept / "config.json").read_text())["versions"]
    assert "versions.jax" in text and versions["jax"] in text
    assert "missing" not in re.sub("<style>.*</style>", "", page, flags=re.DOTALL)


@pytest.mark.slow
def test_pictures_are_files_too(swept: Path) -> None:
    files = {path.name for path in (swept / "report").iterdir()}
    stems = {re.sub(r"-class\d-seed\d", "", name).removesuffix(".png") for name in files}
    deep = {"training-loss", "training-parameter-norm", "distances", "scores", "filters"}
    assert stems == {
        *("classes", "roc", "scores-isolation_forest", "reconstructions-dcae"),
        *("most-normal-deep_svdd", "most-anomalous-deep_svdd"),
        *(f"{name}-{method}" for name in deep for method in ("deep_svdd", "dcae")),
        *(f"embeddings-{method}" for method in ("deep_svdd", "dcae")),
    }
    embedded = (swept / "report.html").read_text().count("<img ")
    assert embedded == len(files) == 4 + 2 * 2 + 2 * len(deep) + 2
    for path in (swept / "report").iterdir():
        assert min(pages.png_size(path.read_bytes())) > 50
    assert (swept / "report.html").stat().st_size < 2e6


@pytest.mark.slow
def test_wrong_calls_are_counted(swept: Path) -> None:
    data = datasets.load(DataConfig("digits"))
    for label in (0, 1):
        stored = np.load(swept / "scores" / f"deep_svdd-class{label}-seed0.npz")
        (row,) = (
            row
            for row in rows_of(swept / "runs.csv")
            if (row["method"], row["normal_class"], row["seed"]) == ("deep_svdd", str(label), "0")
        )
        is_anomalous = data.y_test != label
        wrong = (stored["scores"] > float(row["threshold"])) != is_anomalous
        order = np.argsort(stored["scores"])
        for kind, chosen in (("normal", order[:32]), ("anomalous", order[-32:])):
            expected = f"most {kind} · {wrong[chosen].sum()} of 32 called wrongly"
            assert expected in text_of(swept / "report.html")


@pytest.mark.slow
def test_what_is_missing_is_said(swept: Path, tmp_path: Path, reporting: Call) -> None:
    """No models, data that are gone, one class; and histories with the AUROC of every epoch."""
    out = copied(swept, tmp_path / "out")
    shutil.rmtree(out / "models")
    config = json.loads((out / "config.json").read_text())
    config["data"]["name"], config["data_dir"] = "npz", str(tmp_path / "gone.npz")
    (out / "config.json").write_text(json.dumps(config))
    for path in (out / "history").glob("deep_svdd*.csv"):
        lines = path.read_text().splitlines()
        cells = ["test_auroc", "0.75", "0.875"]
        path.write_text("\n".join(map(",".join, zip(lines, cells, strict=True))) + "\n")
    signed(out)
    assert reporting(f"--out={out}", "--normal_classes=1") == 0
    text = text_of(out / "report.html")
    assert "gone.npz" in text and f"python -m experiments.report --out={out} --data_dir=" in text
    assert "without --save_models" in text and "--save_models --out=" in text
    names = {path.name for path in (out / "report").iterdir()}
    assert "training-test-auroc-deep_svdd.png" in names
    assert not any(name.startswith(("most", "filters", "embeddings", "recon")) for name in names)
    assert "Normal: class 1; anomalous: all others." in text and "6 runs" in text


@pytest.mark.slow
def test_other_data_are_not_shown_as_the_sweeps(
    swept: Path, tmp_path: Path, reporting: Call
) -> None:
    out = copied(swept, tmp_path / "out")
    shutil.rmtree(out / "models")
    images, labels = np.zeros((30, 8, 8, 1), np.float32), np.arange(30) % 3
    np.savez(tmp_path / "x.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    config = json.loads((out / "config.json").read_text())
    config["data"]["name"] = "npz"
    (out / "config.json").write_text(json.dumps(config))
    assert reporting(f"--out={out}", f"--data_dir={tmp_path / 'x.npz'}", "--normal_classes=0") == 0
    assert "are not those that the sweep has scored" in text_of(out / "report.html")


def test_tables_have_no_images(tmp_path: Path, calling: Calling) -> None:
    values, labels = np.random.default_rng(0).normal(size=(80, 4)), np.arange(80) % 2
    path, out = tmp_path / "table.npz", tmp_path / "out"
    np.savez(path, x_train=values, y_train=labels, x_test=values, y_test=labels)
    with calling(sweep) as call:
        data = ("--dataset=npz", f"--data_dir={path}", "--seeds=1", "--normal_classes=0")
        assert call(*data, "--methods=isolation_forest", f"--out={out}") == 0
    with calling(report) as call:
        assert call(f"--out={out}") == 0
    text = text_of(out / "report.html")
    assert "there are no images to show" in text
    assert "None of these methods is trained by epochs" in text


@pytest.mark.parametrize(
    ("channels", "expected"), [(1, "most normal"), (2, "Images of 2 channels")]
)
def test_images_of_any_range_and_channels(
    tmp_path: Path, calling: Calling, channels: int, expected: str
) -> None:
    values = np.random.default_rng(0).normal(0, 40, size=(40, 5, 5, channels))
    labels, path, out = np.arange(40) % 2, tmp_path / "images.npz", tmp_path / "out"
    np.savez(path, x_train=values, y_train=labels, x_test=values, y_test=labels)
    with calling(sweep) as call:
        data = ("--dataset=npz", f"--data_dir={path}", "--seeds=1", "--normal_classes=0")
        assert call(*data, "--methods=isolation_forest", f"--out={out}") == 0
    with calling(report) as call:
        assert call(f"--out={out}") == 0
    assert expected in text_of(out / "report.html")


@pytest.mark.slow
def test_failed_runs_are_named(swept: Path, tmp_path: Path, reporting: Call) -> None:
    out = copied(swept, tmp_path / "out")
    shutil.rmtree(out / "models")
    for path in (out / "rows").glob("d*.json"):
        path.unlink()
    path = out / "rows" / "isolation_forest-class1-seed0.json"
    kept = json.loads(path.read_text())
    kept["row"] |= {"auroc": "", "threshold": "", "failure": "out of luck"}
    path.write_text(json.dumps(kept))
    assert reporting(f"--out={out}", "--normal_classes=1") == 0
    expected = "1 run failed: isolation_forest-class1-seed0 (out of luck)."
    assert expected in text_of(out / "report.html")


@pytest.mark.slow
def test_a_damaged_model_is_named(swept: Path, tmp_path: Path, reporting: Call) -> None:
    out = copied(swept, tmp_path / "out")
    (arrays,) = (out / "models" / "deep_svdd-class1-seed0").glob("arrays-*.npz")
    arrays.write_bytes(b"broken")
    for path in (out / "rows").glob("*.json"):
        if not path.name.startswith("deep_svdd"):
            path.unlink()
    assert reporting(f"--out={out}", "--normal_classes=1") == 0
    assert re.search(r"arrays-\w+\.npz: damaged", text_of(out / "report.html"))


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_bad_input_ends_in_one_line(
    swept: Path, tmp_path: Path, reporting: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text("{")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    columns = copied(swept, tmp_path / "columns")
    config = json.loads((columns / "config.json").read_text())
    (columns / "config.json").write_text(json.dumps({**config, "data": 3}))
    history = copied(swept, tmp_path / "history")
    (history / "history" / "dcae-class0-seed0.csv").write_text("epoch,loss\n1\n")
    signed(history)
    words = copied(swept, tmp_path / "words")
    (words / "history" / "dcae-class0-seed0.csv").write_text("epoch,loss\n1,low\n")
    signed(words)
    cases = {
        (): "out is not given",
        (f"--out={words}",): "dcae-class0-seed0.csv: damaged",
        (f"--out={history}",): "dcae-class0-seed0.csv: damaged",
        (f"--out={tmp_path / 'none'}",): "holds no sweep",
        (f"--out={tmp_path / 'damaged'}",): "damaged",
        (f"--out={tmp_path / 'empty'}",): "no run has ended yet",
        (f"--out={columns}",): "config.json: damaged: data is no object",
        (f"--out={swept}", "--normal_classes=7"): "has runs of 0, 1",
        (f"--out={swept}", "--normal_classes=x"): "whole numbers",
        (f"--out={tmp_path}", f"--scores={tmp_path / 'none.csv'}"): "none.csv",
        (f"--out={tmp_path}", "--top=0"): "top",
    }
    for arguments, expected in cases.items():
        assert reporting(*arguments) == 2, arguments
        message = capsys.readouterr().err
        assert expected in message and message.count("\n") == 1, message
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_missing_matplotlib_ends_in_the_install_command(
    swept: Path,
    reporting: Call,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(report.importlib.util, "find_spec", lambda name: None)
    assert reporting(f"--out={swept}") == 2
    message = capsys.readouterr().err
    assert "pip install -e '.[report]'" in message and message.count("\n") == 1


# --- scores of new data -------------------------------------------------------------------------


HOSTILE = "x\"><script>document.title='taken'</script>\n<b onload='y'>.png"


def write_scores(path: Path, rows: list[tuple[Any, ...]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("name", "score", "p_value", "anomalous"))
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def scored(calling: Calling, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a report of scores: images, one gone, one with a hostile name."""
    folder = tmp_path_factory.mktemp("scores")
    images = folder / "images"
    (images / "deep").mkdir(parents=True)
    Image.new("L", (8, 8), 200).save(images / "small.png")
    Image.new("RGB", (900, 600), (9, 90, 200)).save(images / "deep" / "large.jpg")
    Image.new("L", (5, 5)).save(folder / "absolute.png")
    rows = [
        ("small.png", 0.5, 0.4, 0),
        ("deep/large.jpg", 7.5, 0.01, 1),
        ("gone.png", 3.25, "", 1),
        (HOSTILE, 9.0, 0.001, 1),
        (folder / "absolute.png", 0.25, 0.9, 0),
    ]
    write_scores(folder / "scores.csv", rows)
    with calling(report) as call:
        arguments = (f"--scores={folder / 'scores.csv'}", f"--data_dir={images}")
        assert call(*arguments, f"--out={folder / 'out'}", "--top=4") == 0
    return folder


def test_scores_are_ranked_with_their_images(scored: Path) -> None:
    page = (scored / "out" / "report.html").read_text()
    cards = re.findall(r"<li id=\"card-.*?</li>", page, re.DOTALL)
    assert len(cards) == 4
    assert ["<img" in card for card in cards] == [False, True, False, True]
    assert ['class="marked"' in card for card in cards] == [True, True, True, False]
    assert [re.findall(r"<dd.*?>(.*?)</dd>", card, re.DOTALL)[1] for card in cards] == [
        *("9", "7.5", "3.25", "0.5")
    ]
    assert "absolute.png" not in page
    assert "3 (60.0 %)" in text_of(scored / "out" / "report.html")
    assert (scored / "out" / "report" / "scores.png").exists()


def test_hostile_names_are_harmless(scored: Path) -> None:
    page = (scored / "out" / "report.html").read_text()
    assert page.count("<script") == 1 and "<b onload" not in page
    assert f"<script>{SCRIPT}</script>" in page
    assert html.escape(HOSTILE) in page


def test_large_images_become_small_and_absolute_names_are_found_if_asked(scored: Path) -> None:
    rows = score_report.read_scores(scored / "scores.csv")
    found = score_report.build_page(
        rows, score_report.Images(scored / "images", follow_names=True), 64
    )
    assert "absolute.png" in found.html and found.html.count("<img ") == 1 + 3
    assert sorted(sizes_of_photos(found.html)) == [(5, 5), (8, 8), (640, 427)]


def sizes_of_photos(page: str) -> list[tuple[int, int]]:
    sources = re.findall(r'<img class="photo" src="data:image/\w+;base64,(.*?)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(source))).size for source in sources]


@pytest.mark.parametrize(("last", "told"), [(0.5, True), (0.6, False)])
def test_a_page_of_equal_scores_says_so(tmp_path: Path, last: float, told: bool) -> None:
    rows = [
        score_report.ScoredRow(str(row), score, None, False)
        for row, score in enumerate((0.5, 0.5, last))
    ]
    page = score_report.build_page(rows, score_report.Images(tmp_path), 3)
    assert ("All 3 scores are equal" in page.html) == told


def test_rows_of_tables_have_a_table_only(tmp_path: Path, reporting: Call) -> None:
    path = write_scores(tmp_path / "scores.csv", [(f"row {n}", n / 7, "", 0) for n in range(9)])
    assert reporting(f"--scores={path}", f"--out={tmp_path / 'out'}") == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<img ") == 1 and "see the table" in page
    assert re.findall(r'<td data-fact="name">(row \d)</td>', page) == [
        f"row {n}" for n in range(8, -1, -1)
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("name,score\na,1\n", "column p_value is missing"),
        ("name,score,p_value,anomalous\n", "holds no scores"),
        ("name,score,p_value,anomalous\na,high,,1\n", "line 2: score is 'high'"),
        ("name,score,p_value,anomalous\na,nan,,1\n", "score is 'nan'"),
        ("name,score,p_value,anomalous\na,1,?,1\n", "p_value is '?'"),
        ("name,score,p_value,anomalous\na,1,,maybe\n", "anomalous is 'maybe'"),
        ("name,score,p_value,anomalous\na\n", "anomalous is ''"),
        (b"\xff\xfe\x00", "not a csv file"),
    ],
)
def test_damaged_scores_are_named(
    tmp_path: Path,
    reporting: Call,
    capsys: pytest.CaptureFixture[str],
    content: str | bytes,
    expected: str,
) -> None:
    path = tmp_path / "scores.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert reporting(f"--scores={path}", f"--out={tmp_path / 'out'}") == 2
    message = capsys.readouterr().err
    assert expected in message and "scores.csv" in message and message.count("\n") == 1
    assert not (tmp_path / "out").exists()


# --- in a browser -------------------------------------------------------------------------------

_PROBE = """
<iframe id="page" width="{width}" height="800" srcdoc="{page}"></iframe><pre id="found"></pre>
<script>
onload = () => {{
  const page = document.getElementById("page").contentDocument;
  const images = [...page.images];
  const found = {{
    title: page.title,
    widths: images.map(image => image.naturalWidth),
    shown: images.map(image => image.currentSrc.length),
    overflowing: images.filter(image => image.getBoundingClientRect().right > {width}).length,
    tables: [...page.querySelectorAll("table")].map(table => table.rows.length),
    cut: [...page.querySelectorAll("table")]
      .filter(table => table.scrollWidth > table.parentNode.clientWidth)
      .map(table => table.textContent),
    scroll: page.documentElement.scrollWidth,
  }};
  const view = document.getElementById("page").contentWindow;
  found.acted = ((page, view) => {{ {action} }})(page, view);
  document.getElementById("found").textContent = JSON.stringify(found);
}};
</script>
"""


def looked_at(page: Path, width: int, folder: Path, action: str = "") -> dict[str, Any]:
    """Opens a page in a frame of so many pixels: a window cannot be as narrow as a phone. Then runs
    an action on its `page` and `view`, whose result is `acted`."""
    probe = folder / "probe.html"
    escaped = html.escape(page.read_text())
    probe.write_text(_PROBE.format(width=width, page=escaped, action=action))
    arguments = ("--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000")
    profile = f"--user-data-dir={folder / 'profile'}"
    assert BROWSER is not None
    ended = subprocess.run(
        [BROWSER, *arguments, profile, "--window-size=1400,900", "--dump-dom", probe.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search(r'<pre id="found">(.*?)</pre>', ended.stdout, re.DOTALL)
    assert found and found[1], ended.stderr[-2000:]
    return dict(json.loads(html.unescape(found[1])))


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome")
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_in_a_browser(swept: Path, scored: Path, tmp_path: Path, width: int) -> None:
    for page, tables in ((swept / "report.html", 7), (scored / "out" / "report.html", 1)):
        found = looked_at(page, width, tmp_path)
        text = page.read_text()
        assert len(found["widths"]) == text.count("<img ") and min(found["widths"]) > 0
        assert len(found["tables"]) == tables == text.count("<table")
        assert min(found["tables"]) > 1
        assert found["scroll"] <= width and found["overflowing"] == 0
        assert found["cut"] == [] or page.parent == swept
        assert found["title"] == re.findall("<title>(.*)</title>", text)[0]


@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome")
def test_the_browser_test_sees_what_it_is_to_find(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    broken = '<img src="data:image/png;base64,AAAA"><div style="width:900px">wide</div>'
    page.write_text(f"<!DOCTYPE html><title>bad</title>{broken}")
    found = looked_at(page, 390, tmp_path)
    assert found["widths"] == [0] and found["scroll"] > 390 and found["tables"] == []


@pytest.fixture(scope="module")
def inspected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of six images below folders of kinds; the threshold lies between 3 and 5."""
    folder = tmp_path_factory.mktemp("kinds")
    samples = {
        "good/a.png": 1.0,
        "good/b.png": 2.0,
        "good/c.png": 6.0,
        "dent/d.png": 3.0,
        "dent/e.png": 5.0,
        f"crack/{HOSTILE.replace('/', '')}": 8.0,
    }
    for place, name in enumerate(samples):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("L", (6, 4), 30 * place).save(folder / name)
    rows = [
        score_report.ScoredRow(name, score, None, score > 4.0) for name, score in samples.items()
    ]
    page = score_report.build_page(rows, score_report.Images(folder), 5)
    (folder / "report.html").write_text(page.html)
    return folder / "report.html"


def test_kinds_are_counted_where_folders_name_them(inspected: Path) -> None:
    page = inspected.read_text()
    rows = re.findall(r"<tr><td[^>]*>(.*?)</td>" + 3 * r"<td[^>]*>(\d+)</td>", page)
    assert rows == [
        ("normal", "3", "1", "2"),
        ("defects", "3", "2", "1"),
        ("crack", "1", "1", "0"),
        ("dent", "2", "1", "1"),
    ]
    # Of nine pairs of a defect and a normal one, 3 and 5 lie below 6.
    assert f"{100 * 7 / 9:.2f} %" in text_of(inspected)
    assert "1 defects raise no alarm" in text_of(inspected)
    words = re.findall(r'<td data-fact="alarm">(.*?)</td>', page)
    assert words == ["yes", "false alarm", "yes", "missed", "no"]


def test_without_a_script_the_page_says_what_its_threshold_finds(inspected: Path) -> None:
    text = text_of(inspected)
    assert "between 3 and 5" in text
    assert (
        "Above 4: 3 of 6 raise an alarm. Of 3 normal ones 1 do (false alarms); of 3 defects 2 do, "
        "and 1 are missed."
    ) in text


_MOVED = """
const slider = page.querySelector(".slider"), input = slider.querySelector("input");
const seen = () => ({
  outcome: slider.querySelector(".outcome").textContent,
  marked: page.querySelectorAll("#ranked li.marked").length,
  words: [...page.querySelectorAll("#table [data-fact=alarm]")].map(cell => cell.textContent),
  line: page.querySelector(".line").hidden,
});
const before = seen();
input.value = input.max;
input.dispatchEvent(new view.Event("input"));
const highest = seen();
input.value = 0;
input.dispatchEvent(new view.Event("input"));
const lowest = seen();
slider.querySelector("button").click();
return {before, highest, lowest, after: seen(), shown: !input.closest("p").hidden};
"""


@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_moved_threshold_shows_what_would_alarm_and_be_missed(
    inspected: Path, tmp_path: Path, width: int
) -> None:
    found = looked_at(inspected, width, tmp_path, _MOVED)
    acted = found["acted"]
    assert acted["shown"] and acted["after"] == acted["before"]
    assert acted["before"]["words"] == ["yes", "false alarm", "yes", "missed", "no"]
    assert acted["highest"]["words"] == ["missed", "no", "missed", "missed", "no"]
    assert acted["lowest"]["words"] == ["yes", "false alarm", "yes", "yes", "false alarm"]
    assert [acted[name]["marked"] for name in ("before", "highest", "lowest")] == [3, 0, 5]
    assert [acted[name]["line"] for name in ("before", "highest", "lowest")] == [True, False, False]
    assert "0 of 6 raise an alarm" in acted["highest"]["outcome"]
    assert "6 of 6 raise an alarm" in acted["lowest"]["outcome"]
    assert found["title"] == "Anomaly scores" and found["cut"] == []


_SORTED = """
const table = page.querySelector("#table table");
const scores = () => [...table.tBodies[0].rows].map(row => row.cells[1].textContent);
const button = table.querySelectorAll("th button")[1];
button.click();
const up = scores();
button.click();
return {up, down: scores(), told: button.parentNode.getAttribute("aria-sort")};
"""


@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome")
def test_the_table_sorts_by_numbers(inspected: Path, tmp_path: Path) -> None:
    acted = looked_at(inspected, 390, tmp_path, _SORTED)["acted"]
    assert acted["up"] == ["2", "3", "5", "6", "8"] == acted["down"][::-1]
    assert acted["told"] == "descending"


_OPENED = """
const link = page.querySelector("#ranked a.whole"), dialog = page.querySelector("dialog");
link.click();
const image = dialog.querySelector("img");
const shown = {
  open: dialog.open,
  same: image.src === link.querySelector("img").src,
  width: image.getBoundingClientRect().right,
  facts: dialog.querySelector("dl").textContent,
  scripts: page.scripts.length,
};
dialog.querySelector("button").click();
return {...shown, closed: !dialog.open};
"""


@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_click_on_a_card_shows_the_image_whole(
    inspected: Path, tmp_path: Path, width: int
) -> None:
    found = looked_at(inspected, width, tmp_path, _OPENED)
    acted = found["acted"]
    assert acted["open"] and acted["same"] and acted["closed"] and acted["width"] <= width
    # The first card is the one with the hostile name.
    assert "onload" in acted["facts"] and acted["scripts"] == 1
    assert found["title"] == "Anomaly scores"


@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome")
def test_a_page_runs_no_script_but_its_own(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    own, foreign = "document.title = 'own';", "<script>document.title = 'foreign'</script>"
    page.write_text(pages.page("t", "l", [pages.Html(foreign)], [], own))
    assert looked_at(page, 390, tmp_path)["title"] == "own"
    page.write_text(pages.page("t", "l", [pages.Html(foreign)], []))
    assert looked_at(page, 390, tmp_path)["title"] == "t"


@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome")
def test_phones_get_the_narrow_variant(scored: Path, tmp_path: Path) -> None:
    page = scored / "out" / "report.html"
    wide, narrow = (looked_at(page, width, tmp_path)["widths"][0] for width in (1280, 390))
    assert narrow < wide


def test_names_lead_to_no_file_outside_of_the_folder(tmp_path: Path, reporting: Call) -> None:
    inside, outside = tmp_path / "in" / "images", tmp_path / "in" / "private"
    for folder in (inside / "sub", outside):
        folder.mkdir(parents=True)
    for value, path in enumerate((inside / "own.png", outside / "secret.png")):
        Image.new("L", (4, 4), 50 + 100 * value).save(path)
    (inside / "link.png").symlink_to(outside / "secret.png")
    (inside / "door").symlink_to(outside)
    (inside / "loop.png").symlink_to("loop.png")
    os.mkfifo(inside / "pipe.png")
    names = ("../private/secret.png", str(outside / "secret.png"), "link.png", "door/secret.png")
    names += ("sub/../../private/secret.png", "sub/../own.png", "loop.png", "pipe.png", "own.png")
    rows = [(name, place, "", 0) for place, name in enumerate(names)]
    path = write_scores(tmp_path / "scores.csv", rows)
    given = (f"--scores={path}", f"--data_dir={inside}", f"--out={tmp_path / 'out'}")
    assert reporting(*given) == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count('<img class="photo"') == 2
    assert f"5 of 9 names lead out of {inside}" in page and "--follow_names" in page
    assert "2 of 9 images cannot be read" in page
    assert reporting(*given, "--follow_names") == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count('<img class="photo"') == 7


def test_the_page_names_the_model_that_scored(
    tmp_path: Path, reporting: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = Path(__file__).parent / "samples" / "one-class"
    model = models.load_model(sample)._replace(threshold=2.0, calibration_scores=np.arange(1.0, 4))
    models.save_model(tmp_path / "parts.model", model)
    rows = [("a", 0.5, 1.0, 0), ("b", 2.5, 0.5, 1)]
    path = write_scores(tmp_path / "scores.csv", rows)
    given = (f"--scores={path}", f"--model={tmp_path / 'parts.model'}", f"--out={tmp_path / 'o'}")
    assert reporting(*given) == 0
    text = text_of(tmp_path / "o" / "report.html")
    assert "parts.model" in text and "The model's own" in text
    assert "Of the model's 3 held-out normal scores 1 lie above." in text
    write_scores(path, [("a", 0.5, 0.75, 0)])
    assert reporting(*given) == 2
    message = capsys.readouterr().err
    assert "no scores of parts.model" in message and message.count("\n") == 1
    assert reporting(f"--out={tmp_path}", f"--model={tmp_path}") == 2
    assert "model is for --scores" in capsys.readouterr().err


def test_maps_stand_beside_their_images(
    calling: Calling, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, maps = tmp_path / "images", tmp_path / "maps"
    for folder in (images, maps):
        (folder / "deep").mkdir(parents=True)
    Image.new("L", (10, 20), 200).save(images / "deep" / "high.bmp")
    Image.new("RGB", (30, 20), (9, 90, 200)).save(images / "broad.png")
    Image.new("L", (10, 10), 200).save(images / "none.png")
    Image.new("RGB", (5, 10), (255, 0, 0)).save(maps / "deep" / "high.png")
    Image.new("RGB", (30, 20), (255, 0, 0)).save(maps / "broad.png.png")
    Image.new("RGB", (30, 20), (0, 255, 0)).save(maps / "broad.png")
    write_scores(
        tmp_path / "s.csv",
        [("deep/high.bmp", 3.0, "", 1), ("broad.png", 2.0, "", 1), ("none.png", 1.0, "", 0)],
    )
    arguments = (f"--scores={tmp_path / 's.csv'}", f"--data_dir={images}", f"--maps={maps}")
    with calling(report) as call:
        assert call(*arguments, f"--out={tmp_path / 'out'}") == 2
        assert "no folder that score --maps wrote" in capsys.readouterr().err
        (maps / "maps.json").write_text("{}")
        assert call(*arguments, f"--out={tmp_path / 'out'}") == 0
        assert call(f"--maps={maps}", f"--out={tmp_path / 'out'}") == 2
        assert "maps is for --scores" in capsys.readouterr().err
    page = (tmp_path / "out" / "report.html").read_text()
    found = re.findall(r'<img class="photo" src="data:image/\w+;base64,([^"]+)"', page)
    shown = [np.array(Image.open(io.BytesIO(base64.b64decode(text)))) for text in found]
    assert [image.shape[:2] for image in shown] == [(20, 20), (40, 30), (10, 10)]
    assert (shown[0][:, 10:] == [255, 0, 0]).all() and (shown[0][:, :10] == 200).all()
    assert (shown[1][20:] == [255, 0, 0]).all()
