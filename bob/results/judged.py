"""What predictions of every kind have in common: they stand beside the truth, a sample each, and can be written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self, TypeAlias

import pyarrow as pa

from bob.results.checks import read_parquet

Row: TypeAlias = dict[str, Any]  # of a table in a record; JSON-ready


class Judged(ABC):
    """Predictions together with what is true, from which every metric can be computed.

    Its length is the number of units that a bootstrap draws.

    Attributes:
        kind: Which metrics are about them; called as their adapter is.
        names: Which sample each is.
        classes: Names of all classes.
    """

    kind: ClassVar[str]

    names: list[str]
    classes: tuple[str, ...]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def per_class(self) -> list[Row]:
        """A row for each class that has samples."""

    def per_group(self) -> list[Row]:
        """A row for each group that has samples; none where there are no groups."""
        return []

    def breakdown(self) -> dict[str, list[Row]]:
        """Further tables for the record, by name, such as a row for each set of a test split."""
        return {}

    @abstractmethod
    def write(self, path: Path) -> None:
        """Write one Parquet file."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote.

        Raises:
            UserError: If the file is missing, is not Parquet, or does not hold predictions of this kind.
        """
        return cls.from_table(read_parquet(path), path)

    @classmethod
    @abstractmethod
    def from_table(cls, table: pa.Table, path: Path) -> Self:
        """Take predictions out of the table that was read from `path`; see `read`."""
