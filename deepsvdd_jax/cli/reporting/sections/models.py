"""Pictures of a sweep's networks: reconstructions, filters, embeddings."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from deepsvdd_jax.cli.reporting import inspection
from deepsvdd_jax.cli.reporting.finished import FinishedSweep
from deepsvdd_jax.cli.reporting.pictures import Pictures
from deepsvdd_jax.cli.reporting.sections.images import no_images
from deepsvdd_jax.cli.sweeps import methods, records
from deepsvdd_jax.cli.sweeps.records import RunName
from deepsvdd_jax.datasets import Dataset
from deepsvdd_jax.io.archives import ModelError
from deepsvdd_jax.io.models import Model, load_model
from deepsvdd_jax.viz import pages, plots
from deepsvdd_jax.viz.pages import Html, Section
from deepsvdd_jax.viz.plots import Layout

Array = npt.NDArray[Any]

_RECONSTRUCTED = 5

_MOST_FILTERS = 64

# Rows of image pairs are wide and low.
_PAIR_LAYOUTS = (Layout(2, 5.0, 1.4), Layout(1, 3.9, 1.2))


def model_sections(sweep: FinishedSweep, drawn: Pictures) -> list[Section]:
    """Returns the sections with pictures of the networks."""
    blocks: dict[str, list[Html]] = {"reconstructions": [], "filters": [], "embeddings": []}
    titles = {
        "reconstructions": "Reconstructions",
        "filters": "First-layer filters",
        "embeddings": "Embeddings",
    }
    for method in sweep.methods:
        models, blocked = _models(sweep, method)
        if blocked is not None:
            for name in blocks:
                blocks[name].append(blocked)
        elif models:
            blocks["reconstructions"] += _reconstructions(sweep, drawn, method, models)
            blocks["filters"] += _filters(sweep, drawn, method, models)
            blocks["embeddings"] += _embeddings(sweep, drawn, method, models)
    nothing = {
        "reconstructions": _no_decoder(sweep),
        "filters": pages.paragraph("None of these methods has filters."),
        "embeddings": pages.paragraph("None of these methods has embeddings."),
    }
    return [
        Section(title, name, list(dict.fromkeys(blocks[name])) or [nothing[name]])
        for name, title in titles.items()
    ]


def _no_decoder(sweep: FinishedSweep) -> Html:
    command = f"python -m experiments.sweep --dataset={sweep.dataset_name} --methods=dcae"
    return pages.missing(
        "None of these methods has a decoder. With the sweep's other flags added, this trains one "
        "that has:",
        f"{command} --save_models --out={sweep.folder}",
    )


def _models(sweep: FinishedSweep, method: str) -> tuple[dict[RunName, Model], Html | None]:
    """Returns the model of each class's first seed, or the sentence that says why there is none."""
    if method not in methods.deep():
        return {}, None
    models: dict[RunName, Model] = {}
    for label in sweep.classes:
        for name in sweep.finished(method, label)[:1]:
            folder = records.model_folder(sweep.folder, name)
            if not folder.exists():
                return {}, _no_models(sweep)
            try:
                models[name] = load_model(folder)
            except ModelError as error:
                return {}, pages.paragraph(f"A saved model cannot be read: {error}", "missing")
    return models, None


def _no_models(sweep: FinishedSweep) -> Html:
    where = f"{sweep.folder}-models"
    reason = (
        "The sweep was run without --save_models, so its networks cannot be looked into. The same "
        "sweep into a new folder, with its other flags added, keeps them:"
    )
    command = f"python -m experiments.sweep --dataset={sweep.dataset_name} --save_models"
    return pages.missing(reason, f"{command} --out={where}")


def _test_images(sweep: FinishedSweep, data: Dataset, name: RunName) -> Array:
    return data.x_test[sweep.test_indices(data, name.normal_class)]


def _reconstructions(
    sweep: FinishedSweep, drawn: Pictures, method: str, models: Mapping[RunName, Model]
) -> list[Html]:
    if not any("decoder" in model.params for model in models.values()):
        return []
    blocked = no_images(sweep)
    if blocked is not None or sweep.data is None:
        return [blocked or pages.paragraph(sweep.no_data)]
    panels: dict[str, Array] = {}
    for name, model in models.items():
        scored = records.read_scores(sweep.folder, name)
        chosen = _even_ranks(scored["scores"], scored["labels"])
        images = _test_images(sweep, sweep.data, name)[chosen]
        inputs = inspection.network_inputs(model, images)
        outputs = inspection.reconstructions(model, inputs)
        if outputs is not None:
            panels[sweep.title(name.normal_class)] = plots.pair_grid(inputs, outputs)
    picture = drawn.photo_panels(
        f"reconstructions-{method}", "Images, and reconstructed", panels, _PAIR_LAYOUTS
    )
    return [pages.figure([picture], _RECONSTRUCTION_CAPTION, method)]


_RECONSTRUCTION_CAPTION = (
    "Above the network's input, below its reconstruction; the left half are normal test images, "
    "the right half anomalous ones, each from the lowest to the highest score. First seed."
)


def _even_ranks(scores: Array, labels: Array) -> Array:
    """Picks normal, then anomalous rows at evenly spaced ranks of their scores."""
    parts = []
    for label in (0, 1):
        own = np.flatnonzero(labels == label)
        ranked = own[np.argsort(scores[own], kind="stable")]
        places = np.linspace(0, len(ranked) - 1, min(_RECONSTRUCTED, len(ranked)))
        parts.append(ranked[places.astype(int)])
    return np.concatenate(parts)


def _filters(
    sweep: FinishedSweep, drawn: Pictures, method: str, models: Mapping[RunName, Model]
) -> list[Html]:
    panels: dict[str, Array] = {}
    for name, model in models.items():
        kernels = inspection.first_filters(model)
        if kernels is None:
            return [pages.paragraph(f"{method}: a network of dense layers has no filters.")]
        images = plots.filter_images(kernels)[:_MOST_FILTERS]
        panels[sweep.title(name.normal_class)] = plots.image_grid(images, columns=8)
    picture = drawn.photo_panels(f"filters-{method}", "First-layer filters", panels)
    return [pages.figure([picture], _FILTER_CAPTION, method)]


_FILTER_CAPTION = (
    "Kernels of the first convolution after training, first seed: grey is zero, each is scaled by "
    "its largest weight."
)


def _embeddings(
    sweep: FinishedSweep, drawn: Pictures, method: str, models: Mapping[RunName, Model]
) -> list[Html]:
    if sweep.data is None:
        return [no_images(sweep) or pages.paragraph(sweep.no_data)]
    panels: dict[str, plots.Embedding] = {}
    shares = []
    for name, model in models.items():
        labels = records.read_scores(sweep.folder, name)["labels"]
        images = _test_images(sweep, sweep.data, name)
        panels[sweep.title(name.normal_class)], share = inspection.embed(model, images, labels)
        shares.append(100 * share)
    picture = drawn.panels(
        f"embeddings-{method}",
        f"Test set in two dimensions, {method}",
        len(panels),
        functools.partial(plots.embedding_figure, panels),
    )
    caption = (
        "Embeddings of the test set in the plane of their largest variance (PCA; it holds "
        f"{min(shares):.0f} to {max(shares):.0f} % of it), in the network's own units; axes differ "
        "between classes. First seed."
    )
    return [pages.figure([picture], caption, method)]
