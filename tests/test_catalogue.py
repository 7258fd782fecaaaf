"""Cards are read exactly, and what is wrong with one is one line that names the file, the key and the mend."""

import json
from pathlib import Path

import pytest

from bob.cards import BackboneCard, Weights
from bob.catalogue import load_backbone_cards, load_task_cards, match_names, read_card, resolve_tasks
from bob.errors import UserError, did_you_mean
from bob.task_cards import TaskCard

ROOT = Path(__file__).parents[1]
BACKBONE = """\
name = "mine"
[weights]
source = "timm"
model = "resnet18"
"""
TASK = """\
name = "mine"
adapter = "classification"
[data]
source = "folder:images"
"""


@pytest.fixture
def read(tmp_path):
    """A function from TOML text to the card; the file is `card.toml`."""

    def read_(text, kind=BackboneCard):
        path = tmp_path / "card.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_card(path, kind)

    return read_


def line_of(error):
    line = str(error.value)
    assert "\n" not in line and ".." not in line and line.endswith((".", "?"))
    return line


def test_every_built_in_card_is_read():
    for load, folder in ((load_backbone_cards, "registry"), (load_task_cards, "tasks")):
        files = list((ROOT / folder).rglob("*.toml"))
        cards = load()
        assert len(cards) == len(files) > 0
        assert {path.stem for path in files} == set(cards) == {card.name for card in cards.values()}
        assert all(card.description and card.licence != "unknown" for card in cards.values())


def test_built_in_backbones_lie_in_the_folder_of_their_paradigm():
    cards = load_backbone_cards()
    for path in (ROOT / "registry").rglob("*.toml"):
        assert cards[path.stem].paradigm == path.parent.name


def test_cards_go_through_json_and_back():
    for card in [*load_backbone_cards().values(), *load_task_cards().values()]:
        assert type(card).model_validate(json.loads(card.model_dump_json())) == card


def test_defaults(read):
    card = read(BACKBONE)
    assert card.paradigm == "unknown" and card.feature.width is None and card.preprocess.size is None
    assert read(TASK, TaskCard).protocols == ("linear", "knn")


def test_nothing_changes_after_reading(read):
    card = read(BACKBONE)
    with pytest.raises(ValueError, match="frozen"):
        card.weights.model = "resnet50"


