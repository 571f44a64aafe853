"""The suite of benchmarks: what it measures is measured, and its table and comparison are right."""

import csv
import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import rows, subjects, suite, training, ways
from benchmarks.rows import Row
from benchmarks.suite import Child, Plan
from deepsvdd_jax.convolution import rule

TINY = {"repeats": 1, "epochs": 1, "devices": 1}


def values(**changed: Any) -> Any:
    """Flags as they are by default, but for some."""
    given: dict[str, Any] = {
        **{
            "quick": False,
            "torch": False,
            "torch_compile": False,
            "data_dir": None,
            "minutes": None,
        },
        **{"parts": [], "networks": [], "runs": [], "repeats": None, "images": None},
        "big_sweep": ["--dataset=mnist"],
    }
    return SimpleNamespace(**given | changed)


# --- rows ---------------------------------------------------------------------------------------


def test_more_is_better_only_where_it_is() -> None:
    assert rows.advantage("s", 2.0, 6.0) == 3.0
    assert rows.advantage("images / s", 6.0, 2.0) == 3.0
    assert rows.advantage("s", 2.0, None) is None


def test_table_has_a_line_for_each_row() -> None:
    found = [
        Row("training", "mlp", 0.01234567, "s", 2.5, 1.25, 0.125, "PyTorch"),
        Row("scoring", "mlp", 123456.7, "images / s"),
    ]
    lines = rows.format_rows(found).splitlines()
    assert lines[2].split() == [
        "training",
        "mlp",
        "0.01235",
        "s",
        "2.50",
        "1.25",
        "12.5%",
        "PyTorch",
    ]
    assert lines[3].split() == ["scoring", "mlp", "123,457", "images", "/", "s"]


