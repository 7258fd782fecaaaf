"""Queries and databases of every rule, on hand-made files in the published layouts; wrong ones are one line."""

from __future__ import annotations

import pickle
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bob.data.plain_pickle import load_plain
from bob.data.retrieval import RetrievalDataset, load_retrieval
from bob.data.sources import load_task
from bob.data.two_level import by_class, two_level
from bob.errors import UserError
from bob.task_cards import TaskCard

pytestmark = pytest.mark.usefixtures("bob_home")


def _card(source: str, rule: str, data: dict[str, Any] | None = None, **retrieval: Any) -> TaskCard:
    tables = {"data": {"source": source, **(data or {})}, "retrieval": {"rule": rule, **retrieval}}
    return TaskCard.model_validate({"name": "toy", "adapter": "retrieval", **tables})


def _picture(path: Path, colour: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8, 3), colour, dtype=np.uint8)).save(path)


def _folder(root: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        for number in range(count):
            _picture(root / name / f"{number:02d}.png", number)
    return root


def _found(dataset: RetrievalDataset) -> dict[str, list[str]]:
    """By query, the names of what counts, with the kind."""
    names, answers = dataset.splits["database"].names, dataset.answers()
    found = {}
    for number, query in enumerate(dataset.splits["query"].names):
        items, kinds = answers.of(number)
        found[query] = [f"{answers.kinds[kind]} {names[item]}" for item, kind in zip(items, kinds, strict=True)]
    return found


class TestByClass:
    def test_a_fifth_of_each_class_asks(self, tmp_path: Path) -> None:
        _folder(tmp_path / "f", {"a": 5, "b": 12, "c": 2})
        dataset = load_retrieval(_card("folder:f", "two_level"), tmp_path)
        assert dataset.splits["query"].names == ["a/00.png", "b/00.png", "b/01.png", "c/00.png"]
        assert len(dataset.splits["database"]) == 4 + 10 + 1
        assert _found(dataset)["a/00.png"] == [f"positive a/0{i}.png" for i in (1, 2, 3, 4)]
        assert dataset.splits["train"] is dataset.splits["database"]

    def test_cap_and_fraction(self, tmp_path: Path) -> None:
        _folder(tmp_path / "f", {"a": 9, "b": 3})
        dataset = load_retrieval(_card("folder:f", "two_level", cap=6, query_fraction=0.5), tmp_path)
        assert dataset.splits["query"].names == ["a/00.png", "a/01.png", "a/02.png", "b/00.png"]
        assert dataset.splits["database"].names == ["a/03.png", "a/04.png", "a/05.png", "b/01.png", "b/02.png"]

    def test_order_is_that_of_file_names_not_of_positions(self) -> None:
        names = ["test/a/9.png", "train/a/10.png", "train/a/1.png", "train/b/x.png"]
        members = by_class(np.array([0, 0, 0, 1]), names)
        assert [own.tolist() for own in members] == [[2, 1, 0], [3]]
        assert [part.tolist() for part in two_level(members)] == [[2], [1, 0, 3]]

    def test_a_class_of_one_image_does_not_ask(self, tmp_path: Path) -> None:
        _folder(tmp_path / "f", {"a": 3, "b": 1})
        dataset = load_retrieval(_card("folder:f", "two_level"), tmp_path)
        assert dataset.splits["query"].names == ["a/00.png"]
        assert dataset.splits["database"].names == ["a/01.png", "a/02.png", "b/00.png"]
        assert dataset.facts["classes_of_one_image"] == "1 (b)"

    def test_leave_one_out_ignores_the_query_itself(self, tmp_path: Path) -> None:
        _folder(tmp_path / "f", {"a": 2, "b": 1, "c": 3})
        dataset = load_retrieval(_card("folder:f", "leave_one_out"), tmp_path)
        assert len(dataset.splits["query"]) == 5 and len(dataset.splits["database"]) == 6
        assert dataset.facts["queries_with_nothing_to_find"] == "1 (b/00.png)"
        assert _found(dataset)["c/01.png"] == ["positive c/00.png", "junk c/01.png", "positive c/02.png"]

    def test_own_splits(self, tmp_path: Path) -> None:
        _folder(tmp_path / "f" / "test", {"a": 1, "b": 2})
        _folder(tmp_path / "f" / "train", {"a": 2, "b": 1})
        dataset = load_retrieval(_card("folder:f", "splits"), tmp_path)
        assert _found(dataset)["test/a/00.png"] == ["positive train/a/00.png", "positive train/a/01.png"]

    def test_folders_query_and_database(self, tmp_path: Path) -> None:
        _folder(tmp_path / "f" / "query", {"b": 2, "z": 1})
        _folder(tmp_path / "f" / "database", {"a": 2, "b": 1})
        dataset = load_retrieval(_card("folder:f", "splits"), tmp_path)
        assert dataset.classes == ("a", "b", "z")
        assert _found(dataset) == {"b/00.png": ["positive b/00.png"], "b/01.png": ["positive b/00.png"]}
        assert dataset.facts["queries_with_nothing_to_find"] == "1 (z/00.png)"

    def test_shapes_share_their_sets_with_other_tasks(self) -> None:
        from bob.catalogue import load_task_cards

        dataset = load_task(load_task_cards()["shapes_retrieval"])
        assert [len(dataset.splits[name]) for name in ("query", "database")] == [600, 1000]
        assert sorted(len(images) for images in dataset.image_sets()) == [200, 600, 800]


REVISITED = {
    "imlist": ["d0", "d1", "d2", "d3"],
    "qimlist": ["q0", "q1"],
    "gnd": [
        {"bbx": [1.4, 0.0, 5.6, 4.0], "easy": np.array([2]), "hard": [0], "junk": np.array([], dtype=float)},
        {"bbx": [0, 0, 8, 6], "easy": [], "hard": [1, 3], "junk": [0]},
    ],
}


def _revisited(root: Path, **change: Any) -> Path:
    content = {**REVISITED, **change}
    for name in [*REVISITED["imlist"], *REVISITED["qimlist"]]:
        _picture(root / "r" / "jpg" / f"{name}.jpg")
    (root / "r" / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(content, protocol=2))
    return root


class TestRevisited:
    def test_published_layout(self, tmp_path: Path) -> None:
        dataset = load_retrieval(_card("folder:r", "revisited"), _revisited(tmp_path))
        answers = dataset.answers()
        assert dataset.splits["query"].names == ["jpg/q0.jpg", "jpg/q1.jpg"]
        assert _found(dataset)["jpg/q0.jpg"] == ["easy jpg/d2.jpg", "hard jpg/d0.jpg"]
        assert answers.primary == "medium" and answers.levels["easy"] == (("easy",), ("junk", "hard"))

    def test_crop_is_read_and_changes_the_fingerprint(self, tmp_path: Path) -> None:
        _revisited(tmp_path)
        whole, cut = (load_retrieval(_card("folder:r", "revisited", crop_queries=c), tmp_path) for c in (False, True))
        images = [dataset.splits["query"].images for dataset in (whole, cut)]
        assert [tuple(each.read(0).shape) for each in images] == [(3, 6, 8), (3, 4, 5)]
        assert images[0].fingerprint() != images[1].fingerprint()
        assert whole.splits["database"].images.fingerprint() == cut.splits["database"].images.fingerprint()

    def test_box_outside_the_image_is_named(self, tmp_path: Path) -> None:
        truth = [{**REVISITED["gnd"][0], "bbx": [90, 90, 99, 99]}, REVISITED["gnd"][1]]
        card = _card("folder:r", "revisited", crop_queries=True)
        dataset = load_retrieval(card, _revisited(tmp_path, gnd=truth))
        with pytest.raises(UserError, match=r"query jpg/q0\.jpg lies outside its image"):
            dataset.splits["query"].images.read(0)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"gnd": REVISITED["gnd"][:1]}, "1 entries for 2 queries"),
            (
                {"gnd": [{**REVISITED["gnd"][0], "hard": [9]}, REVISITED["gnd"][1]]},
                "query 0 has 'hard' images that are",
            ),
            ({"gnd": [{**REVISITED["gnd"][0], "hard": [2]}, REVISITED["gnd"][1]]}, "query 0 has an image twice"),
            ({"gnd": [{"easy": []}, REVISITED["gnd"][1]]}, "query 0 lacks one of easy, hard, junk"),
            ({"gnd": [{**each, "bbx": [1, 2]} for each in REVISITED["gnd"]]}, "no box 'bbx' of four numbers"),
            ({"imlist": "d0"}, "no dictionary of the lists"),
            ({"imlist": [1, 2]}, "names of images that are no text"),
            ({"imlist": ["d0", "d1", "d2", "gone"]}, "lacks 1 of 6 images, the first being jpg/gone.jpg"),
        ],
    )
    def test_wrong_ground_truth_is_one_line(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        card = _card("folder:r", "revisited", crop_queries=True)
        with pytest.raises(UserError, match=message) as caught:
            load_retrieval(card, _revisited(tmp_path, **change))
        assert "\n" not in str(caught.value)

    def test_no_ground_truth(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"has no gnd_\*.pkl"):
            load_retrieval(_card("folder:r", "revisited"), tmp_path)


class Evil:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        import os

        return os.system, ("touch ran",)


class TestPlainPickle:
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_arrays_of_every_protocol(self, tmp_path: Path, protocol: int) -> None:
        content = {"a": [np.arange(3), np.float64(1.5)], "b": ("x", {1}), "c": np.array(["a", None], dtype=object)}
        if protocol < 4:
            content["b"] = ("x", 1)  # a set would ask for builtins.set
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
        read = load_plain(tmp_path / "a.pkl")
        assert read["a"][0].tolist() == [0, 1, 2] and read["a"][1] == 1.5 and read["b"] == content["b"]

    @pytest.mark.parametrize(
        "content", [pickle.dumps(Evil()), pickle.dumps([np.zeros(2), Evil()]), b"", b"\x80\x04nonsense"]
    )
    def test_anything_else_is_refused_and_not_run(self, tmp_path: Path, content: bytes, monkeypatch: Any) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "a.pkl").write_bytes(content)
        with pytest.raises(UserError, match="is no pickle of plain containers and arrays"):
            load_plain(tmp_path / "a.pkl")
        assert not (tmp_path / "ran").exists()