def test_one_number_is_a_square(read):
    assert read(f"{BACKBONE}[preprocess]\nsize = 96").preprocess.size == (96, 96)
    assert read(f"{BACKBONE}[preprocess]\nsize = [96, 48]").preprocess.size == (96, 48)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Unknown, misspelt and missing keys, at every depth.
        ('nme = "x"\n[weights]\nsource = "timm"\nmodel = "m"', ["unknown key 'nme'", "Did you mean: name?"]),
        (f"licens = 'MIT'\n{BACKBONE}", ["unknown key 'licens'", "Did you mean: licence?"]),
        (f"zzzzzz = 1\n{BACKBONE}", ["unknown key 'zzzzzz'."]),
        (f"{BACKBONE}sha = 'x'", ["unknown key 'weights.sha'", "sha256"]),
        (f"{BACKBONE}[weigths]\nsource = 'timm'", ["unknown key 'weigths'", "Did you mean: weights?"]),
        (f"{BACKBONE}[preprocess]\nintepolation = 'bicubic'", ["'preprocess.intepolation'", "interpolation?"]),
        (f"{BACKBONE}[[references]]\ndataset = 'd'\nmetrc = 'm'", ["'references.0.metrc'", "Did you mean: metric?"]),
        ('[weights]\nsource = "timm"\nmodel = "m"', ["key 'name' is missing."]),
        ('name = "x"', ["key 'weights' is missing."]),
        ('name = "x"\n[weights]\nmodel = "m"', ["key 'weights.source' is missing."]),
        (f"{BACKBONE}[[references]]\ndataset = 'd'\nmetric = 'm'\nvalue = 1", ["'references.0.source' is missing."]),
        # What each source needs.
        ('name = "x"\n[weights]\nsource = "timm"', ["key 'weights'", "'timm' needs 'model'"]),
        ('name = "x"\n[weights]\nsource = "custom"', ["key 'weights'", "'custom' needs 'model'"]),
        ('name = "x"\n[weights]\nsource = "checkpoint"\nmodel = "m"', ["'checkpoint' needs 'file'"]),
        # Values of another type or out of range.
        (BACKBONE.replace('"mine"', "3"), ["key 'name'", "string", "got 3"]),
        (BACKBONE.replace("mine", "two words"), ["key 'name'", "'two words'"]),
        (BACKBONE.replace("mine", "a*"), ["key 'name'", "'a*'"]),
        (BACKBONE.replace("mine", "a,b"), ["key 'name'", "'a,b'"]),
        (BACKBONE.replace("mine", "-b"), ["key 'name'", "'-b'"]),
        (BACKBONE.replace("timm", "tim"), ["key 'weights.source'", "'timm'", "'checkpoint'", "got 'tim'"]),
        ('name = "x"\nweights = "timm"', ["key 'weights'", "a table", "got 'timm'"]),
        (f"facts = 'https://x'\n{BACKBONE}", ["key 'facts'", "an array", "got 'https://x'"]),
        (f"parameters = 'many'\n{BACKBONE}", ["key 'parameters'", "integer", "got 'many'"]),
        (f"{BACKBONE}sha256 = 'abc'", ["key 'weights.sha256'", "got 'abc'"]),
        (f"{BACKBONE}sha256 = '{'A' * 64}'", ["key 'weights.sha256'", "AAA"]),
        (f"{BACKBONE}[preprocess]\nsize = 'big'", ["key 'preprocess.size'", "got 'big'"]),
        (f"{BACKBONE}[preprocess]\nsize = [1, 2, 3]", ["key 'preprocess.size'", "got"]),
        (f"{BACKBONE}[preprocess]\nsize = -3", ["key 'preprocess.size.0'", "greater than 0", "got -3"]),
        (f"{BACKBONE}[preprocess]\nmean = [0.5]", ["key 'preprocess.mean.1' is missing."]),
        (f"{BACKBONE}[preprocess]\nstd = [1, 0, 1]", ["key 'preprocess.std.1'", "greater than 0", "got 0"]),
        (f"{BACKBONE}[preprocess]\ncrop_fraction = 1.5", ["key 'preprocess.crop_fraction'", "got 1.5"]),
        (f"{BACKBONE}[preprocess]\ncrop_mode = 'centre'", ["'center', 'squash' or 'border'", "got 'centre'"]),
        (f"{BACKBONE}[feature]\nwidth = 0", ["key 'feature.width'", "got 0"]),
        # No TOML.
        ("name = \n", ["not valid TOML", "line 1"]),
        ('name = "x"\nname = "y"', ["not valid TOML"]),
        ("[weights\n", ["not valid TOML", "line 1"]),
        (b"\xff\xfe", ["Cannot read the card", "utf-8"]),
    ],
)
def test_a_wrong_backbone_card(text, expected, read, tmp_path):
    with pytest.raises(UserError) as error:
        read(text)
    line = line_of(error)
    assert str(tmp_path / "card.toml") in line
    for part in expected:
        assert part in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"protocol = 'knn'\n{TASK}", ["unknown key 'protocol'", "Did you mean: protocols?"]),
        (f"protocols = 'knn'\n{TASK}", ["key 'protocols'", "an array", "got 'knn'"]),
        (f"protocols = []\n{TASK}", ["key 'protocols'", "at least 1 item"]),
        (f"metrics = []\n{TASK}", ["key 'metrics'", "at least 1 item"]),
        (f"version = 0\n{TASK}", ["key 'version'", "got 0"]),
        (TASK.replace("classification", "clasification"), ["key 'adapter'", "'classification'"]),
        (TASK.replace("source", "sorce"), ["unknown key 'data.sorce'", "Did you mean: source"]),
        (f"{TASK}val_fraction = 1.0", ["key 'data.val_fraction'", "less than 1", "got 1.0"]),
        (f"{TASK}test_fraction = 0", ["key 'data.test_fraction'", "greater than 0", "got 0"]),
        ('name = "x"\nadapter = "classification"', ["key 'data' is missing."]),
    ],
)
def test_a_wrong_task_card(text, expected, read, tmp_path):
    with pytest.raises(UserError) as error:
        read(text, TaskCard)
    line = line_of(error)
    assert str(tmp_path / "card.toml") in line
    for part in expected:
        assert part in line


def test_a_card_that_is_not_there(tmp_path):
    with pytest.raises(UserError) as error:
        read_card(tmp_path / "no.toml", BackboneCard)
    assert "Cannot read the card" in line_of(error)


# Folders of a user's own.


def test_a_users_folder_joins_the_built_in_one(tmp_path):
    deep = tmp_path / "ssl" / "mine.toml"
    deep.parent.mkdir()
    deep.write_text(BACKBONE)
    (tmp_path / "notes.txt").write_text("no card")
    cards = load_backbone_cards([tmp_path])
    assert list(cards) == [*load_backbone_cards(), "mine"]
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mine.toml").write_text(TASK)
    assert "mine" in load_task_cards([tmp_path / "tasks"])


