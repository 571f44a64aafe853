"""Rows of csv files as frozen dataclasses, whose fields are the columns: text only at the edge."""

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from deepsvdd_jax.cli.files import ResultsError, Row, format_value, read_table
from deepsvdd_jax.configs.checks import hints_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class TypedRow:
    """A row; its fields are str, int, float or bool, None and NaN being empty cells.

    Attributes:
      SHARES: columns whose values lie in [0, 1]; no other column may be NaN.
    """

    SHARES: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """Returns the columns in their order."""
        return tuple(field.name for field in dataclasses.fields(cls))

    def to_row(self) -> Row:
        """Returns the cells as text, by column."""
        return {column: format_value(getattr(self, column)) for column in self.columns()}

    @classmethod
    def from_row(cls, row: Mapping[str, str]) -> Self:
        """Returns the row of cells, the inverse of `to_row`.

        Raises:
          KeyError: a column is missing.
          ValueError: a cell is not of the type of its column.
        """
        return cls(**{column: _value(cls, column, row[column]) for column in cls.columns()})

    @classmethod
    def read(cls, path: Path) -> list[Self]:
        """Reads a csv file with these columns (touches files).

        Raises:
          ResultsError: it is missing or damaged, or has other columns.
        """
        rows = read_table(path, cls.columns())
        try:
            return [cls.from_row(row) for row in rows]
        except ValueError as error:
            raise ResultsError(f"{path}: damaged: {error}") from None


def _value(row: type[TypedRow], column: str, cell: str) -> Any:
    """Returns the value of a cell in the type of its column."""
    hint = hints_of(row)[column]
    kind, *optional = typing.get_args(hint) or (hint,)
    if not cell and optional:
        return None
    try:
        value = bool(("0", "1").index(cell)) if kind is bool else kind(cell)
    except ValueError:
        raise ValueError(f"{column} is {cell[:40]!r}") from None
    is_allowed = 0 <= value <= 1 if column in row.SHARES else value == value
    if not is_allowed:
        raise ValueError(f"{column} is {cell[:40]!r}")
    return value
