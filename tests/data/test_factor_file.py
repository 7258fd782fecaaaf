"""A CSV of factors: read by the images' names, each mistake in it named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bob.data.factor_file import read_factors
from bob.data.factors import FlaggedImages
from bob.data.sources import load_task
from bob.errors import UserError
from bob.task_cards import TaskCard


@pytest.fixture
def card(tmp_path: Path, write_images) -> TaskCard:
    """Forty photographs of two classes, all of them in the CSV, every third blurred and the dogs indoors."""
    names = [f"{kind}/{n}.png" for kind in ("cat", "dog") for n in range(20)]
    write_images(tmp_path / "pets", *names)
    lines = [f"{name},{int(n % 3 == 0)},{int(name.startswith('dog'))}" for n, name in enumerate(names)]
    (tmp_path / "seen.csv").write_text("\n".join(["path,blurred,indoors", *lines]) + "\n")
    return TaskCard.model_validate(
        {"name": "pets", "adapter": "factors", "data": {"source": "folder:pets"}, "factors": "seen.csv"}
    )


def test_flags_of_a_folder(card: TaskCard, tmp_path: Path) -> None:
    dataset = load_task(card, tmp_path)
    test = dataset.splits["test"]
    assert isinstance(test.images, FlaggedImages) and test.images.flag_names == ("blurred", "indoors")
    flags = test.images.flags[test.indices]
    assert flags[:, 1].tolist() == [name.startswith("dog") for name in test.names]
    numbers = [int(name.split("/")[1][:-4]) + 20 * name.startswith("dog") for name in test.names]
    assert flags[:, 0].tolist() == [n % 3 == 0 for n in numbers]
    assert dataset.identity()["factors"]["names"] == ["blurred", "indoors"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,x\na,1\n", "lacks 1 of 2 test images, the first of them b"),
        ("path,x\na,1\nb,2\n", "b has '2' for the factor 'x'"),
        ("path,x\na,1\nb,\n", "b has '' for the factor 'x'"),
        ("path,x\na,1\na,0\nb,1\n", "names a twice"),
        ("path\na\nb\n", "has no factor"),
        ("name,x\na,1\n", "has no column 'path'"),
        ("", "Cannot read"),
    ],
)
def test_mistakes(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "factors.csv"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_factors(path, ["a", "b"])
    assert said in str(error.value) and "\n" not in str(error.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no file"):
        read_factors(tmp_path / "none.csv", ["a"])


def test_other_images_may_be_in_it(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("path,x,y\nz,1,1\nb,0,1\na,1,0\n")
    flags, names = read_factors(tmp_path / "f.csv", ["a", "b"])
    assert names == ("x", "y") and np.array_equal(flags, [[True, False], [False, True]])
