"""Workers: those that are forked after jax has started are refused, others work."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A module of its own, which workers that start anew can import.
WORK = """
import sys
import numpy as np
import deepsvdd_jax as svdd

ROWS = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)

def fitted():
    return svdd.DeepSVDD(n_seeds=1, epochs=1, batch_size=16, random_state=0).fit(ROWS)

def scores_of(detector):
    return detector.score_samples(ROWS)

def tried(action):
    try:
        action()
    except RuntimeError as error:
        print(error, flush=True)
        sys.exit(7)
"""


def ran(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    (folder / "work.py").write_text(WORK)
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"import work\n{script}"],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={"PYTHONPATH": f"{ROOT}:{folder}", "PATH": "", "JAX_PLATFORMS": "cpu"},
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "action",
    ["lambda: work.scores_of(detector)", "work.fitted"],
    ids=["scoring", "fitting"],
)
def test_a_worker_forked_after_jax_has_started_is_refused(tmp_path: Path, action: str) -> None:
    """It would wait for ever for threads that it lacks."""
    done = ran(
        tmp_path,
        "import multiprocessing\n"
        "detector = work.fitted()\n"
        "context = multiprocessing.get_context('fork')\n"
        f"worker = context.Process(target=work.tried, args=({action},))\n"
        "worker.start()\n"
        "worker.join(60)\n"
        "print('hangs' if worker.is_alive() else worker.exitcode)\n"
        "worker.kill()\n",
    )
    assert done.stdout.splitlines()[-1] == "7", done.stderr
    assert "forked after jax had started" in done.stdout and "'spawn'" in done.stdout


@pytest.mark.slow
def test_a_worker_forked_before_jax_has_started_works(tmp_path: Path) -> None:
    done = ran(
        tmp_path,
        "import multiprocessing\n"
        "import jax\n"
        "worker = multiprocessing.get_context('fork').Process(target=work.fitted)\n"
        "worker.start()\n"
        "worker.join(150)\n"
        "print(worker.exitcode)\n",
    )
    assert done.stdout == "0\n", done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "scored",
    [
        "with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        found = pool.apply(work.scores_of, (detector,))",
        "found = joblib.Parallel(n_jobs=2)([joblib.delayed(work.scores_of)(detector)])[0]",
    ],
    ids=["spawn", "loky"],
)
def test_workers_that_start_anew_score_alike(tmp_path: Path, scored: str) -> None:
    done = ran(
        tmp_path,
        "import joblib, multiprocessing, numpy\n"
        "if __name__ == '__main__':\n"
        "    detector = work.fitted()\n"
        f"    {scored}\n"
        "    print(numpy.array_equal(found, work.scores_of(detector)))\n",
    )
    assert done.stdout == "True\n", done.stderr
