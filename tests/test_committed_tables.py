"""The committed tables: what their runs say, and what the documents say of them."""

import csv
import json
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from deepsvdd_jax.cli.commands import publish

ROOT = Path(__file__).parents[1]
FOLDERS = sorted((ROOT / "results" / "published").iterdir())
TABLES = [folder for folder in FOLDERS if publish.has_marks(folder)]
COMPARISONS = [folder for folder in FOLDERS if (folder / "comparison.csv").exists()]
# Of `benchmarks.adbench`.
DETECTORS = [folder for folder in FOLDERS if (folder / "sets.json").exists()]
# Of `experiments.embeddings`, beside the table of the sweep.
EMBEDDINGS = [folder for folder in TABLES if (folder / "embeddings.csv").exists()]
# Of `reproduce --table=deep_sad`.
PAIRS = [folder for folder in FOLDERS if (folder / "pairs.csv").exists()]
# Of `score --maps` with masks: a table of scores for each model.
MAPS = [folder for folder in FOLDERS if (folder / "maps.json").exists()]


def cells_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def percent(value: float | str) -> str:
    return f"{100 * float(value):.2f}"


@pytest.fixture(scope="module")
def documents() -> str:
    places = (ROOT / "README.md", ROOT / "docs" / "results.md", ROOT / "docs" / "experiments.md")
    return "".join(place.read_text() for place in places)


def test_every_folder_is_of_one_kind() -> None:
    kinds = (TABLES, COMPARISONS, DETECTORS, PAIRS, MAPS)
    assert sorted(sum(kinds, [])) == FOLDERS and all(kinds)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_folder_is_small_documented_and_tells_no_path(folder: Path, documents: str) -> None:
    assert f"results/published/{folder.name}" in documents
    for path in folder.iterdir():
        assert path.stat().st_size < 300_000
        if path.suffix != ".png":
            assert not re.search(r'(^|["\s,])/\w+/', path.read_text()), path


