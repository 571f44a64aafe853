"""A model's card, `MODEL.md` in its folder: data, settings, guarantees, limits."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from deepsvdd_jax.io import atomic
from deepsvdd_jax.io.archives import ModelError
from deepsvdd_jax.io.models import CARD_MARK, CARD_NAME, Model, may_write_card

_MOST_COLUMNS = 30


def write_card(folder: Path, model: Model) -> None:
    """Writes the card beside a saved model (touches files). A card without the mark in its first
    line was written by a person and stays.

    Raises:
      ModelError: it cannot be written.
    """
    if not may_write_card(folder):
        return
    try:
        atomic.write_bytes(folder / CARD_NAME, card(folder.resolve().name, model).encode("utf-8"))
    except OSError as error:
        path = folder / CARD_NAME
        raise ModelError(f"cannot write {path}: {error.strerror or error}") from None


def card(name: str, model: Model) -> str:
    """Returns the card of a model as Markdown.

    Args:
      name: of the model.
      model: fitted or loaded.
    """
    parts = {
        "Data": _data(model),
        "Settings": _settings(model),
        "Threshold": _threshold(model),
        "Figures": _figures(model),
        "Limits": _limits(model),
    }
    sections = [f"## {title}\n\n" + "\n".join(lines) for title, lines in parts.items() if lines]
    kind = _text(model.config.training.objective.kind)
    lead = f"{len(model.center)} networks, {kind}: a higher score is more anomalous."
    return "\n\n".join([CARD_MARK, f"# {_text(name)}", lead, *sections]) + "\n"


def _data(model: Model) -> list[str]:
    summary, shape = model.summary, " × ".join(map(str, model.image_shape))
    what = "images of" if len(model.image_shape) == 3 else "rows of"
    unit = "pixels (height, width, channels)" if len(model.image_shape) == 3 else "columns"
    lines = [f"* Takes {what} {shape} {unit}."]
    if "train_samples" in summary:
        lines.append(
            f"* Trained on {summary['train_samples']} normal samples; "
            f"{summary.get('calibration_samples', 0)} others were held out for the threshold."
        )
    if summary.get("known_anomalies"):
        lines.append(f"* Known anomalies in training: {_text(summary['known_anomalies'])}.")
    read = {key: value for key, value in summary.get("data", {}).items() if value}
    lines += [f"* `{key}`: {_text(value)}" for key, value in read.items()]
    if model.feature_names:
        shown = ", ".join(map(_text, model.feature_names[:_MOST_COLUMNS]))
        more = len(model.feature_names) - _MOST_COLUMNS
        lines.append(f"* Columns: {shown}" + (f" and {more} more" if more > 0 else "") + ".")
    return lines


def _settings(model: Model) -> list[str]:
    config, summary = model.config, model.summary
    optimizer = config.training.optimizer
    before = 0 if config.pretraining is None else config.pretraining.epochs
    rows = {
        "preset": config.preset,
        "network": f"{config.network.name}, embedding of {config.network.rep_dim}",
        "seeds": summary.get("seeds", "not known"),
        "epochs that ran": summary.get("epochs", "not known"),
        "epochs of pretraining": before,
        "batch size": config.training.batch_size,
        "optimizer": f"{optimizer.name}, learning rate {optimizer.learning_rate:g}",
        "weight decay": f"{config.training.weight_decay:g}",
        "preprocessing": config.preprocessing.contrast
        + (", ZCA" if config.preprocessing.zca else ""),
    }
    if model.embedding_score != "center":
        rows["embedding score"] = model.embedding_score
    lines = [f"| {key} | {_text(value)} |" for key, value in rows.items()]
    return ["| setting | value |", "| --- | --- |", *lines, "", "All of them are in `model.json`."]


def _threshold(model: Model) -> list[str]:
    summary, rule = model.summary, model.summary.get("threshold_rule", "not known")
    lines = [f"* A sample is anomalous above {model.threshold:.6g}: {_text(rule)}."]
    rate, held_out = summary.get("alarm_rate"), np.sort(model.calibration_scores)
    if rate is not None:
        lines.append(
            f"* Guarantee: of normal samples that come as the {len(held_out)} held-out ones did "
            f"(exchangeable with them), each is above with probability {rate:g} at most, averaged "
            "over which ones were held out."
        )
        rank = math.ceil((len(held_out) + 1) * (1.0 - rate) - 1e-9)
        if 1 <= rank <= len(held_out) and held_out[rank - 1] == model.threshold:
            # The share above the rank-th of n scores is Beta(n + 1 - rank, rank).
            from scipy.stats import beta

            low, high = beta.interval(0.95, len(held_out) + 1 - rank, rank)
            lines.append(
                f"* With these held-out samples the share of normal ones above it lies between "
                f"{100 * low:.2g} and {100 * high:.2g} % (95 %)."
            )
    else:
        lines.append("* No rate of false alarms is guaranteed by this rule.")
    if summary.get("recalibration"):
        lines.append(f"* Calibrated again after the training: {_text(summary['recalibration'])}.")
    choice = summary.get("threshold_choice")
    if choice:
        lines.append(
            f"* Chosen on labelled samples: {choice['false_alarms']} of {choice['normals']} normal "
            f"ones above, {choice['found']} of {choice['defects']} defects found; "
            f"{choice['threshold_before']:.6g} before."
        )
    return lines


def _figures(model: Model) -> list[str]:
    summary, lines = model.summary, []
    if "train_alarms" in summary and "threshold_choice" not in summary:
        lines.append(f"* Training samples above the threshold: {summary['train_alarms']}.")
    held_out = model.calibration_scores
    if len(held_out):
        above = int((np.asarray(held_out) > model.threshold).sum())
        lines.append(
            f"* Held-out normal samples: {above} of {len(held_out)} above; median score "
            f"{float(np.median(held_out)):.4g}, highest {float(np.max(held_out)):.4g}."
        )
    for key, value in summary.get("labels", {}).items():
        lines.append(f"* `{_text(key)}`: {_text(value)}")
    return lines


def _limits(model: Model) -> list[str]:
    lines = [
        "* It knows normal samples alone: what differs from them raises an alarm, whether it is a "
        "defect or not, and a defect that looks like them does not.",
        "* Its scores have no unit and compare with those of no other model.",
        "* Where the samples change (camera, light, supplier), the threshold holds no longer: look "
        "at the drift alarm of `watch`, and fit again.",
    ]
    if len(model.calibration_scores):
        lines.append(
            "* A normal sample's p-value is at most a with probability a; near-duplicates among "
            "the held-out ones (frames of a video) make it look better than it is."
        )
    else:
        lines.append("* No samples were held out: it gives no p-values and no drift alarm.")
    return lines


def _text(value: Any) -> str:
    """Returns a value as one line of text without markup."""
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    line = " ".join(shown.split())
    escaped = line.replace("&", "&amp;").replace("<", "&lt;")
    return "".join(
        f"\\{character}" if character in "\\`*_[]|" else character for character in escaped
    )
