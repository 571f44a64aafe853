"""Tables for the terminal."""

from collections.abc import Mapping

from deepsvdd_jax.cli.reporting import published
from deepsvdd_jax.cli.sweeps import methods
from deepsvdd_jax.cli.sweeps.records import Record, RunName, Summary


def summary_table(summary: list[Summary], preset: str, protocol: str) -> str:
    """Returns the summary beside the published figures, AUROC in percent."""
    return aligned(summary_lines(summary, preset, protocol))


def summary_lines(summary: list[Summary], preset: str, protocol: str) -> list[tuple[str, ...]]:
    """Returns the cells of `summary_table`, the header first.

    A published figure in brackets was quoted from memory and could not be checked.
    """
    header = ("class", "method", "runs", "untrained", "AUROC", "ensemble", "published")
    lines: list[tuple[str, ...]] = [header]
    for method in dict.fromkeys(row.method for row in summary):
        of_method = [row for row in summary if row.method == method]
        known = [_published(row, preset, protocol) for row in of_method[:-1]]
        lines += [_line(row, figure) for row, figure in zip(of_method[:-1], known, strict=True)]
        lines.append(_line(of_method[-1], _mean_published(known)))
    return lines


def markdown_table(summary: list[Summary], preset: str, protocol: str) -> str:
    """Returns a summary as a markdown table, AUROC in percent, a column a class.

    A method has up to three rows: ours, mean ± standard deviation over seeds; all seeds together,
    where there are several with a common score; published, in brackets where it could not be
    checked.
    """
    labels = sorted({row.normal_class for row in summary if row.normal_class is not None})
    columns: tuple[int | None, ...] = (*labels, None)
    names = (*map(str, labels), "mean")
    lines: list[tuple[str, ...]] = [("method", *names), ("---", *["---:"] * len(names))]
    for key, title in _titles(summary).items():
        of_method = {
            row.normal_class: row for row in summary if (row.method, row.objective or "") == key
        }
        if not of_method:
            continue
        known: dict[int | None, tuple[float, bool] | None] = {
            label: _published(row, preset, protocol)
            for label, row in of_method.items()
            if label is not None
        }
        known[None] = _mean_published(list(known.values()))
        counts = [row.runs for label, row in of_method.items() if label is not None]
        lines.append((f"**{title}**", *(_ours(of_method.get(label)) for label in columns)))
        together = [_together(of_method.get(label)) for label in columns]
        # Seeds with different test images have no common score.
        if max(counts) > 1 and any(together):
            seeds = " to ".join(map(str, sorted({min(counts), max(counts)})))
            lines.append((f"{title}, {seeds} seeds together", *together))
        if any(known.values()):
            lines.append((f"{title}, published", *(_shown(known.get(label)) for label in columns)))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _titles(summary: list[Summary]) -> dict[tuple[str, str], str]:
    """Returns the titles of the methods and objectives of a summary, in the order of the paper's
    tables."""
    known = {method.name: method for method in methods.in_tables()}
    there = {(row.method, row.objective or "") for row in summary}
    names = [*known, *sorted({method for method, _ in there} - set(known))]
    return {
        (name, objective): known[name].title_of(objective) if name in known else name
        for name in names
        for method, objective in sorted(there, reverse=True)
        if method == name
    }


def _ours(row: Summary | None) -> str:
    if row is None:
        return ""
    mean, std = _percent(row.auroc_mean), _percent(row.auroc_std)
    return f"{mean} ± {std}" if std and row.runs > 1 else mean


def _together(row: Summary | None) -> str:
    return "" if row is None else _percent(row.auroc_ensemble)


def _shown(figure: tuple[float, bool] | None) -> str:
    if figure is None:
        return ""
    return f"{100 * figure[0]:.1f}" if figure[1] else f"({100 * figure[0]:.1f})"


def itu_tables(rows: Mapping[RunName, Record], dataset: str, preset: str) -> list[str]:
    """Returns the ITU report's figures beside each method's means, for its own digit only."""
    return [
        f"\n{title}\n{aligned(lines)}" for title, lines in itu_lines(rows, dataset, preset).items()
    ]


def itu_lines(
    rows: Mapping[RunName, Record], dataset: str, preset: str
) -> dict[str, list[tuple[str, ...]]]:
    """Returns the cells of `itu_tables` by title, each with its header first."""
    found_tables: dict[str, list[tuple[str, ...]]] = {}
    for method in dict.fromkeys(name.method for name in rows):
        for label in sorted({name.normal_class for name in rows if name.method == method}):
            figures = published.itu_figures(dataset, preset, method, label)
            ours = [
                row for name, row in rows.items() if name[:2] == (method, label) and row.is_scored
            ]
            if len(figures) < 2 or not ours:
                continue
            lines: list[tuple[str, ...]] = [("figure", "report", "ours, mean", "least", "most")]
            for column, value in figures.items():
                values = (getattr(row, column) for row in ours)
                found = [float(cell) for cell in values if cell is not None]
                mean = sum(found) / len(found)
                cells = (f"{number:.4f}" for number in (value, mean, min(found), max(found)))
                lines.append((column, *cells))
            found_tables[f"ITU report, digit {label}, {method}, {len(ours)} runs"] = lines
    return found_tables


def outside_lines(rows: Mapping[RunName, Record]) -> list[str]:
    """Returns, for each soft boundary, the mean share of training images outside the radius that
    training ended with, before it is set anew from the whole training set."""
    lines = []
    for method in dict.fromkeys(name.method for name in rows):
        shares = [
            row.outside
            for name, row in rows.items()
            if name.method == method
            and row.objective == "soft-boundary"
            and row.outside is not None
        ]
        if shares:
            lines.append(
                f"\n{method}: {100 * sum(shares) / len(shares):.1f} % of the training images"
                f" ({100 * min(shares):.1f} to {100 * max(shares):.1f}) lay outside the radius that"
                " training ended with"
            )
    return lines


def _published(row: Summary, preset: str, protocol: str) -> tuple[float, bool] | None:
    assert row.normal_class is not None
    return published.published_auroc(
        row.dataset,
        preset,
        protocol,
        method=row.method,
        objective=row.objective or "",
        normal_class=row.normal_class,
    )


def _mean_published(known: list[tuple[float, bool] | None]) -> tuple[float, bool] | None:
    figures = [figure for figure in known if figure is not None]
    if not figures or len(figures) < len(known):
        return None
    return sum(value for value, _ in figures) / len(figures), all(sure for _, sure in figures)


def _line(row: Summary, figure: tuple[float, bool] | None) -> tuple[str, ...]:
    return (
        row.label,
        row.method + (f" {row.objective}" if row.objective else ""),
        str(row.runs),
        _percent(row.auroc_untrained_mean),
        _ours(row),
        _percent(row.auroc_ensemble),
        _shown(figure),
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"


def aligned(lines: list[tuple[str, ...]]) -> str:
    """Returns a header and lines as columns, the first two to the left, the others to the right."""
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    texts = [
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([texts[0], "-" * max(map(len, texts)), *texts[1:]])


def duration(seconds: float) -> str:
    """Returns a time as `3 h 07 min`, `3 min 20 s`, `42 s` or `9.5 s`."""
    whole = round(seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    if whole < 120:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"
