"""`bob analyze`: what it prints, the files it writes, whose features it shares, and its mistakes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bob.analysis.spectrum import rank_me
from bob.analyze import analyze
from bob.backbones.sources import open_backbone, resolve_backbones
from bob.catalogue import load_backbone_cards, resolve_tasks
from bob.errors import UserError
from bob.features import extract
from bob.features.store import list_stores
from bob.results.predictions import Predictions
from bob.results.record import Record

Run = Callable[..., str]
FIXED = ["--device", "cpu", "-q", "--workers", "0"]
NET = "mobilenetv3_small_050.random"


@pytest.fixture
def run(home: Path, photos: Path, run_command: Run) -> Run:
    """Run the command on the photographs and give what it prints."""
    return partial(run_command, analyze, "-t", f"folder:{photos}", *FIXED)


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many images each call computed features of."""
    counts: list[int] = []
    whole = extract._fill

    def counting(*arguments: object) -> int:
        counts.append(whole(*arguments))
        return counts[-1]

    monkeypatch.setattr(extract, "_fill", counting)
    yield counts


def test_tables(run: Run, embedded: list[int], tmp_path: Path, photos: Path) -> None:
    names = [tmp_path / f"seen.{suffix}" for suffix in ("csv", "png", "svg")]
    shown = run("-b", f"pixels,constant,{NET}", *(part for name in names for part in ("-o", name)))
    lines = [line.split() for line in shown.splitlines()]
    assert lines[0][:3] == ["backbone", "width", "rank_me"]
    assert [line[0] for line in lines[1:4]] == ["pixels", "constant", NET]
    assert lines[2][2] == "-"  # of the constant, nothing is defined
    assert shown.count("Written: ") == 4 and all(name.stat().st_size > 100 for name in names)
    table = pd.read_csv(names[0])
    [pixels] = [store for store in list_stores() if store.model == "" or store.width == table["width"][0]]
    assert table["width"][0] == pixels.width and table["images"].eq(table["images"][0]).all()
    alike = pd.read_csv(tmp_path / "seen.similarity.csv").pivot(index="first", columns="second", values="cka_biased")
    assert alike.loc["pixels", "pixels"] == pytest.approx(1) and np.isnan(alike.loc["pixels", "constant"])
    assert alike.loc[NET, "pixels"] == alike.loc["pixels", NET]
    computed = sum(embedded)
    run("-b", f"pixels,constant,{NET}")
    assert sum(embedded) == computed  # all of it came from the store


def test_stored_features(run: Run, tmp_path: Path) -> None:
    """The numbers are those of the rows that the split has in the store."""
    run("-b", "pixels", "-o", tmp_path / "a.csv", "--split", "train")
    [store] = list_stores()
    whole = np.load(store.path / "features.npy", mmap_mode="r")
    table = pd.read_csv(tmp_path / "a.csv")
    assert 1 < table["rank_me"][0] < rank_me(whole) and table["images"][0] < len(whole)
    run("-b", "pixels", "-o", tmp_path / "b.csv", "--split", "test")
    assert table["images"][0] + pd.read_csv(tmp_path / "b.csv")["images"][0] <= len(whole)


def test_blocks_and_views(run: Run, tmp_path: Path) -> None:
    shown = run("-b", NET, "--blocks", "--views", 2, "-o", tmp_path / "a.csv", "-o", tmp_path / "a.png")
    table = pd.read_csv(tmp_path / "a.csv")
    blocks = table[table["block"].notna()]
    assert list(blocks["block"]) == list(range(len(blocks))) and blocks["depth"].iloc[-1] == 1
    assert len(blocks) > 3 and table["block"].isna().sum() == 1 and blocks["width"].nunique() > 1
    assert table["lidar"].notna().sum() == 1 and "view_alignment" in shown and "feature" in shown


def test_agreement(run: Run, tmp_path: Path, photos: Path, make_record: Callable[..., Record]) -> None:
    """Over the records of the same backbones."""
    made = Predictions.from_probabilities(["i"], [0], [[0.5, 0.5]], "ab")
    names = ["pixels", NET, "efficientnet_lite0.random"]
    for score, card in enumerate(resolve_backbones(names, load_backbone_cards())):
        record = make_record(card.name, score / 10, task=resolve_tasks([f"folder:{photos}"], {})[0].name)
        request = record.request.model_copy(update={"backbone_identity": open_backbone(card).identity()})
        record.model_copy(update={"request": request, "run_id": request.run_id()}).write(tmp_path, made)
    given = ["-b", ",".join(names), "--results", tmp_path]
    assert "measure" in run(*given, "-o", tmp_path / "a.csv", "-o", tmp_path / "a.png")
    agreed = pd.read_csv(tmp_path / "a.agreement.csv").set_index("measure")
    assert set(agreed["protocol"]) == {"linear"} and agreed["n"].eq(3).all()
    rank = pd.read_csv(tmp_path / "a.csv")["rank_me"]
    assert agreed.loc["rank_me", "spearman"] == pytest.approx(rank.corr(pd.Series([0.0, 1.0, 2.0]), method="spearman"))
    assert "0 of these backbones have scores" in run("-b", "constant", "--results", tmp_path)


def test_failing_backbone(run: Run, tmp_path: Path) -> None:
    """One backbone that cannot be measured is named, after what the others gave."""
    with pytest.raises(UserError, match=r"pixels.* blocks"):
        run("-b", f"pixels,{NET}", "--blocks", "-o", tmp_path / "a.csv")
    assert set(pd.read_csv(tmp_path / "a.csv")["backbone"]) == {NET}


def test_mistakes(run: Run, tmp_path: Path) -> None:
    cases = {
        ("--split", "tain"): "Did you mean: train",
        ("--views", "1"): "nothing to be compared with",
        ("-o", tmp_path / "a.pdf"): "Cannot tell the format",
    }
    for arguments, complaint in cases.items():
        with pytest.raises(UserError, match=complaint):
            run("-b", "pixels", *arguments)
    with pytest.raises(UserError, match="names nothing"):
        run("-b", ",")
