"""The rows that the suite prints: one table, JSON, and the comparison of two files of rows."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.subjects import BenchmarkError, format_table

# More is better in these units, less in all others.
MORE_IS_BETTER = ("images / s", "runs / h", "GFLOP / s", "AUROC %")


class Row(NamedTuple):
    """One figure; a ratio above 1 is in our favour, None means that nothing was measured beside it.

    Attributes:
      part: of the suite.
      what: the measurement.
      value: the figure.
      unit: of it.
      ratio: to the peer in one process, measured in the same call.
      processes_ratio: to one-thread peers on every core at once.
      of_peak: operations a second over those of the machine's matrix product.
      peer: what `ratio` compares with.
    """

    part: str
    what: str
    value: float
    unit: str
    ratio: float | None = None
    processes_ratio: float | None = None
    of_peak: float | None = None
    peer: str = ""


def advantage(unit: str, ours: float, theirs: float | None) -> float | None:
    """Returns how many times better ours is in a unit, None without a peer."""
    if theirs is None:
        return None
    return ours / theirs if unit in MORE_IS_BETTER else theirs / ours


def format_rows(rows: Sequence[Row]) -> str:
    """Returns the table of all rows."""
    header = (
        "part",
        "what",
        "value",
        "unit",
        "peer / ours",
        "N processes / ours",
        "of peak",
        "peer",
    )
    return format_table(
        header,
        [
            (
                row.part,
                row.what,
                f"{row.value:,.4g}" if row.value < 1000 else f"{row.value:,.0f}",
                row.unit,
                _ratio(row.ratio),
                _ratio(row.processes_ratio),
                "" if row.of_peak is None else f"{row.of_peak:.1%}",
                row.peer,
            )
            for row in rows
        ],
    )


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def write_json(path: str, machine: dict[str, Any], rows: Sequence[Row]) -> None:
    """Writes machine and rows (touches a file)."""
    report = {"machine": machine, "rows": [row._asdict() for row in rows]}
    pathlib.Path(path).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def read_json(path: str) -> tuple[dict[str, Any], list[Row]]:
    """Reads what `write_json` wrote (touches a file).

    Raises:
      BenchmarkError: there is no such file, or it holds something else.
    """
    try:
        report = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        return dict(report["machine"]), [Row(**row) for row in report["rows"]]
    except OSError as error:
        raise BenchmarkError(f"{path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError):
        raise BenchmarkError(f"{path} holds no rows; give a file of --json") from None


def compare(old: Sequence[Row], new: Sequence[Row]) -> str:
    """Returns the table of common figures: a factor above 1 means that the new one is better.

    The factor of the ratios leaves out how fast the machine was, since each ratio was measured
    within one call.

    Raises:
      BenchmarkError: they have none in common.
    """
    before = {(row.part, row.what, row.unit): row for row in old}
    pairs = [(before[key], row) for row in new if (key := (row.part, row.what, row.unit)) in before]
    if not pairs:
        raise BenchmarkError("the two files have no figure in common")
    header = ("part", "what", "unit", "old", "new", "new / old", "of the ratios")
    return format_table(
        header,
        [
            (
                now.part,
                now.what,
                now.unit,
                f"{then.value:,.4g}",
                f"{now.value:,.4g}",
                _ratio(advantage(now.unit, now.value, then.value)),
                _ratio(now.ratio / then.ratio if now.ratio and then.ratio else None),
            )
            for then, now in pairs
        ],
    )