def _copydays(root: Path) -> Path:
    for path in ("original/200000.jpg", "original/200100.jpg", "strong/200001.jpg", "strong/200101.jpg"):
        _picture(root / "c" / path)
    for path in ("strong/200102.jpg", "strong/999901.jpg", "crops/10/200000.jpg", "jpegqual/3/200100.jpg"):
        _picture(root / "c" / path)
    _picture(root / "c" / "distractors" / "x.jpg")
    return root


class TestCopydays:
    def test_published_layout(self, tmp_path: Path) -> None:
        dataset = load_retrieval(_card("folder:c", "copydays"), _copydays(tmp_path))
        found = _found(dataset)
        assert found["strong/200102.jpg"] == ["strong original/200100.jpg"]
        assert found["crops/10/200000.jpg"] == ["crops original/200000.jpg"]
        assert "strong/999901.jpg" not in found
        assert dataset.facts["queries_with_nothing_to_find"] == "1 (strong/999901.jpg)"
        assert dataset.splits["database"].names[-1] == "distractors/x.jpg"
        assert list(dataset.answers().levels) == ["strong", "crops", "jpegqual"]

    def test_without_originals(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"original has no images"):
            load_retrieval(_card("folder:c", "copydays"), tmp_path)


def _gldv2(root: Path, solution: str = "") -> Path:
    for part, name in (("index", "abc1"), ("index", "abd2"), ("index", "xyz3"), ("test", "qqq1"), ("test", "qqq2")):
        _picture(root / "g" / part / name[0] / name[1] / name[2] / f"{name}.jpg")
    (root / "g" / "index.csv").write_text("id\nabc1\nabd2\nxyz3\n")
    lines = solution or "qqq1,abd2 xyz3,Private\nqqq2,abc1,Public\nqqq9,None,Ignored\n"
    (root / "g" / "retrieval_solution_v2.1.csv").write_text(f"id,images,Usage\n{lines}")
    return root


