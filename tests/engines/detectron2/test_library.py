"""Whether detectron2 is there, and which one."""

from __future__ import annotations

import logging
import sys
import warnings

import pytest

from bob.engines.detectron2 import version
from bob.engines.detectron2.library import quiet
from bob.engines.registry import get_engine
from bob.errors import UserError


def test_a_missing_library_is_one_line(monkeypatch, train, open_tiny, recipe) -> None:
    monkeypatch.setitem(sys.modules, "detectron2", None)
    with pytest.raises(UserError, match=r"^detectron2 is not installed\. Run scripts/install-detectron2\.$"):
        version()
    with pytest.raises(UserError, match="scripts/install-detectron2"):
        train(None, recipe)


def test_its_version_names_where_it_is_from() -> None:
    detectron2 = pytest.importorskip("detectron2")
    assert version().startswith(f"detectron2 {detectron2.__version__} (")
    assert version().endswith(")") and ("commit " in version() or "-detectron2 " in version())
    assert get_engine("detectron2").version() == version()


def test_quiet_ends_with_its_block(caplog) -> None:
    logger = logging.getLogger("detectron2")
    before = logger.level
    with quiet():
        logging.getLogger("detectron2.engine").error("unheard")
        warnings.warn("unheard", FutureWarning, stacklevel=1)
    assert logger.level == before and not caplog.records
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", UserWarning, stacklevel=1)


@pytest.mark.parametrize(
    ("change", "problem"),
    [({"prior": "l2sp:0.01"}, "has prior = 'l2sp:0.01'"), ({"precision": "float16"}, "CPU does not train in")],
)
def test_what_it_cannot_do_is_said_at_once(train, recipe, on_cpu, change, problem) -> None:
    pytest.importorskip("detectron2")
    from dataclasses import replace

    how = replace(on_cpu, precision=change.pop("precision", "float32"))
    with pytest.raises(UserError, match=problem):
        train(None, replace(recipe, **change), how=how)


def test_several_processes_are_refused(train, recipe, monkeypatch) -> None:
    pytest.importorskip("detectron2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="trains in one process, and several were launched"):
        train(None, recipe)
