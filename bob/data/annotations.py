"""What is wrong with annotations, told by file and number before anything is computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bob.errors import UserError

if TYPE_CHECKING:
    from bob.task_cards import DataSpec


@dataclass(frozen=True, slots=True)
class Problem:
    """One annotation, image or mask that cannot be used as it is.

    Attributes:
        file: The file that says so, as a person finds it.
        id: Which one in that file, e.g. `annotation 17` or `image 4`; empty where the file as a whole is meant.
        what: What is wrong, without a full stop.
    """

    file: str
    id: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}, {self.id}: {self.what}" if self.id else f"{self.file}: {self.what}"


def refuse(problems: Sequence[Problem], spec: DataSpec) -> None:
    """Do nothing where nothing is wrong, or where the card says that bad annotations are left out.

    Args:
        problems: All that was found, in the order of the files.
        spec: The task card's `[data]`: `source` is named, `drop_invalid` lets pass.

    Raises:
        UserError: Naming the first problem and how many more there are.
    """
    if not problems or spec.drop_invalid:
        return
    more = f" (and {len(problems) - 1:,} more)" if len(problems) > 1 else ""
    raise UserError(
        f"{spec.source} has bad annotations: {problems[0]}{more}.",
        "Mend them (`bob data verify TASK` lists all), or leave them out with drop_invalid = true in [data] of a task "
        "card.",
    )