class TestGldv2:
    def test_published_layout(self, tmp_path: Path) -> None:
        dataset = load_retrieval(_card("folder:g", "gldv2"), _gldv2(tmp_path))
        assert _found(dataset) == {
            "test/q/q/q/qqq1.jpg": ["positive index/a/b/d/abd2.jpg", "positive index/x/y/z/xyz3.jpg"],
            "test/q/q/q/qqq2.jpg": ["positive index/a/b/c/abc1.jpg"],
        }

    @pytest.mark.parametrize(
        ("solution", "message"),
        [
            ("qqq1,abd2 gone,Public\n", "'gone', to be found by 'qqq1', is not in index.csv"),
            ("qqq7,abd2,Public\n", "lacks 1 of 4 images, the first being test/q/q/q/qqq7.jpg"),
            ("q,abd2,Public\n", "has the id 'q', too short"),
            ("qqq1,None,Ignored\n", "has no query"),
        ],
    )
    def test_wrong_solution_is_one_line(self, tmp_path: Path, solution: str, message: str) -> None:
        with pytest.raises(UserError, match=message) as caught:
            load_retrieval(_card("folder:g", "gldv2"), _gldv2(tmp_path, solution))
        assert "\n" not in str(caught.value)

    def test_lacking_file_and_column(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"Cannot read .*index.csv: No such file"):
            load_retrieval(_card("folder:g", "gldv2"), tmp_path)
        _gldv2(tmp_path)
        (tmp_path / "g" / "index.csv").write_text("name\nabc1\n")
        with pytest.raises(UserError, match="lacks the column 'id'"):
            load_retrieval(_card("folder:g", "gldv2"), tmp_path)


