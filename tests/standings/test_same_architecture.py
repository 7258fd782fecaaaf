"""Like architectures: the best of each paradigm, differences on joint draws, who is ahead and whether that is sure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from bob.errors import UserError
from bob.results.record import Record
from bob.results.runs import tidy
from bob.standings.cells import Cells, cells_of
from bob.standings.same_architecture import same_architecture, tally
from bob.standings.wide import facts_of

Make = Callable[..., Record]
NOISE = np.linspace(-0.1, 0.1, 500)  # what all share: the test samples


def _compare(records: list[Record]) -> pd.DataFrame:
    runs = tidy(records)
    return same_architecture(cells_of(runs), facts_of(runs))


@pytest.fixture
def make(make_record: Make) -> Make:
    def record(name: str, paradigm: str, score: float, architecture: str = "ViT-B/16", **options: object) -> Record:
        options.setdefault("draws", score + NOISE)
        return make_record(name, score, card={"paradigm": paradigm, "architecture": architecture}, **options)

    return record


def test_best_of_each_paradigm(make: Make) -> None:
    table = _compare(
        [
            make("mae", "ssl", 0.7),
            make("dino", "ssl", 0.8),
            make("deit", "supervised", 0.75),
            make("clip", "vlm", 0.6),
            make("random", "baseline", 0.99),
            make("resnet50", "supervised", 0.9, "ResNet-50"),
            make("pixels", "baseline", 0.1, "none"),
        ]
    )
    assert list(table["paradigm"]) == ["ssl", "vlm"]
    ssl, vlm = table.to_dict("records")
    assert (ssl["backbone"], ssl["backbones"], ssl["supervised"]) == ("dino", 2, "deit")
    assert (ssl["setting"], ssl["architecture"], ssl["supervised_backbones"]) == ("t/linear", "ViT-B/16", 1)
    # The noise is shared, so it cancels: the difference is the same in every draw.
    assert [ssl["difference"], ssl["low"], ssl["high"]] == pytest.approx([0.05] * 3, abs=1e-6)
    assert (ssl["ahead"], ssl["sure"]) == ("ssl", True)
    assert vlm["difference"] == pytest.approx(-0.15) and (vlm["ahead"], vlm["sure"]) == ("supervised", True)
    assert tally(table) == [
        "ssl is ahead of supervised in 1 of 1 comparisons (surely in 1) and behind in 0 (surely in 0).",
        "vlm is ahead of supervised in 0 of 1 comparisons (surely in 0) and behind in 1 (surely in 1).",
    ]


def test_interval_is_that_of_the_difference_of_draws(make: Make) -> None:
    rng = np.random.default_rng(0)
    a, b = 0.7 + 0.05 * rng.standard_normal((2, 500))
    [row] = _compare([make("a", "ssl", 0.72, draws=a), make("b", "supervised", 0.7, draws=b)]).to_dict("records")
    assert [row["low"], row["high"]] == pytest.approx(np.quantile(a - b, [0.025, 0.975]), abs=1e-6)
    assert (row["ahead"], row["sure"]) == ("ssl", False)


def test_lower_is_better(make: Make) -> None:
    down = {"metric": "nll", "higher_is_better": False}
    [row] = _compare(
        [
            make("worse", "ssl", 2.0, **down),
            make("better", "ssl", 1.0, **down),
            make("s", "supervised", 1.5, **down),
        ]
    ).to_dict("records")
    assert (row["backbone"], row["ahead"], row["sure"]) == ("better", "ssl", True)
    assert row["difference"] == pytest.approx(-0.5)


def test_each_setting_has_its_own_best(make: Make) -> None:
    table = _compare(
        [
            make("dino", "ssl", 0.8),
            make("mae", "ssl", 0.7),
            make("dino", "ssl", 0.5, protocol="finetune"),
            make("mae", "ssl", 0.9, protocol="finetune"),
            make("deit", "supervised", 0.8),
            make("deit", "supervised", 0.9, protocol="finetune"),
        ]
    )
    assert list(zip(table["setting"], table["backbone"], strict=True)) == [("t/finetune", "mae"), ("t/linear", "dino")]
    assert list(table["ahead"]) == ["tie", "tie"] and not table["sure"].any()


def test_unknown_draws_have_no_interval(make: Make) -> None:
    runs = tidy([make("dino", "ssl", 0.8), make("deit", "supervised", 0.5)])
    cells = cells_of(runs)
    unknown = Cells(cells.table, np.full_like(cells.draws, np.nan), cells.independent)
    [row] = same_architecture(unknown, facts_of(runs)).to_dict("records")
    assert np.isnan([row["low"], row["high"]]).all() and (row["ahead"], row["sure"]) == ("ssl", False)


def test_nothing_alike(make: Make) -> None:
    records = [make("dino", "ssl", 0.8), make("resnet50", "supervised", 0.8, "ResNet-50")]
    records += [make("x", "ssl", 0.8, "none"), make("y", "supervised", 0.8, "none")]
    with pytest.raises(UserError, match=r"^No architecture has both a supervised and an ssl or vlm backbone"):
        _compare(records)