def test_one_name_in_two_files(tmp_path):
    (tmp_path / "a.toml").write_text(BACKBONE)
    (tmp_path / "b.toml").write_text(BACKBONE)
    with pytest.raises(UserError) as error:
        load_backbone_cards([tmp_path])
    line = line_of(error)
    assert f"{tmp_path / 'b.toml'}: key 'name': 'mine' is already" in line and str(tmp_path / "a.toml") in line
    (tmp_path / "a.toml").unlink()
    (tmp_path / "b.toml").write_text(BACKBONE.replace("mine", "pixels"))
    with pytest.raises(UserError, match=r"'pixels' is already the name of .*pixels\.toml"):
        load_backbone_cards([tmp_path])


def test_one_folder_named_twice_is_read_once(tmp_path):
    (tmp_path / "a.toml").write_text(BACKBONE)
    assert list(load_backbone_cards([ROOT / "registry", tmp_path, tmp_path])) == [*load_backbone_cards(), "mine"]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError) as error:
        load_backbone_cards([tmp_path / "no"])
    assert str(tmp_path / "no") in line_of(error)


# Names, globs and specs.


def test_match_names():
    known = ["a1", "a2", "b1"]
    assert match_names(["b1", "a*", "a1"], known) == ["b1", "a1", "a2"]
    assert match_names(["?1"], known) == ["a1", "b1"]
    assert match_names(["[!a]*"], known) == ["b1"]
    assert match_names(["unknown"], known) == ["unknown"]
    assert match_names(["folder:/data/*[1]"], known) == ["folder:/data/*[1]"]
    assert match_names([], known) == []
    with pytest.raises(UserError, match=r"'c\*' matches no name"):
        match_names(["a1", "c*"], known)


def test_case_matters_in_globs():
    with pytest.raises(UserError):
        match_names(["A*"], ["a1"])


def test_tasks_by_name_and_glob():
    cards = load_task_cards()
    assert resolve_tasks(["shapes", "*", "shapes"], cards) == [
        cards["shapes"],
        *(card for name, card in cards.items() if name != "shapes"),
    ]


def test_task_of_a_folder(tmp_path, monkeypatch):
    (task,) = resolve_tasks([f"folder:{tmp_path}"], {})
    assert task.name == task.data.source == f"folder:{tmp_path}"
    assert task.adapter == "classification" and task.protocols == ("linear", "knn")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [t.name for t in resolve_tasks(["folder:a", "folder:./a", "folder:~/a", "folder:a/"], {})] == [
        f"folder:{tmp_path / 'a'}"
    ] * 4


def test_task_of_a_folder_with_an_odd_name():
    (task,) = resolve_tasks(["folder:/my images [v2]/a:b*"], {})
    assert task.data.source == "folder:/my images [v2]/a:b*"


def test_task_of_torchvision():
    for source in ("torchvision:CIFAR10", "hf:OWNER/NAME", "wilds:camelyon17"):
        (task,) = resolve_tasks([source], {})
        assert task.name == task.data.source == source


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("shape", "Did you mean: shapes"),
        ("Shapes", "Did you mean: shapes"),
        ("qqqq", "`bob list tasks`"),
        ("", "`bob list tasks`"),
        ("folder:", "folder:PATH"),
        ("torchvision:", "`bob list tasks`"),
        ("hf:", "`bob list tasks`"),
        ("folders:images", "folder:PATH"),
    ],
)
def test_unknown_task(name, hint):
    with pytest.raises(UserError) as error:
        resolve_tasks([name], load_task_cards())
    line = line_of(error)
    assert f"Unknown task '{name}'." in line and hint in line


# The exception and its hint.


def test_user_error_is_one_line_and_survives_a_process_boundary():
    import pickle

    error = UserError("Two\n  lines.", "Mend\tthem.")
    assert str(error) == "Two lines. Mend them."
    again = pickle.loads(pickle.dumps(error))
    assert (again.problem, again.remedy, str(again)) == (error.problem, error.remedy, str(error))
    assert str(UserError("Only this.")) == "Only this."


def test_did_you_mean():
    assert did_you_mean("lineer", ["linear", "knn"]) == "Did you mean: linear?"
    assert did_you_mean("KNN", ["linear", "knn"]) == "Did you mean: knn?"
    assert did_you_mean("zzz", ["linear", "knn"]) == ""
    assert did_you_mean("net1", ["net2", "net3", "net4"], most=2).count("net") == 2
    assert did_you_mean("x", []) == ""


def test_sources_without_a_model_need_none():
    assert Weights(source="pixels").model == Weights(source="constant").model == ""
