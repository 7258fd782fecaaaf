"""`bob attack` on a real backbone with random weights and a folder of tiny photographs."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from bob.attack import attack
from bob.errors import UserError

pytest.importorskip("art")


@pytest.fixture
def bob_attack(home, photos):
    """Run `bob attack` on a random MobileNetV3; gives the result of typer's runner, a `UserError` its exception."""
    app = typer.Typer()
    app.command()(attack)
    fixed = ["-b", "mobilenetv3_small_050.random", "-t", f"folder:{photos}", "--device", "cpu", "-q"]
    return lambda *arguments: CliRunner().invoke(app, [*fixed, *map(str, arguments)])


@pytest.mark.slow
def test_an_attack_takes_accuracy_away_and_none_takes_none(bob_attack):
    done = [bob_attack("--json", "--eps", eps, "--steps", 3, "--images", 5) for eps in (0, 16)]
    assert [result.exit_code for result in done] == [0, 0], done[0].exception
    still, attacked = (json.loads(result.stdout) for result in done)
    assert still["n"] == attacked["n"] == 5
    assert still["robust"] == still["clean"] == attacked["clean"]
    assert attacked["robust"]["value"] < attacked["clean"]["value"]
    assert attacked["attack"].startswith("PGD of 3 steps, eps 16/255 in L-inf, seed 0")
    assert attacked["clean"]["low"] < attacked["clean"]["value"] <= attacked["clean"]["high"]


def test_people_get_two_lines(bob_attack):
    result = bob_attack("--steps", 1, "--images", 3, "-p", "ridge", "--norm", "l2", "--eps", 1)
    assert result.exit_code == 0, result.exception
    first, second = result.stdout.splitlines()
    assert ", ridge: clean " in first
    assert second.startswith("3 test images; PGD of 1 steps, eps 1 in L2")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--attack", "pdg"), "pgd"),
        (("--norm", "l1"), "linf"),
        (("-p", "knn"), "no linear probe"),
        (("-t", "shapes_multilabel"), "several labels an image"),
    ],
)
def test_a_users_mistake_is_one(bob_attack, wrong, message):
    result = bob_attack(*wrong)
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)
