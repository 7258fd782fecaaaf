"""The published tables of this repository: sourced, named as the cards are, and ranked as when they were found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bob.catalogue import load_backbone_cards
from bob.errors import UserError
from bob.standings.grid import Grid
from bob.standings.long_table import keep, read_long_table
from bob.standings.published import find_table, published
from bob.standings.scaling import scaling
from bob.standings.standings import standings

FOLDER = Path(__file__).parents[2] / "results" / "published"
TABLES = sorted(FOLDER.glob("*.csv"))


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.name)
def test_sourced_and_named_as_the_cards_are(path: Path) -> None:
    cells, notes = read_long_table(path)
    cards = load_backbone_cards()
    assert notes == [] and (cells.table["source"].str.contains("@")).all() and cells.table["score"].between(0, 1).all()
    named = cells.table[cells.table["card"] != ""].drop_duplicates("backbone")
    assert named["card"].is_unique
    for row in named.to_dict("records"):
        card = cards[row["card"]]
        assert (row["paradigm"], row["architecture"]) == (card.paradigm, card.architecture)
        assert card.parameters and 1 <= row["parameters"] / card.parameters < 1.5  # published with the classifier


def test_retrieval_ranks_as_when_it_was_found() -> None:
    cells, _ = read_long_table(FOLDER / "bob_retrieval.csv")
    assert len(cells.table) == 264 and cells.table["backbone"].nunique() == 33
    kept = keep(cells, ~cells.table["backbone"].str.startswith("sscd-").to_numpy())
    table = standings(Grid.of(kept), ddof=1).set_index("backbone")["mean_z"].round(3)
    assert len(table) == 31
    assert list(table.items())[:3] == [
        ("timm-swinv2_base_window12to24_192to384_22kft1k", 1.007),
        ("timm-convnext_xlarge_in22ft1k", 0.972),
        ("timm-convnext_base_in22ft1k", 0.953),
    ]
    assert list(table.items())[-1] == ("mae-vit_base_patch16_224", -3.242)
    assert table["clip-resnet50_64"] == 0.785 and table["timm-vit_small_patch16_224_dino"] == 0.287
    # The population's deviation scales all of them alike.
    other = standings(Grid.of(kept), ddof=0).set_index("backbone")["mean_z"]
    np.testing.assert_allclose(other, table * np.sqrt(31 / 30), atol=6e-4)


def test_scores_of_timm_are_counts_of_their_test_sets() -> None:
    cells, _ = read_long_table(FOLDER / "timm_imagenet.csv")
    counts = cells.table["score"] * cells.table["n"]
    # Published with five digits: in sets of fewer than 100,000 images that is a whole number of them.
    off = (counts - counts.round()).abs() > 0.000006 * cells.table["n"]
    assert off.sum() <= 3
    golden = cells.table.set_index(["backbone", "task"])["score"]
    assert golden["convnext_base.fb_in22k_ft_in1k", "imagenet-val"] == 0.85814
    assert golden["convnext_base.fb_in22k_ft_in1k@288", "imagenet-a"] == 0.61253
    table = standings(Grid.of(cells))
    lacking = table[table["rank"].isna()]
    assert list(lacking["backbone"]) == ["resnet50.tv_in1k"] and table["rank_low"].notna().sum() == 44


def test_size_and_standing() -> None:
    cells, _ = read_long_table(FOLDER / "timm_imagenet.csv")
    facts = cells.table.drop_duplicates("backbone").set_index("backbone")
    table = standings(Grid.of(cells)).join(facts[["architecture", "parameters", "pretraining_images"]], on="backbone")
    rows: pd.DataFrame = scaling(table, resamples=100).set_index(["family", "against"])
    assert (rows.loc[["all", "CNN", "ViT"], "slope_low"] > 0).all()


def test_found_by_name_wherever_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert {name: path.resolve() for name, path in published().items()} == {path.stem: path for path in TABLES}
    assert find_table(Path("bob_retrieval")).resolve() == FOLDER / "bob_retrieval.csv"
    (tmp_path / "bob_retrieval").write_text("mine")
    assert find_table(Path("bob_retrieval")) == Path("bob_retrieval")


@pytest.mark.parametrize(
    ("name", "hint"), [("bob_retreival", "Did you mean: bob_retrieval"), ("x.csv", "Give a file, or a pub")]
)
def test_no_such_table(name: str, hint: str) -> None:
    with pytest.raises(UserError, match=rf"There is no table {name}\. {hint}"):
        find_table(Path(name))


def test_quickstart_is_the_table_of_the_readme() -> None:
    cells, notes = read_long_table(FOLDER.parent / "quickstart.csv")
    table = cells.table
    shown = table["score"].map("{:.3f}".format) + table.apply(
        lambda row: f" [{row['low']:.3f}, {row['high']:.3f}]", axis=1
    )
    found = {(row.backbone, row.setting): cell for row, cell in zip(table.itertuples(), shown, strict=True)}
    lines = (FOLDER.parents[1] / "README.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    head = next(row for row in rows if row[:4] == ["rank", "95%", "group", "backbone"])
    names = {row[3]: row for row in rows if len(row) == len(head) and row[3] in set(table["backbone"])}
    for (backbone, setting), cell in found.items():
        assert names[backbone][head.index(setting)] == cell
    assert notes == [] and len(found) == 28
    ranks = standings(Grid.of(cells)).set_index("backbone")
    assert {name: f"{z:+.2f}" for name, z in ranks["mean_z"].items()} == {name: row[8] for name, row in names.items()}