def test_comparison_takes_the_ratios_apart_from_the_machine(tmp_path: Path) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    rows.write_json(str(old), {}, [Row("a", "x", 4.0, "s", 1.5), Row("a", "gone", 1.0, "s")])
    rows.write_json(
        str(new),
        {},
        [Row("a", "x", 2.0, "s", 2.0), Row("b", "new", 1.0, "s"), Row("a", "x", 1, "MiB")],
    )
    header, _, line = suite.compare_files(str(old), [str(new)]).splitlines()
    assert header.split()[-3:] == ["of", "the", "ratios"]
    # Half the seconds are twice as good; beside the peer it is only 2.0 / 1.5.
    assert line.split() == ["a", "x", "s", "4", "2", "2.00", "1.33"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), ("[]", "holds no rows"), ('{"machine": {}, "rows": [1]}', "no rows")],
)
def test_files_that_cannot_be_compared_are_named(
    content: str | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "old.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(subjects.BenchmarkError, match=message):
        suite.compare_files(str(path), [str(path)])


def test_nothing_in_common_is_said() -> None:
    with pytest.raises(subjects.BenchmarkError, match="no figure in common"):
        rows.compare([Row("a", "x", 1.0, "s")], [Row("a", "y", 1.0, "s")])
    with pytest.raises(subjects.BenchmarkError, match="give the newer file last"):
        suite.compare_files("old.json", [])


# --- plan ---------------------------------------------------------------------------------------


def test_flags_make_a_plan() -> None:
    plan = suite.plan_from_flags(values())
    assert plan.parts == suite.PARTS[:-3] and plan.runs == (1, 4, 16, 64)
    assert plan.big_sweep == ("--dataset=mnist",)
    quick = suite.plan_from_flags(values(quick=True, runs=["2"], parts=["gpu"], images=7))
    assert (quick.parts, quick.runs, quick.images) == (("gpu",), (2,), 7)
    assert quick.networks == suite.QUICK["networks"]
    with pytest.raises(subjects.BenchmarkError, match="'cpu' is unknown; allowed: peak"):
        suite.plan_from_flags(values(parts=["cpu"]))


def test_every_network_is_trained_with_every_objective_that_it_can_have() -> None:
    cases = suite.cases_of(Plan(("training",), images=9))
    assert {case.images for case in cases} == {9}
    assert len(cases) == 3 * len(suite.NETWORKS) - 1
    assert ("itu_cnn", "autoencoder") not in [case[:2] for case in cases]


# --- parts --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_peak_training_and_scoring_without_a_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(training.PEAK_SIDES, "cpu", 64)
    plan = Plan(("training",), ("mlp",), (1,), images=8, scored=(3,), scored_network="mlp", **TINY)
    (peak,) = suite.measure_peak(plan)
    assert peak.unit == "GFLOP / s" and peak.value > 0
    monkeypatch.setattr(suite, "cases_of", lambda plan: [training.Case("mlp", "one-class", 8)])
    (trained,) = suite.measure_training(plan)
    assert trained.value > 0 and trained.ratio is None and trained.peer == ""
    (scored,) = suite.measure_scoring(plan)
    assert scored.value > 0 and scored.of_peak is not None and scored.ratio is None


@pytest.mark.slow
def test_a_process_says_what_it_took(tmp_path: Path) -> None:
    plan = Plan(
        ("gpu",),
        big_sweep=("--dataset=digits", "--epochs=1", "--normal_classes=3", "--seeds=2"),
        **TINY,
    )
    found = {row.what: row for row in suite.measure_big_sweep(plan)}
    table, first = found["2 runs, command to table"].value, found["2 runs, first epoch"].value
    assert 0 < first < table
    assert found["2 runs"].value == pytest.approx(2 * 3600 / table)
    assert found["2 runs, memory"].value > 50
    with pytest.raises(RuntimeError, match="methods is 'x'"):
        suite.run_child("sweep", "--methods=x", f"--out={tmp_path}")


def test_start_compares_with_as_many_runs_of_the_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    children = iter([Child(30.0, 20.0, 15.0, 2**30), Child(12.0, 8.0, 1.0, 2**30)])
    monkeypatch.setattr(suite, "run_child", lambda *arguments: next(children))
    monkeypatch.setattr(suite, "start_peer", lambda task, epochs: suite.PeerStart(4.0, 1.0, 2**29))
    found = {row.what: row for row in suite.measure_start(Plan(("start",), torch=True))}
    assert found["table, cache empty"].ratio == (4.0 + 50 * 1.0) / 30.0
    assert found["first epoch, cache filled"].ratio == 4.0 / 8.0
    assert found["memory, cache empty"].value == 1024 and found["memory, cache empty"].ratio == 0.5
    assert found["compiler, cache filled"].value == 1.0


def test_memory_and_compilation_are_those_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def run_child(kind: str, *arguments: str) -> Child:
        asked.append((kind, json.loads(arguments[0])))
        return Child(9.0, 8.0, 10.0 / len(asked), 2**20 * len(asked))

    monkeypatch.setattr(suite, "run_child", run_child)
    suite.train_in_children.cache_clear()
    plan = Plan(("memory", "compile"), ("mlp",), (1,), images=5)
    (memory,), (cold, warm) = suite.measure_memory(plan), suite.measure_compile(plan)
    suite.train_in_children.cache_clear()
    assert asked == [("training", ["mlp", "one-class", 5, 1])] * 2
    assert (memory.value, cold.value, warm.value) == (1.0, 10.0, 5.0)


@pytest.mark.slow
def test_forms_and_precisions_run_on_any_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(training.PEAK_SIDES, "cpu", 64)
    monkeypatch.setattr(suite, "FORMS", ("windows",))
    monkeypatch.setattr(suite, "FORMED_RUNS", 1)
    plan = Plan(("forms",), ("lenet", "mlp"), images=4, **TINY)
    taken = []
    make = training.our_timer

    def watched(*parts: Any) -> training.Timer:
        taken.append(rule.form_of(3, 1, 8, 8))
        return make(*parts)

    monkeypatch.setattr(training, "our_timer", watched)
    ((formed,),) = suite.measure_forms(plan, ways.budget_of(None))
    assert formed.what == "lenet one-class, 4 images, 1 run(s), windows" and formed.value > 0
    assert taken == ["windows"]
    asked = []

    def run_child(kind: str, *arguments: str, variables: dict[str, str]) -> Child:
        asked.append(variables["JAX_DEFAULT_MATMUL_PRECISION"])
        out = Path(next(text for text in arguments if text.startswith("--out="))[6:])
        out.mkdir()
        with (out / "summary.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ("normal_class", "auroc_mean"))
            writer.writeheader()
            writer.writerow({"normal_class": "mean", "auroc_mean": 0.5})
        return Child(2.0, 1.0, 1.0, 1)

    monkeypatch.setattr(suite, "run_child", run_child)
    found = suite.measure_precisions(Plan(("gpu",)))
    assert asked == ["float32", "tensorfloat32"]
    assert [(row.value, row.unit) for row in found] == [(2.0, "s"), (50.0, "AUROC %")] * 2


def test_training_stands_beside_every_way_that_works_here(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    plan = Plan(
        ("peers",),
        ("mlp",),
        images=8,
        torch=True,
        cases=(("mlp", "one-class", (1, 3)), ("mnist_lenet", "one-class", (1,))),
        **TINY,
    )
    beside, (again,) = suite.measure_peers(plan, ways.budget_of(None))
    assert [(row.what.split(", ")[-1], row.peer) for row in beside] == [
        ("1 run(s)", "PyTorch loop"),
        ("3 run(s)", "PyTorch loop"),
        ("3 run(s)", "torch.func ensemble"),
    ]
    assert all(row.value > 0 and row.ratio > 0 for row in beside if row.ratio is not None)
    assert (again.value, again.unit) == (0, "numbers that differ")
    assert "graph does not work here: RuntimeError: a CUDA graph needs a GPU" in (
        capsys.readouterr().err
    )


@pytest.mark.slow
def test_what_no_time_is_left_for_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan(("peers", "forms"), ("mlp", "lenet"), minutes=0.0, images=8, **TINY)
    plan = dataclasses.replace(plan, cases=(("mlp", "one-class", (1,)),))
    assert list(suite.measure(plan)) == []
    said = capsys.readouterr().err
    assert "no time is left for mlp one-class" in said
    assert "no time is left for lenet, form rows" in said


def test_a_run_of_the_peer_is_its_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    monkeypatch.setattr(training, "peer_count", lambda: 1)
    monkeypatch.setattr(
        training, "smallest_times", lambda timers, *_: {name: 0.5 for name in timers}
    )
    plan = Plan(("gpu",), images=8, **TINY)
    config = {"network": {"name": "mlp"}, "pretraining": {"epochs": 3}, "training": {"epochs": 5}}
    assert suite.seconds_of_peer_run(config, plan) == 4.0
    assert suite.seconds_of_peer_run(config | {"network": {"name": "other"}}, plan) is None


def test_report_names_machine_and_missing_peer() -> None:
    machine = {
        **{"processor": "Some CPU", "cores": 2, "jax": "0.0", "torch": None},
        **{"devices": "2 x cpu", "peak_flops": 2e11},
    }
    text = suite.report(machine, [Row("peak", "product", 1.0, "GFLOP / s")])
    assert text.startswith(
        "Some CPU, 2 cores, 2 x cpu, jax 0.0, torch -; matrix product 200 GFLOP/s"
    )
    assert text.endswith(training.INSTALL_TORCH)
