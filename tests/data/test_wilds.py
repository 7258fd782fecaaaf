"""Folders that the wilds package unpacks give WILDS' own splits, classes and groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from bob.data.sources import load_dataset
from bob.data.wilds import load_wilds
from bob.errors import UserError
from bob.task_cards import DataSpec

SPLITS = ("train", "val", "test", "id_val", "id_test")


@pytest.fixture
def iwildcam(tmp_path, write_images) -> Path:
    """Twenty images, four in each split; class and location follow from the number."""
    folder = tmp_path / "iwildcam_v2.0"
    rows, names = ["split,location_remapped,location,sequence_remapped,y,category_id,datetime,filename"], []
    for number in range(20):
        names.append(f"8b31d3be-21bc-11ea-a13a-{number:012d}.jpg")
        split, place = SPLITS[number // 4], 11 - number // 4
        rows.append(
            f"{split},{place},{300 + place},{number},{number % 2},{number % 2 + 5},2013-06-05 05:44:19.000,{names[-1]}"
        )
    write_images(folder / "train", *names)
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    (folder / "categories.csv").write_text("y,category_id,name\n0,5,empty\n1,6,tayassu pecari\n99999,7,ocelot\n")
    return tmp_path


def test_iwildcam(iwildcam) -> None:
    classes, pools = load_wilds("iwildcam", iwildcam)
    assert classes == ("empty", "tayassu pecari")
    assert {name: len(pool) for name, pool in pools.items()} == dict.fromkeys(SPLITS, 4)
    assert pools["val"].labels.tolist() == [0, 1, 0, 1]
    assert pools["val"].names[0] == "train/8b31d3be-21bc-11ea-a13a-000000000004.jpg"
    assert pools["val"].group_names == tuple(f"location {n}" for n in (7, 8, 9, 10, 11))
    assert pools["train"].groups.tolist() == [4] * 4 and pools["id_test"].groups.tolist() == [0] * 4
    assert pools["test"].read(0).shape == (3, 6, 8)


def test_the_out_of_distribution_splits_are_the_official_ones(iwildcam) -> None:
    spec = DataSpec(source="wilds:iwildcam", expect={"train": 4, "val": 4, "test": 4}, classes=2)
    dataset = load_dataset(spec, iwildcam)
    assert dataset.groups[dataset.splits["test"].groups[0]] == "location 9"
    own = DataSpec(source="wilds:iwildcam", splits={"train": "train", "val": "id_val", "test": "id_test"})
    assert load_dataset(own, iwildcam).splits["test"].names[0].endswith("16.jpg")


@pytest.fixture
def waterbirds(tmp_path, write_images) -> Path:
    """Twelve images: each bird on each ground in each split."""
    rows, names = ["img_id,img_filename,y,split,place,place_filename"], []
    for number in range(12):
        names.append(f"{number % 2:03d}.Bird/Bird_{number:04d}.jpg")
        rows.append(f"{number},{names[-1]},{number % 2},{number // 4},{number // 2 % 2},/o/ocean/{number}.jpg")
    write_images(tmp_path / "waterbirds_v1.0", *names)
    (tmp_path / "waterbirds_v1.0" / "metadata.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_waterbirds(waterbirds) -> None:
    classes, pools = load_wilds("waterbirds", waterbirds)
    assert classes == ("landbird", "waterbird")
    assert {name: len(pool) for name, pool in pools.items()} == {"train": 4, "val": 4, "test": 4}
    test = pools["test"]
    assert [test.group_names[group] for group in test.groups] == [
        "landbird on land",
        "waterbird on land",
        "landbird on water",
        "waterbird on water",
    ]
    assert test.labels.tolist() == [0, 1, 0, 1] and test.names[0] == "000.Bird/Bird_0008.jpg"


def test_waterbirds_with_a_third_ground(waterbirds) -> None:
    path = waterbirds / "waterbirds_v1.0" / "metadata.csv"
    path.write_text(path.read_text().replace(",1,0,0,", ",1,0,2,"))
    assert "the column 'place' has values other than 0 to 1" in refused("waterbirds", waterbirds)


def test_camelyon17(tmp_path, write_images) -> None:
    folder = tmp_path / "camelyon17_v1.0"
    rows, names = [",patient,node,x_coord,y_coord,tumor,slide,center,split"], []
    for number, (center, split) in enumerate([(0, 0), (3, 0), (4, 1), (1, 0), (1, 1), (2, 0), (2, 1)]):
        rows.append(f"{number},{number:03d},4,{3000 + number},17,{number % 2},{number},{center},{split}")
        slide = f"patient_{number:03d}_node_4"
        names.append(f"patches/{slide}/patch_{slide}_x_{3000 + number}_y_17.png")
    write_images(folder, *names)
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    classes, pools = load_wilds("camelyon17", tmp_path)
    assert classes == ("normal", "tumor")
    found = {name: list(pool.names) for name, pool in pools.items()}
    assert found == {"train": names[:2], "val": names[3:5], "test": names[5:], "id_val": names[2:3]}
    assert pools["test"].labels.tolist() == [1, 0]
    assert pools["test"].groups.tolist() == [2, 2] and pools["test"].group_names[2] == "hospital 2"
    assert pools["val"].read(1).shape == (3, 6, 8)


FMOW = [  # original split, timestamp, country, WILDS' split
    ("train", "2012-12-31T23:59:59Z", "FRA", "train"),
    ("train", "2013-01-01T00:00:00Z", "FRA", None),
    ("seq", "2012-05-05T10:00:00Z", "FRA", None),
    ("val", "2012-05-05T10:00:00.123Z", "KEN", "id_val"),
    ("val", "2013-01-01T00:00:00Z", "KEN", "val"),
    ("val", "2015-12-31T23:59:59Z", "XKX", "val"),
    ("val", "2016-01-01T00:00:00Z", "KEN", None),
    ("test", "2003-01-01T00:00:00Z", "ATA", "id_test"),
    ("test", "2014-01-01T00:00:00Z", "FRA", None),
    ("test", "2016-01-01T00:00:00Z", "KEN", "test"),
    ("test", "2017-08-01T00:00:00Z", "FRA", "test"),
]


def test_fmow(tmp_path, write_images) -> None:
    folder = tmp_path / "fmow_v1.1"
    write_images(folder / "images", *(f"rgb_img_{n}.png" for n in range(len(FMOW))))
    rows = [
        f"{split},{'zoo' if n % 2 else 'airport'},{country},{time}" for n, (split, time, country, _) in enumerate(FMOW)
    ]
    (folder / "rgb_metadata.csv").write_text("\n".join(["split,category,country_code,timestamp", *rows]) + "\n")
    regions = ["name,alpha-2,alpha-3,region", "France,FR,FRA,Europe", "Kenya,KE,KEN,Africa", "Antarctica,AQ,ATA,"]
    (folder / "country_code_mapping.csv").write_text("\n".join(regions) + "\n")
    classes, pools = load_wilds("fmow", tmp_path)
    assert classes == ("airport", "zoo")
    found = {name: [int(path[15:-4]) for path in pool.names] for name, pool in pools.items()}
    assert found == {s: [n for n, row in enumerate(FMOW) if row[3] == s] for s in SPLITS}
    assert pools["test"].group_names == ("Africa", "Europe", "Other")
    assert {name: pool.groups.tolist() for name, pool in pools.items()} == {
        **{"train": [1], "val": [0, 2], "test": [0, 1], "id_val": [0], "id_test": [2]}
    }
    assert pools["val"].labels.tolist() == [0, 1]


def refused(name: str, root: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_wilds(name, root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_errors(tmp_path, iwildcam) -> None:
    assert "Did you mean: iwildcam" in refused("iwildcams", tmp_path)
    assert "It reads iwildcam, camelyon17, fmow, waterbirds" in refused("amazon", tmp_path)
    message = refused("fmow", tmp_path)
    assert f"no folder {tmp_path / 'fmow_v1.1'}. It should hold rgb_metadata.csv and images/*.png" in message
    assert f'wilds.get_dataset("fmow", root_dir="{tmp_path}", download=True)' in message
    metadata = iwildcam / "iwildcam_v2.0/metadata.csv"
    content = metadata.read_text()
    metadata.write_text(content.replace("location_remapped", "place"))
    assert "metadata.csv has no column 'location_remapped'" in refused("iwildcam", iwildcam)
    metadata.write_text(content.replace(",0,5,", ",?,5,"))
    assert "the column 'y' has" in refused("iwildcam", iwildcam)
    metadata.write_text(content.replace(",0,5,", ",7,5,"))
    assert "categories.csv has no name for class 2" in refused("iwildcam", iwildcam)
