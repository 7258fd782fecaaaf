"""Every family of timm keeps the promises of the interface, apart from the exceptions that the survey names."""

import dataclasses
import fnmatch
import importlib.util
from pathlib import Path

import pytest
import timm

from bob.catalogue import load_backbone_cards

SCRIPT = Path(__file__).parents[2] / "scripts" / "survey_timm.py"


def load_survey():
    import sys

    spec = importlib.util.spec_from_file_location("survey_timm", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


survey = load_survey()
ON_CARDS = frozenset(card.weights.model for card in load_backbone_cards().values() if card.weights.source == "timm")
ROWS = dict(survey.read_page())
# The rest of them takes a minute more.
QUICK = list(ROWS)[::4]


def check_row(family):
    found, written = survey.try_out(ROWS[family].name), ROWS[family]
    assert dataclasses.replace(found, detail="") == written, found.detail
    assert found.lacks == survey.known_lack(found.name)


def test_the_page_is_up_to_date():
    assert list(ROWS) == timm.list_modules()
    assert survey.PAGE.read_text() == survey.page(ROWS)


@pytest.mark.parametrize("family", QUICK)
def test_family(family):
    check_row(family)


@pytest.mark.slow
@pytest.mark.parametrize("family", [family for family in ROWS if family not in QUICK])
def test_other_family(family):
    check_row(family)


@pytest.mark.slow
def test_the_page_shows_the_smallest():
    assert survey.smallest("mobilenetv3") == ROWS["mobilenetv3"].name


@pytest.mark.parametrize("pattern", list(survey.KNOWN))
def test_every_exception_is_one(pattern):
    """A family that starts to work must leave the list."""
    name = min(fnmatch.filter(timm.list_models(), pattern), key=len)
    found = survey.try_out(name)
    print(f"{name} lacks {found.lacks}: {found.detail}")
    assert found.lacks == survey.KNOWN[pattern][0]


def test_the_sample_is_spread_over_the_families():
    names = survey.sample(200, without=ON_CARDS)
    assert names == survey.sample(200, without=ON_CARDS)
    assert len(set(names)) == 200 and not ON_CARDS & set(names)
    missing = set(timm.list_modules()) - {survey.family(name) for name in names}
    assert missing <= {survey.family(name) for name in ON_CARDS}  # all of such a family may be on cards


@pytest.mark.slow
@pytest.mark.parametrize("name", survey.sample(200, without=ON_CARDS))
def test_sampled_model(name):
    found = survey.try_out(name)
    assert found.lacks == survey.known_lack(name), found.detail
