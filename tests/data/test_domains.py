"""A folder of domains gives a split for each; domains that differ in their classes are named."""

from __future__ import annotations

import pytest

from bob.data.domains import load_domains
from bob.errors import UserError


def test_domains(tmp_path, write_images) -> None:
    write_images(tmp_path, "art/cat/1.png", "art/dog/2.png", "photo/cat/1.png", "photo/dog/2.png", "photo/dog/3.png")
    classes, pools = load_domains(tmp_path)
    assert classes == ("cat", "dog") and list(pools) == ["art", "photo"]
    assert pools["photo"].names == ["photo/cat/1.png", "photo/dog/2.png", "photo/dog/3.png"]
    assert pools["photo"].labels.tolist() == [0, 1, 1] and pools["photo"].groups.tolist() == [1, 1, 1]
    assert pools["art"].group_names == ("art", "photo") and pools["art"].read(0).shape == (3, 6, 8)


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (["art/cat/1.png", "photo/dog/1.png"], "photo has other class folders than"),
        (["art/cat/1.png"], "has 1 folders"),
        (["art/train/cat/1.png", "photo/cat/1.png"], "art has other class folders"),
    ],
)
def test_wrong_folders(paths, said, tmp_path, write_images) -> None:
    write_images(tmp_path, *paths)
    with pytest.raises(UserError, match=said):
        load_domains(tmp_path)
    with pytest.raises(UserError, match="There is no folder"):
        load_domains(tmp_path / "nowhere")
