"""Sweeps that train together: each run is what it is alone, and lies in its own sweep's folder."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from absl import flags

from deepsvdd_jax.cli import exits
from deepsvdd_jax.cli.commands import sweep
from deepsvdd_jax.cli.files import ResultsError
from deepsvdd_jax.cli.sweeps import (
    checkpoints,
    deep,
    locks,
    plans,
    pools,
    pretraining,
    records,
    together,
)
from deepsvdd_jax.cli.sweeps.plans import Sweep
from tests.helpers import folder_content, stop_at

Planned = Callable[..., dict[str, Sweep]]

# Three runs each, two programs of four together: the first has runs of both. What is held out and
# what pollutes depends on the seed, and so does the scaling.
COMMON = (
    *("--objective=deep-sad", "--pretrain_epochs=1", "--epochs=2", "--milestones=1"),
    *("--runs_per_program=4", "--save_models"),
)
SWEEPS = {
    "without": ("--normal_classes=0,1,2", "--seeds=1"),
    "labelled": (
        *("--normal_classes=3", "--seeds=3", "--outlier_fraction=0.1", "--labelled_ratio=0.05"),
        "--validation_fraction=0.1",
    ),
}


@pytest.fixture(scope="module")
def planned(
    calling: Callable[[Any], AbstractContextManager[Callable[..., int]]],
) -> Iterator[Planned]:
    """Plans the sweeps, in folders of one folder, with more flags for all of them."""
    found: list[Sweep] = []
    planning = SimpleNamespace(
        __name__="sweep",
        define_flags=sweep.define_flags,
        main=lambda: found.append(plans.plan(flags.FLAGS)),
    )
    with calling(planning) as call:

        def plan(out: Path, *more: str, names: tuple[str, ...] = tuple(SWEEPS)) -> dict[str, Sweep]:
            for name in names:
                assert call(*COMMON, *SWEEPS[name], f"--out={out / name}", *more) == 0
            # Sweeps that train together share the data.
            sweeps = [one._replace(dataset=found[0].dataset) for one in found]
            found.clear()
            return dict(zip(names, sweeps, strict=True))

        yield plan


@contextmanager
def interrupted_at(monkeypatch: pytest.MonkeyPatch, chunk: int) -> Iterator[None]:
    """Sends a signal to the sweeps in the block after so many chunks; it must end them."""
    with monkeypatch.context() as patch:
        stop_at(patch, chunk)
        with pytest.raises(exits.Interrupted):
            yield


@pytest.fixture(scope="module")
def whole(planned: Planned, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Every file of the sweeps, each carried out alone."""
    out = tmp_path_factory.mktemp("whole")
    for one in planned(out).values():
        sweep.carry_out(one, {})
    return folder_content(out)


@pytest.mark.slow
def test_runs_of_several_sweeps_fill_a_program_and_are_what_they_are_alone(
    planned: Planned, whole: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    programs: list[list[str]] = []
    train_jobs = deep.train_jobs
    stack_jobs = pools.stack_jobs

    def noted_jobs(*arguments: Any, **keywords: Any) -> None:
        calls.append(len(arguments[2]))
        train_jobs(*arguments, **keywords)

    def noted_stack(*arguments: Any) -> Any:
        programs.append([one.run.sweep for one in arguments[2]])
        return stack_jobs(*arguments)

    monkeypatch.setattr(deep, "train_jobs", noted_jobs)
    monkeypatch.setattr(pools, "stack_jobs", noted_stack)
    summaries: list[set[str]] = []

    def summarized() -> None:
        summaries.append({path.parent.name for path in tmp_path.glob("*/summary.csv")})

    assert together.carry_out(planned(tmp_path), {}, summarized) is None
    # The autoencoders, then what starts from them: one call each for all sweeps.
    assert calls == [6, 6]
    mixed, rest = ["without"] * 3 + ["labelled"], ["labelled"] * 2
    # A run that starts from an autoencoder is stacked once more with the weights it was drawn with.
    assert programs == [mixed, rest, mixed, mixed, rest, rest]
    # A sweep is summarized as soon as it is complete.
    assert summaries == [{"without"}, {"without", "labelled"}]
    assert folder_content(tmp_path) == whole


# A chunk is an epoch of a program: one of each program of autoencoders, then two of each program.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("chunk", "method", "sweeps"),
    [
        (1, "dcae", {"without", "labelled"}),
        (3, "deep_svdd", {"without", "labelled"}),
        (5, "deep_svdd", {"labelled"}),
    ],
)
def test_a_program_of_several_sweeps_is_taken_up_again(
    planned: Planned,
    whole: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    chunk: int,
    method: str,
    sweeps: set[str],
) -> None:
    monkeypatch.setattr(deep, "SECONDS_PER_CALL", 1e-6)
    with interrupted_at(monkeypatch, chunk):
        together.carry_out(planned(tmp_path), {})
    (path,) = tmp_path.glob("*/under-way/*.bin")
    saved = checkpoints.read_checkpoint(path, path.parent.parent.name)
    assert saved is not None and saved.names[0].sweep == path.parent.parent.name
    assert {one.sweep for one in saved.names} == sweeps
    assert {one.name.method for one in saved.names} == {method}
    capsys.readouterr()
    assert together.carry_out(planned(tmp_path), {}) is None
    assert "anew" not in capsys.readouterr().err
    assert folder_content(tmp_path) == whole


