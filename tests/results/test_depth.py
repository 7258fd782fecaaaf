"""Score against depth: rows by hand, one curve for each backbone, and pictures that are written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bob.errors import UserError
from bob.results import depth
from bob.results.depth import depth_figure, select_layerwise
from bob.results.files import write_figure
from bob.results.record import Record
from bob.results.runs import tidy

Make = Callable[..., Record]


def depth_table(records: list[Record]) -> pd.DataFrame:
    return depth.depth_table(tidy(records))


def _at(record: Record, **protocol: object) -> Record:
    """The record with more said of its protocol."""
    request = record.request.model_copy(update={"protocol": {**record.request.protocol, **protocol}})
    return record.model_copy(update={"request": request, "run_id": request.run_id()})


def _curve(make_record: Make, backbone: str, scores: list[float], base: str = "knn", **options: object) -> list[Record]:
    """A backbone's run at every block, and the plain one at the last score."""
    records = [
        _at(make_record(backbone, score, protocol=f"{base}@block{n}", **options), block=n, blocks=len(scores))
        for n, score in enumerate(scores)
    ]
    return [*records, make_record(backbone, scores[-1], protocol=base, **options)]


class TestTable:
    def test_by_hand(self, make_record: Make) -> None:
        table = depth_table([*_curve(make_record, "a", [0.2, 0.5, 0.7, 0.6])[::-1], make_record("z", protocol="knn")])
        assert list(table.columns[:5]) == ["backbone", "task", "protocol", "metric", "block"]
        assert set(table["backbone"]) == {"a"} and set(table["protocol"]) == {"knn"}
        assert list(table["block"][:4]) == [0, 1, 2, 3] and pd.isna(table["block"][4])
        assert list(table["depth"]) == [0.25, 0.5, 0.75, 1, 1]
        assert list(table["score"]) == [0.2, 0.5, 0.7, 0.6, 0.6]
        np.testing.assert_allclose(table["low"], table["score"] - 0.1)
        np.testing.assert_allclose(table["high"], table["score"] + 0.1)

    def test_each_protocol_has_its_plain_run(self, make_record: Make) -> None:
        records = _curve(make_record, "a", [0.1, 0.2]) + _curve(make_record, "a", [0.3, 0.4], base="linear@5shot")
        table = depth_table([*records, make_record("a", 0.9, protocol="linear")])
        assert table.groupby("protocol")["score"].apply(list).to_dict() == {
            "knn": [0.1, 0.2, 0.2],
            "linear@5shot": [0.3, 0.4, 0.4],
        }

    def test_backbones_of_different_depth(self, make_record: Make) -> None:
        records = _curve(make_record, "shallow", [0.1, 0.2]) + _curve(make_record, "deep", [0.1, 0.2, 0.3, 0.4])
        assert depth_table(records)["backbone"].value_counts().to_dict() == {"deep": 5, "shallow": 3}

    def test_without_a_plain_run(self, make_record: Make) -> None:
        assert list(depth_table(_curve(make_record, "a", [0.1, 0.2])[:-1])["block"]) == [0, 1]

    def test_seeds_are_averaged(self, make_record: Make) -> None:
        records = [r for seed in (0, 1) for r in _curve(make_record, "a", [0.1 + 0.2 * seed, 0.5], seed=seed)]
        table = depth_table(records)
        assert list(table["score"]) == pytest.approx([0.2, 0.5, 0.5]) and list(table["seeds"]) == [2, 2, 2]
        assert table["high"][0] - table["low"][0] > 0.25

    def test_runs_on_older_weights_are_left_out(self, make_record: Make) -> None:
        old = _curve(make_record, "a", [0.1, 0.2], weights="old", created="2026-01-01")
        new = _curve(make_record, "a", [0.3, 0.4], weights="new", created="2026-01-02")
        assert list(depth_table([*new, *old])["score"]) == [0.3, 0.4, 0.4]

    def test_nothing_layerwise(self, make_record: Make) -> None:
        with pytest.raises(UserError, match=r"There are no layer-wise runs\. Make some: `bob run"):
            depth_table([make_record(protocol="knn"), make_record(protocol="knn@5shot")])

    @pytest.mark.parametrize("said", [{}, {"block": 3}, {"block": 4, "blocks": 4}, {"block": "3", "blocks": 4}])
    def test_a_run_that_does_not_say_its_block(self, make_record: Make, said: dict[str, object]) -> None:
        with pytest.raises(UserError, match=r"of knn@block3 does not say .* blocks .*Run it again"):
            depth_table([_at(make_record(protocol="knn@block3"), **said)])

    def test_select(self, make_record: Make) -> None:
        records = tidy([r for b in "ab" for p in ("knn", "linear") for r in _curve(make_record, b, [0.1], base=p)])
        assert len(select_layerwise(records, [], [], [])) == 8
        found = select_layerwise(records, ["a"], ["t"], ["lin*"])
        assert list(found["protocol"]) == ["linear", "linear@block0"]
        with pytest.raises(UserError, match="No record matches"):
            select_layerwise(records, ["c"], [], [])


class TestFigure:
    @pytest.fixture
    def table(self, make_record: Make) -> pd.DataFrame:
        long = [r for n in range(9) for r in _curve(make_record, f"b{n}", [0.1 * n, 0.5, 0.6])]
        return depth_table(long + _curve(make_record, "b0", [0.2, 0.3], base="linear"))

    def test_a_panel_for_each_setting_and_a_curve_for_each_backbone(self, table: pd.DataFrame) -> None:
        knn, linear = depth_figure(table).axes
        assert (knn.get_title(), linear.get_title()) == ("t/knn", "t/linear")
        assert [text.get_text() for text in knn.get_legend().get_texts()] == [f"b{n}" for n in range(9)]
        curve, plain = linear.get_lines()
        np.testing.assert_allclose(curve.get_xydata(), [[0.5, 0.2], [1.0, 0.3]])
        np.testing.assert_allclose(plain.get_xydata(), [[1.0, 0.3]])
        low, high = linear.collections[0].get_paths()[0].get_extents().intervaly
        assert (low, high) == pytest.approx((0.1, 0.4))
        assert linear.get_ylabel() == "top1"

    def test_curves_are_told_apart_without_colour(self, table: pd.DataFrame) -> None:
        curves = depth_figure(table).axes[0].get_lines()[::2]
        assert len({(line.get_color(), line.get_marker()) for line in curves}) == 9
        assert len({line.get_marker() for line in curves}) == 9

    @pytest.mark.parametrize("name", ["curve.png", "curve.svg"])
    def test_files(self, table: pd.DataFrame, tmp_path: Path, name: str) -> None:
        for folder in ("one", "two"):
            write_figure(depth_figure(table), tmp_path / folder / name)
        content = (tmp_path / "one" / name).read_bytes()
        assert content == (tmp_path / "two" / name).read_bytes()
        assert [path.name for path in (tmp_path / "one").iterdir()] == [name]
        if name.endswith("png"):
            assert np.asarray(Image.open(tmp_path / "one" / name).convert("L")).std() > 10
        else:
            assert b"<svg" in content and b"t/linear" in content and b"b8" in content

    def test_other_suffix(self, table: pd.DataFrame, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"Give a name that ends in \.png or \.svg"):
            write_figure(depth_figure(table), tmp_path / "curve.pdf")
        assert list(tmp_path.iterdir()) == []