@pytest.mark.parametrize("folder", TABLES + COMPARISONS, ids=lambda folder: folder.name)
def test_settings_name_what_the_runs_have(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    runs = cells_of(folder / "runs.csv")
    assert sorted(settings["methods"]) == sorted({run["method"] for run in runs})
    assert sorted(settings["normal_classes"]) == sorted({int(run["normal_class"]) for run in runs})
    assert sorted(settings["seeds"]) == sorted({int(run["seed"]) for run in runs})


@pytest.mark.parametrize("folder", PAIRS, ids=lambda folder: folder.name)
def test_a_table_of_known_anomalies_is_the_mean_of_its_pairs(folder: Path) -> None:
    pairs = cells_of(folder / "pairs.csv")
    for row in cells_of(folder / "table.csv"):
        of_share = [one for one in pairs if float(one["labelled_ratio"]) == float(row["labelled"])]
        assert int(row["pairs"]) == len(of_share)
        for column, of_pair in (("AUROC", "auroc_mean"), ("ensemble", "auroc_ensemble")):
            values = np.array([100 * float(one[of_pair]) for one in of_share])
            mean, deviation = (float(part) for part in row[column].split(" ± "))
            assert abs(mean - values.mean()) <= 0.005 + 1e-9
            assert abs(deviation - values.std(ddof=1)) <= 0.05 + 1e-9


@pytest.mark.parametrize("folder", MAPS, ids=lambda folder: folder.name)
def test_the_documents_have_the_figures_of_maps(folder: Path) -> None:
    document = (ROOT / "docs" / "maps.md").read_text()
    for model, told in json.loads((folder / "maps.json").read_text()).items():
        if not isinstance(told, dict):
            continue
        rows = cells_of(folder / f"{model}.csv")
        kinds = np.array([row["name"].split("/")[0] for row in rows])
        scores = np.array([float(row["score"]) for row in rows])
        good = scores[kinds == "good"]
        figures = []
        for of_kind in (
            kinds != "good",
            *(kinds == kind for kind in ("blowhole", "break", "crack")),
        ):
            pairs = scores[of_kind][:, None] - good
            figures.append(percent(np.mean(pairs > 0) + np.mean(pairs == 0) / 2))
        pixels = re.findall(r"\d+\.\d+(?= %|,|$)", told["printed"].split("pixel AUROC ")[1])
        cells = document.replace("*", "")
        assert f"| {' | '.join([*figures, *pixels])} % |" in cells, (model, figures, pixels)


@pytest.mark.parametrize("folder", TABLES, ids=lambda folder: folder.name)
def test_a_table_is_what_its_runs_say(folder: Path) -> None:
    runs = cells_of(folder / "runs.csv")
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for run in runs:
        found[run["method"], run["normal_class"]].append(float(run["auroc"]))
    summary = cells_of(folder / "summary.csv")
    told = {(row["method"], row["normal_class"]): row for row in summary}
    means = {name for name in told if name[1] == "mean"}
    assert told.keys() - means == found.keys()
    for method, _ in means:
        of_classes = [np.mean(aurocs) for problem, aurocs in found.items() if problem[0] == method]
        mean = float(told[method, "mean"]["auroc_mean"])
        np.testing.assert_allclose(mean, np.mean(of_classes), rtol=1e-12)
    for problem, aurocs in found.items():
        row = told[problem]
        assert int(row["runs"]) == len(aurocs)
        np.testing.assert_allclose(float(row["auroc_mean"]), np.mean(aurocs), rtol=1e-12)
        if len(aurocs) > 1:
            np.testing.assert_allclose(float(row["auroc_std"]), np.std(aurocs, ddof=1), rtol=1e-9)
    kept = publish.read_published(folder)
    assert (folder / "table.md").read_text() == publish.markdown(kept) + "\n"


@pytest.mark.parametrize("folder", TABLES, ids=lambda folder: folder.name)
def test_the_documents_have_the_means_of_a_table(folder: Path, documents: str) -> None:
    for row in cells_of(folder / "summary.csv"):
        if row["normal_class"] == "mean":
            assert percent(row["auroc_mean"]) in documents, row
            if int(row["runs"]) > 1 and row["auroc_ensemble"]:
                assert percent(row["auroc_ensemble"]) in documents, row


@pytest.mark.parametrize("folder", COMPARISONS, ids=lambda folder: folder.name)
def test_a_comparison_is_what_its_runs_and_the_documents_say(folder: Path, documents: str) -> None:
    found: dict[tuple[str, str], dict[str, dict[str, float]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for run in cells_of(folder / "runs.csv"):
        problem = found[run["sweep"], run["method"]][run["normal_class"]]
        problem[run["seed"]] = 100 * float(run["auroc"])
    lines = cells_of(folder / "comparison.csv")
    for line in lines:
        of_classes = found[line["sweep"], line["method"]]
        mean = np.mean([np.mean([*aurocs.values()]) for aurocs in of_classes.values()])
        assert line["AUROC"] == f"{mean:.2f}" and line["AUROC"] in documents
        if line["sweep"] == lines[0]["sweep"]:
            assert line["change"] == ""
            continue
        base = found[lines[0]["sweep"], line["method"]]
        changes = [
            np.mean([auroc - base[label][seed] for seed, auroc in aurocs.items()])
            for label, aurocs in of_classes.items()
        ]
        assert line["change"] == f"{np.mean(changes):+.2f}"


@pytest.mark.parametrize("folder", DETECTORS, ids=lambda folder: folder.name)
def test_detectors_over_tables_are_what_their_runs_and_the_documents_say(folder: Path) -> None:
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in cells_of(folder / "runs.csv"):
        found[run["detector"]][run["set"]].append(float(run["auroc"]))
    means = {name: [np.mean(aurocs) for aurocs in sets.values()] for name, sets in found.items()}
    lines = {line["detector"]: line for line in cells_of(folder / "summary.csv")}
    assert lines.keys() == means.keys()
    document = (ROOT / "docs" / "tabular.md").read_text()
    for name, of_sets in means.items():
        line = lines[name]
        assert line["AUROC"] == percent(np.mean(of_sets))
        assert f"| {line['AUROC']} | {line['rank']} |" in document
        if name != "ours":
            change = np.subtract(means["ours"], of_sets)
            assert line["difference"] == f"{100 * np.mean(change):+.2f}"
            assert int(line["ours wins"]) == np.sum(change > 1e-9)
            assert int(line["loses"]) == np.sum(change < -1e-9)


@pytest.mark.parametrize("folder", EMBEDDINGS, ids=lambda folder: folder.name)
def test_other_scores_of_the_embedding_stand_beside_that_of_the_sweep(
    folder: Path, documents: str
) -> None:
    summary = {row["normal_class"]: row for row in cells_of(folder / "summary.csv")}
    rows = {row["class"]: row for row in cells_of(folder / "embeddings.csv")}
    assert rows.keys() == summary.keys()
    for name, row in rows.items():
        assert row["of the sweep"] == percent(summary[name]["auroc_mean"])
        assert row["of the sweep, together"] == percent(summary[name]["auroc_ensemble"])
    for column, value in rows["mean"].items():
        if column not in ("class", "method", "runs"):
            of_classes = [float(row[column]) for name, row in rows.items() if name != "mean"]
            assert abs(float(value) - np.mean(of_classes)) < 0.0101 and value in documents
