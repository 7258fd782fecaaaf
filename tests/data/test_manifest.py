"""A manifest may give several labels and a group to each image."""

from __future__ import annotations

import pytest

from bob.data.manifest import load_manifest
from bob.errors import UserError


@pytest.fixture
def manifest(tmp_path, write_images):
    """Write a manifest of the given lines beside images 0.png to 5.png."""

    def write(*lines: str):
        write_images(tmp_path, *(f"{n}.png" for n in range(6)))
        (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
        return tmp_path / "m.csv"

    return write


def test_several_labels(manifest) -> None:
    path = manifest("path,label,split", "0.png,dog | cat,train", "1.png,,train", "2.png,bird,test")
    classes, pools = load_manifest(path)
    assert classes == ("bird", "cat", "dog")
    assert pools["train"].labels.tolist() == [[0, 1, 1], [0, 0, 0]]
    assert pools["test"].labels.tolist() == [[1, 0, 0]]
    assert pools["train"].groups is None


def test_one_label_each_may_be_meant_as_several(manifest) -> None:
    path = manifest("path,label", "0.png,a", "1.png,b", "2.png,")
    assert load_manifest(path, multilabel=True)[1]["all"].labels.tolist() == [[1, 0], [0, 1], [0, 0]]
    with pytest.raises(UserError, match=r"line 4: 2\.png has no label"):
        load_manifest(path)


def test_groups(manifest) -> None:
    path = manifest("path,label,split,group", "0.png,a,train,sea", "1.png,b,train,land", "2.png,a,test,sea")
    _, pools = load_manifest(path)
    assert pools["train"].groups.tolist() == [1, 0] and pools["test"].groups.tolist() == [1]
    assert pools["train"].group_names == pools["test"].group_names == ("land", "sea")
    assert pools["train"].labels.tolist() == [0, 1]


def test_a_missing_group(manifest) -> None:
    with pytest.raises(UserError, match=r"line 3: 1\.png has no group"):
        load_manifest(manifest("path,label,group", "0.png,a,sea", "1.png,b,"))


def test_no_label_at_all(manifest) -> None:
    with pytest.raises(UserError, match="has no label at all"):
        load_manifest(manifest("path,label", "0.png,", "1.png,"), multilabel=True)


def test_no_file(tmp_path) -> None:
    with pytest.raises(UserError, match=r"^There is no file .*none\.csv\. Correct the path\.$"):
        load_manifest(tmp_path / "none.csv")
