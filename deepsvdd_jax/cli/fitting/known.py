"""Divides labelled defects into those to train on and those to test on."""

from collections import Counter
from typing import NamedTuple

import numpy as np
from absl import flags

from deepsvdd_jax.cli.fitting.samples import Defects, Samples
from deepsvdd_jax.configs import ConfigError
from deepsvdd_jax.datasets import DataError
from deepsvdd_jax.datasets.dataset import printable

DEFAULT_FRACTION = 0.5

_FLAGS = ("known_kinds", "known_fraction", "known_per_kind")
_MOST_KINDS = 20


class Wanted(NamedTuple):
    """The labelled defects to train on.

    Attributes:
      kinds: names; None takes all kinds.
      fraction: share of each kind; None takes `per_kind`, or else half of each kind where the
        source has no test part, all where it has.
      per_kind: how many of each kind; None takes `fraction`.
    """

    kinds: tuple[str, ...] | None = None
    fraction: float | None = None
    per_kind: int | None = None


class Share(NamedTuple):
    """How many labelled defects of a kind are trained on, tested on, and unused; none takes part in
    the calibration."""

    trained: int
    tested: int
    unused: int


def define_flags() -> None:
    """Defines the flags that say which labelled defects are trained on."""
    flags.DEFINE_list(
        "known_kinds",
        None,
        "kinds of labelled defects that an objective with labels trains on (default: all)",
    )
    flags.DEFINE_float(
        "known_fraction",
        None,
        "share of the labelled defects of each kind that is trained on, the others being tested on "
        "(default: 0.5, or all of the training part where the data have a test part)",
    )
    flags.DEFINE_integer(
        "known_per_kind",
        None,
        "how many labelled defects of each kind are trained on, instead of a share",
        lower_bound=1,
    )


def wanted(values: flags.FlagValues) -> Wanted:
    """Reads the flags.

    Raises:
      ConfigError: a share out of range, or two flags for one thing.
    """
    if values.known_fraction is not None and values.known_per_kind is not None:
        raise ConfigError("known_fraction and known_per_kind are one setting; give one")
    if values.known_fraction is not None and not 0.0 < values.known_fraction < 1.0:
        raise ConfigError(f"known_fraction is {values.known_fraction}; it must lie in (0, 1)")
    kinds = tuple(values.known_kinds) if values.known_kinds else None
    return Wanted(kinds, values.known_fraction, values.known_per_kind)


def refuse_flags(values: flags.FlagValues, objective: str) -> None:
    """Refuses the flags for an objective that does not learn from labels.

    Raises:
      ConfigError: names the flag.
    """
    for name in (*_FLAGS, "outliers", "outlier_count", "compare"):
        if values[name].value != values[name].default:
            raise ConfigError(
                f"--{name} has no effect here: objective {objective} does not learn from labels; "
                "take deep-sad, hsc, fcdd or bce"
            )


def divide(samples: Samples, choice: Wanted, seed: int) -> tuple[Samples, Defects]:
    """Divides the labelled defects into those to train on and those to test on.

    Args:
      samples: normals, tests, and the defects of the training part.
      choice: which to train on.
      seed: draws them, kind by kind, whatever other kinds there are.

    Returns:
      The samples, no test image of which is trained on, and the defects to train on, in the order
      of the source.

    Raises:
      DataError: a kind that is not there or is the normal class, or too few of every kind.
    """
    found = samples.read_defects()
    if not samples.has_test_part:
        tested = samples.test_labels == 1
        images = np.concatenate([samples.test_images[tested], found.images])
        regions = found.regions
        if regions is not None and samples.test_regions is not None:
            regions = np.concatenate([samples.test_regions[tested], regions])
        found = Defects(
            images, (*(kind for kind in samples.test_kinds if kind), *found.kinds), regions
        )
    if not found.kinds:
        if choice != Wanted():
            raise DataError("there are no labelled defects to train on")
        return samples, found
    _check_kinds(samples, choice, found)
    kinds = np.array(found.kinds)
    known = np.zeros(len(kinds), bool)
    for kind in np.unique(kinds):
        places = np.flatnonzero(kinds == kind)
        if choice.kinds is None or kind in choice.kinds:
            count = _count(len(places), choice, keep_one=not samples.has_test_part)
            draw = np.random.default_rng([seed, 4, *str(kind).encode()])
            known[draw.permutation(places)[:count]] = True
    if not known.any():
        raise DataError(
            f"{_counted(found.kinds)}: too few labelled defects of every kind to train on some and "
            "test on others; it takes 2 of a kind"
        )
    regions = None if found.regions is None else found.regions[known]
    trained = Defects(found.images[known], tuple(kinds[known].tolist()), regions)
    if samples.has_test_part:
        return samples, trained
    good = samples.test_labels == 0
    return (
        samples._replace(
            test_images=np.concatenate([samples.test_images[good], found.images[~known]]),
            test_kinds=(*("",) * int(good.sum()), *kinds[~known].tolist()),
            test_regions=None,
        ),
        trained,
    )


