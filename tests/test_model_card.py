"""A model's card says what the model holds, and is written anew with it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import beta

from deepsvdd_jax.cli.commands import fit, threshold
from deepsvdd_jax.detectors import model_card
from deepsvdd_jax.io import models
from deepsvdd_jax.io.models import CARD_MARK, Model

Calling = Callable[[ModuleType], AbstractContextManager[Callable[..., int]]]
SAMPLE = Path(__file__).parent / "samples" / "one-class"


@pytest.fixture
def model() -> Model:
    """Of 39 held-out scores 1, 2, ... the 38th is the threshold for one alarm in twenty."""
    found = models.load_model(SAMPLE)
    summary = {
        **found.summary,
        "alarm_rate": 0.05,
        "calibration_samples": 39,
        "threshold_rule": "a normal is above with probability 0.05 at most",
    }
    scores = np.arange(1.0, 40.0)
    return found._replace(calibration_scores=scores, threshold=38.0, summary=summary)


def test_the_card_says_what_the_model_holds(model: Model) -> None:
    text = model_card.card("parts.model", model)
    assert text.startswith(CARD_MARK) and "# parts.model\n" in text
    for expected in (
        "2 networks, one-class",
        "Takes rows of 4 columns",
        "Trained on 60 normal samples; 39 others were held out",
        "| optimizer | adam, learning rate 0.0001 |",
        "anomalous above 38: a normal is above with probability 0.05 at most",
        "each is above with probability 0.05 at most",
        "1 of 39 above; median score 20, highest 39",
    ):
        assert expected in text, expected
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert titles == ["## Data", "## Settings", "## Threshold", "## Figures", "## Limits"]


def test_the_share_above_the_threshold_has_its_interval(model: Model) -> None:
    # Of 39 uniform numbers the second largest leaves a Beta(2, 38) share above.
    low, high = beta.ppf([0.025, 0.975], 2, 38)
    text = model_card.card("parts.model", model)
    assert f"between {100 * low:.2g} and {100 * high:.2g} %" in text
    assert "between" not in model_card.card("parts.model", model._replace(threshold=37.5))


def test_another_rule_guarantees_nothing() -> None:
    text = model_card.card("parts.model", models.load_model(SAMPLE))
    assert "No rate of false alarms is guaranteed" in text and "no p-values" in text


def test_hostile_names_stay_text(model: Model) -> None:
    named = model._replace(feature_names=("a|b", "<script>", "[x](javascript:y)", "two\nlines"))
    text = model_card.card("<b>`x`", named)
    assert "<script" not in text and "<b" not in text
    assert r"a\|b" in text and r"\[x\](javascript:y)" in text and "two lines" in text


def test_a_card_of_ones_own_stays_and_an_old_one_goes(tmp_path: Path, model: Model) -> None:
    folder = tmp_path / "parts.model"
    models.save_model(folder, model)
    model_card.write_card(folder, model)
    assert (folder / "MODEL.md").read_text() == model_card.card("parts.model", model)
    models.save_model(folder, model._replace(threshold=5.0))
    assert not (folder / "MODEL.md").exists()
    (folder / "MODEL.md").write_text("my own words")
    models.save_model(folder, model)
    model_card.write_card(folder, model)
    assert (folder / "MODEL.md").read_text() == "my own words"


def test_fit_writes_a_card_and_threshold_renews_it(tmp_path: Path, calling: Calling) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 3))
    x = np.concatenate([rows[:20], rows[:20] + 5.0])
    np.savez(tmp_path / "train.npz", x=rows, y=np.zeros(60, int))
    np.savez(tmp_path / "labelled.npz", x=x, y=np.repeat([0, 1], 20))
    folder = tmp_path / "parts.model"
    with calling(fit) as call:
        given = ("--dataset=npz", f"--data_dir={tmp_path / 'train.npz'}", f"--model={folder}")
        assert call(*given, "--epochs=2", "--milestones=1", "--seeds=1") == 0
    card = (folder / "MODEL.md").read_text()
    assert "# parts.model" in card and "Takes rows of 3 columns" in card
    with calling(threshold) as call:
        given = (f"--model={folder}", f"--data_dir={tmp_path / 'labelled.npz'}")
        assert call(*given, "--threshold=2.5") == 0
    card = (folder / "MODEL.md").read_text()
    assert "anomalous above 2.5: chosen from labelled samples" in card
    assert "Chosen on labelled samples" in card and "No rate of false alarms" in card