class TestMistakes:
    @pytest.mark.parametrize(
        ("source", "rule", "data", "retrieval", "message"),
        [
            ("folder:f", "two_level", {"val_fraction": 0.5}, {}, "does not read 'val_fraction'"),
            ("folder:f", "splits", {}, {"cap": 3}, "does not read 'cap'"),
            ("folder:f", "two_level", {}, {"crop_queries": True}, "does not read 'crop_queries'"),
            ("folder:f", "splits", {}, {}, "folder:f has no split 'test', but all"),
            ("folder:f", "two_level", {"splits": {"train": "gone"}}, {}, "folder:f has no split 'gone', but all"),
            ("folder:f", "two_level", {"classes": 7}, {}, "2 classes instead of 7"),
            (
                "folder:f",
                "two_level",
                {"expect": {"test": 9, "train": 8}},
                {},
                "2 queries instead of 9 and 6 images in",
            ),
            ("folder:lone", "two_level", {}, {}, "folder:lone has no query"),
            ("folder:lone", "leave_one_out", {}, {}, "None of the 2 queries of folder:lone has anything to find"),
            ("folder:apart", "splits", {}, {}, r"None of the 1 queries .* in the database: 1 \(a/00.png\)"),
            ("shapes", "revisited", {}, {}, "The rule 'revisited' reads a folder, not shapes"),
            ("shapes_multilabel", "two_level", {}, {}, "shapes_multilabel has no single class an image"),
            ("nonsense", "two_level", {}, {}, "Unknown data source 'nonsense'"),
            ("folder:gone", "two_level", {"layout": "Put it so."}, {}, "Expected there: Put it so."),
        ],
    )
    def test_is_one_line(
        self, tmp_path: Path, source: str, rule: str, data: dict[str, Any], retrieval: dict[str, Any], message: str
    ) -> None:
        _folder(tmp_path / "f", {"a": 4, "b": 4})
        _folder(tmp_path / "lone", {"a": 1, "b": 1})
        _folder(tmp_path / "apart" / "query", {"a": 1})
        _folder(tmp_path / "apart" / "database", {"b": 1})
        with pytest.raises(UserError, match=message) as caught:
            load_retrieval(_card(source, rule, data, **retrieval), tmp_path)
        assert "\n" not in str(caught.value)


def test_answers_are_sealed_and_part_of_the_identity(tmp_path: Path) -> None:
    _folder(tmp_path / "f", {"a": 5, "b": 5})
    datasets = [load_retrieval(_card("folder:f", "two_level", query_fraction=q), tmp_path) for q in (0.2, 0.4)]
    assert datasets[0].identity() != datasets[1].identity()
    sealed = datasets[0].sealed("query")
    with pytest.raises(RuntimeError, match="sealed"):
        sealed.answers()  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="sealed"):
        _ = sealed.splits["query"].labels
    assert sealed.splits["database"].labels.tolist() == datasets[0].splits["database"].labels.tolist()


def test_sop_is_read_as_its_card_says(tmp_path: Path) -> None:
    from bob.catalogue import load_task_cards

    card = load_task_cards()["sop"]
    folder = tmp_path / "Stanford_Online_Products"
    lines = ["image_id class_id super_class_id path"]
    for number, path in enumerate(
        ["bicycle_final/1_0.JPG", "bicycle_final/1_1.JPG", "mug_final/2_0.JPG", "mug_final/2_1.JPG"]
    ):
        _picture(folder / path, number)
        lines.append(f"{number + 1} {11319 + number // 2} 1 {path}")
    (folder / "Ebay_test.txt").write_text("\n".join(lines) + "\n")
    command = shlex.split(card.data.layout[card.data.layout.index("python -c") :])
    subprocess.run([sys.executable, *command[1:]], cwd=folder, check=True)
    small = card.data.model_copy(update={"expect": {"train": 4, "test": 4}, "classes": 2})
    dataset = load_retrieval(card.model_copy(update={"data": small}), tmp_path)
    assert _found(dataset)["mug_final/2_1.JPG"] == ["positive mug_final/2_0.JPG", "junk mug_final/2_1.JPG"]