def _check_kinds(samples: Samples, choice: Wanted, found: Defects) -> None:
    for kind in choice.kinds or ():
        if kind == samples.normal:
            raise DataError(f"known_kinds: {kind} is the normal class, which is no defect")
        if kind not in found.kinds:
            raise DataError(
                f"known_kinds is {kind!r}; the labelled defects are {_counted(found.kinds)}"
            )
    if choice.per_kind is None:
        return
    spare = 0 if samples.has_test_part else 1
    counts = Counter(kind for kind in found.kinds if kind in (choice.kinds or found.kinds))
    kind, count = min(counts.items(), key=lambda item: item[1])
    if count < choice.per_kind + spare:
        raise DataError(
            f"known_per_kind={choice.per_kind}, but there are {count} of {printable(kind)}"
            f"{', one of which is to be tested on' if spare else ''}; lower it, or leave the kind "
            "out with --known_kinds"
        )


def _count(available: int, choice: Wanted, keep_one: bool) -> int:
    """Returns how many of a kind are trained on: at least one, and not all where one is kept for
    the test."""
    if choice.per_kind is not None:
        return choice.per_kind
    if choice.fraction is None and not keep_one:
        return available
    fraction = DEFAULT_FRACTION if choice.fraction is None else choice.fraction
    return min(max(1, round(fraction * available)), available - keep_one)


def shares(samples: Samples, divided: Samples, trained: Defects) -> dict[str, Share]:
    """Returns the shares of the labelled defects by kind.

    Args:
      samples: before `divide`.
      divided: after it.
      trained: the defects to train on.
    """
    total = Counter(samples.read_defects().kinds) + Counter(filter(None, samples.test_kinds))
    known, tested = Counter(trained.kinds), Counter(filter(None, divided.test_kinds))
    return {
        kind: Share(known[kind], tested[kind], total[kind] - known[kind] - tested[kind])
        for kind in sorted(total)
    }


def describe(by_kind: dict[str, Share]) -> str:
    """Returns a line on the use of the labelled defects."""
    trained, tested, unused = (sum(share[i] for share in by_kind.values()) for i in range(3))
    total = trained + tested + unused
    kinds = [
        f"{printable(kind)} {share.trained} + {share.tested}" for kind, share in by_kind.items()
    ]
    more = f", ... {len(kinds) - _MOST_KINDS} more kinds" if len(kinds) > _MOST_KINDS else ""
    return (
        f"labelled defects: {_of(trained, total)} trained on, 0 to calibrate, "
        f"{_of(tested, total)} to test on"
        + (f", {_of(unused, total)} not used" if unused else "")
        + f"; by kind {', '.join(kinds[:_MOST_KINDS])}{more}"
    )


def _of(count: int, total: int) -> str:
    return f"{count} of {total} ({100 * count / total:.0f} %)"


def _counted(kinds: tuple[str, ...]) -> str:
    counts = Counter(kinds).most_common(_MOST_KINDS)
    return ", ".join(f"{printable(kind)} ({count})" for kind, count in counts)
