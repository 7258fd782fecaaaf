"""Tables of a task card beside `[data]`: further sets that it is tested on, and how queries and database are told."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from bob.cards import Table

Severity = Annotated[int, Field(ge=1, le=5)]


class OtherSet(Table):
    """One of the sets beside the task's own test images that a classifier is tested on, without training on it.

    Attributes:
        name: As in the record's table.
        source: As `[data]` has it; empty for the task's own test images, which `corruptions` then change.
        split: The source's own split; empty for its `test`, else its `val`, else its only one.
        class_map: How its classes become the task's: empty for those of the same name, `index` where its classes are
            called by their positions, or a file below the data root.
        corruptions: Names of the corruptions; a set for each and each severity. `{corruption}` and `{severity}` in
            `source` stand for them.
        severities: From 1 to 5.
        near: Whether these outliers are close to the known classes.
        subset: List of the only images that count, one name a line: a path below the data root.
    """

    name: str
    source: str = ""
    split: str = ""
    class_map: str = ""
    corruptions: tuple[str, ...] = ()
    severities: tuple[Severity, ...] = (1, 2, 3, 4, 5)
    near: bool = False
    subset: str = ""

    @model_validator(mode="after")
    def _is_another(self) -> Self:
        if not (self.source or self.corruptions):
            raise ValueError("it needs a 'source', or 'corruptions' of the task's own test images")
        if not self.severities:
            raise ValueError("'severities' is empty")
        return self


class RetrievalSpec(Table):
    """Which images are queries, which are the database, and what a query should find.

    Attributes:
        rule: `two_level` cuts queries off each class, in the order of file names; `leave_one_out` asks with every image
            for the others of its class; `splits` takes the source's own `query` and `database`; `revisited`, `gldv2`
            and `copydays` read what these benchmarks publish.
        query_fraction: Share of each class that `two_level` takes as queries, rounded down, at least one image.
        cap: Images of each class that count, in the order of file names; None for all.
        crop_queries: Whether queries are cut to the box that the benchmark gives for them.
    """

    rule: Literal["two_level", "leave_one_out", "splits", "revisited", "gldv2", "copydays"] = "two_level"
    query_fraction: float = Field(default=0.2, gt=0, lt=1)
    cap: PositiveInt | None = None
    crop_queries: bool = False
