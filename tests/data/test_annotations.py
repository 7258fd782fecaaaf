"""What is wrong with annotations is told in one line: the first by file and number, how many more, and what to do."""

from __future__ import annotations

import pytest

from bob.data.annotations import Problem, refuse
from bob.errors import UserError
from bob.task_cards import DataSpec

SPEC = DataSpec(source="coco:images:a.json")


def test_a_problem_in_words() -> None:
    assert str(Problem("a.json", "annotation 7", "its area is 0")) == "a.json, annotation 7: its area is 0"
    assert str(Problem("a.xml", "", "it does not parse")) == "a.xml: it does not parse"


def test_nothing_wrong() -> None:
    refuse([], SPEC)


@pytest.mark.parametrize(("count", "more"), [(1, "area is 0."), (1235, "area is 0 (and 1,234 more).")])
def test_refused(count, more) -> None:
    with pytest.raises(UserError) as caught:
        refuse([Problem("a.json", f"annotation {n}", "its area is 0") for n in range(count)], SPEC)
    message = str(caught.value)
    assert f"coco:images:a.json has bad annotations: a.json, annotation 0: its {more}" in message
    assert "bob data verify" in message
    assert "drop_invalid = true" in message
    assert "\n" not in message


def test_let_pass() -> None:
    refuse([Problem("a.json", "image 1", "bad")], SPEC.model_copy(update={"drop_invalid": True}))