@pytest.mark.slow
def test_a_sweep_that_was_stopped_alone_is_taken_up_with_others(
    planned: Planned,
    whole: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(deep, "SECONDS_PER_CALL", 1e-6)
    with interrupted_at(monkeypatch, 2):
        sweep.carry_out(planned(tmp_path)["labelled"], {})
    assert len(list(tmp_path.glob("labelled/under-way/deep_svdd-*.bin"))) == 1
    epochs: list[int] = []
    restore = checkpoints.restore

    def noted(*arguments: Any) -> Any:
        found = restore(*arguments)
        assert found is not None
        epochs.append(found.progress.epoch)
        return found

    monkeypatch.setattr(checkpoints, "restore", noted)
    assert together.carry_out(planned(tmp_path), {}) is None
    assert epochs == [1] and "anew" not in capsys.readouterr().err
    assert folder_content(tmp_path) == whole


@pytest.mark.slow
def test_a_part_starts_anew_what_a_program_of_more_sweeps_has_begun_and_says_so(
    planned: Planned,
    whole: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with interrupted_at(monkeypatch, 1):
        together.carry_out(planned(tmp_path), {})
    assert together.carry_out(planned(tmp_path, names=("without",)), {}) is None
    said = capsys.readouterr().err
    assert "the program of without/dcae-class0-seed0 was left with runs that are not asked" in said
    assert "as labelled/dcae-class3-seed0; its other runs start anew" in said
    ours = {name: data for name, data in whole.items() if name.startswith("without/")}
    found = folder_content(tmp_path)
    assert {name: data for name, data in found.items() if name.startswith("without/")} == ours


@pytest.mark.slow
def test_failed_runs_are_named_with_their_sweep_and_the_others_written(
    planned: Planned, tmp_path: Path
) -> None:
    failed = together.carry_out(planned(tmp_path, "--learning_rate=1e30"), {})
    assert failed is not None
    assert failed.startswith("6 runs failed, see their runs.csv; without/deep_svdd-class0-seed0: ")
    assert all((tmp_path / name / "summary.csv").exists() for name in SWEEPS)


@pytest.mark.slow
def test_a_run_whose_autoencoder_vanished_does_not_start_from_drawn_weights(
    planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretraining, "read", lambda *arguments: None)
    expected = r"class3-seed0.bin was there before deep_svdd-class3-seed0 began and is gone"
    with pytest.raises(exits.Failure, match=expected):
        together.carry_out(planned(tmp_path, names=("labelled",)), {})


def test_a_folder_with_other_settings_is_refused_before_anything_is_written(
    planned: Planned, tmp_path: Path
) -> None:
    sweeps = planned(tmp_path)
    (tmp_path / "labelled").mkdir()
    theirs = sweeps["labelled"].settings.to_json()
    theirs["split"]["labelled_ratio"] = 0.2
    records.files.write_json(tmp_path / "labelled" / "config.json", theirs)
    before = folder_content(tmp_path)
    with pytest.raises(ResultsError, match=r"labelled holds a sweep with other settings"):
        together.carry_out(sweeps, {})
    assert folder_content(tmp_path) == before


def test_a_folder_in_use_is_refused(planned: Planned, tmp_path: Path) -> None:
    sweeps = planned(tmp_path)
    with (
        locks.locked(tmp_path / "labelled"),
        pytest.raises(ResultsError, match=r"labelled is in use by process"),
    ):
        together.carry_out(sweeps, {})
    # Those that were taken before it are free again.
    assert not locks.is_held(tmp_path / "without", 0, 1)
