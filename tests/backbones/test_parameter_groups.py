"""Layer decay reaches every architecture: each parameter once, deeper ones slower; for timm's models as timm does."""

import importlib.util
import itertools
import warnings
from fnmatch import fnmatch
from pathlib import Path

import open_clip
import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from timm.scheduler import CosineLRScheduler
from torch import nn

from bob.backbones.freeze import freeze
from bob.backbones.sources import open_backbone

DECAY = 0.5
SMALL = {"size": 64}
CUSTOM = """
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.more = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 1)

        def forward(self, x):
            return x + self.more(self.norm(self.conv(x)))

    class Net(nn.Module):
        '''Registered back to front, so that order of registration is not depth.'''
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(6, 5)
            self.stages = nn.Sequential(Block(), Block(), Block())
            self.unread = nn.Linear(2, 2)
            self.offset = nn.Parameter(torch.zeros(1, 6, 1, 1))
            self.stem = nn.Conv2d(3, 6, 5, 4, padding=2)

        def forward(self, images):
            return self.last(self.stages(self.stem(images) + self.offset).mean((2, 3)))

    def make():
        return Net()

    def wrapped():
        import timm
        class Wrapped(nn.Module):
            def __init__(self):
                super().__init__()
                self.adapter = nn.Conv2d(3, 3, 1)
                self.inner = timm.create_model("test_vit", num_classes=0, img_size=64)
                self.projection = nn.Linear(64, 7, bias=False)
            def forward(self, images):
                return self.projection(self.inner(self.adapter(images)))
        return Wrapped()

    def linear():
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))
    """


@pytest.fixture(scope="module")
def tiny_hub():
    pytest.importorskip("transformers")
    pytest.importorskip("diffusers")
    spec = importlib.util.spec_from_file_location("bob_test_tiny_hub", Path(__file__).with_name("tiny_hub.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def opened(make_card, write, tmp_path, request):
    """A function from a source and a model to its backbone, at random initialisation."""

    def open_(source, model):
        if source == "custom":
            return open_backbone(make_card(source, SMALL, model=f"{write('net.py', CUSTOM)}:{model}"))
        if source == "transformers":
            hub = request.getfixturevalue("tiny_hub")
            folder = hub.save(hub.build(model), tmp_path / model)
            feature = {"layer": "image_embedding"} if model == "clip" else None
            return open_backbone(make_card(source, feature=feature, model=str(folder)))
        if source == "open_clip":
            open_clip.add_model_config(Path(__file__).parent / "open_clip_models")
            card = make_card(source, SMALL, {"layer": "image_embedding"}, model=model, pretrained=False)
            return open_backbone(card)
        return open_backbone(make_card(source, SMALL, model=model, pretrained=False))

    return open_


def groups_of(backbone, head=None, layer_decay=DECAY):
    return backbone.parameter_groups(layer_decay, lr=1e-3, weight_decay=0.05, head=head)


def scales_of(groups, model):
    """Name -> (lr_scale, weight_decay)."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: (g["lr_scale"], g["weight_decay"]) for g in groups for p in g["params"] if id(p) in names}


# A parameter of the stem, one of each of some blocks in turn, one at the end; and the number of layers with the head.
CASES = {
    ("timm", "test_vit"): ("patch_embed.proj.weight", "blocks.{}.attn.qkv.weight", "norm.weight", 7),
    ("timm", "test_resnet"): ("conv1.0.weight", "layer{1}.0.conv1.weight", "layer4.0.conv2.weight", 5),
    ("timm", "test_convnext"): ("stem.0.weight", "stages.{}.blocks.0.conv_dw.weight", "head.norm.weight", 10),
    ("timm", "test_efficientnet"): ("conv_stem.weight", "blocks.{}.0.conv*weight", "conv_head.weight", 6),
    ("timm", "swin_tiny_patch4_window7_224"): (
        "patch_embed.proj.weight", "layers.2.blocks.{}.attn.qkv.weight", "layers.3.blocks.1.mlp.fc2.weight", 13,
    ),
    ("torchvision", "resnet18/IMAGENET1K_V1"): ("conv1.weight", "layer{1}.1.conv1.weight", "layer4.1.bn2.weight", 9),
    ("torchvision", "mobilenet_v3_small/IMAGENET1K_V1"): (
        "features.0.0.weight", "features.{1}.block.0.0.weight", "classifier.0.weight", 13,
    ),
    ("torchvision", "vit_b_16/IMAGENET1K_V1"): (
        "class_token", "encoder.layers.encoder_layer_{}.mlp.0.weight", "encoder.ln.weight", 13,
    ),
    ("transformers", "vit"): ("embeddings.cls_token", "*.{}.*mlp*fc1.weight|*.{}.*intermediate*weight",
                              "layernorm.weight", 3),
    ("transformers", "resnet"): ("embedder.embedder.convolution.weight", "encoder.stages.{}.layers.0*weight",
                                 "encoder.stages.3.layers.0.layer.1.convolution.weight", 6),
    ("transformers", "clip"): ("*class_embedding", "*layers.{}.mlp.fc1.weight", "visual_projection.weight", 3),
    ("open_clip", "tiny-vit"): ("class_embedding", "transformer.resblocks.{}.mlp.c_fc.weight", "proj", 3),
    ("open_clip", "tiny-resnet"): ("conv1.weight", "layer{1}.0.conv1.weight", "attnpool.c_proj.weight", 7),
    ("open_clip", "tiny-sigmoid"): ("trunk.patch_embed.proj.weight", "trunk.blocks.{}.attn.qkv.weight",
                                    "trunk.attn_pool.q.weight", 7),
    ("custom", "make"): ("stem.weight", "stages.{}.conv.weight", "last.weight", 4),
    ("custom", "wrapped"): ("adapter.weight", "inner.blocks.{}.attn.qkv.weight", "projection.weight", 7),
}  # fmt: skip


def find(names, pattern):
    return [name for name in names if any(fnmatch(name, part) for part in pattern.split("|"))]


@pytest.mark.parametrize(("source", "model"), CASES, ids=lambda value: value.replace("/", "-"))
def test_every_parameter_once_and_deeper_ones_slower(source, model, opened) -> None:
    backbone, head = opened(source, model), nn.Linear(3, 2)
    groups = groups_of(backbone, head)
    assert all(group.keys() == {"params", "lr", "lr_scale", "weight_decay", "name"} for group in groups)
    assert len({group["name"] for group in groups}) == len(groups)
    together = sorted(id(p) for group in groups for p in group["params"])
    assert together == sorted(id(p) for p in [*backbone.model.parameters(), *head.parameters()])
    scales = {name: scale for name, (scale, _) in scales_of(groups, backbone.model).items()}
    stem, pattern, last, layers = CASES[source, model]
    assert {scales[name] for name in find(scales, stem)} == {min(scales.values())} == {DECAY**layers}
    numbers = range(1, 99) if "{1}" in pattern else range(99)
    blocks = [find(scales, pattern.replace("{1}", "{}").replace("{}", str(n))) for n in numbers]
    rates = [scales[names[0]] for names in blocks if names]
    assert len(rates) > 1
    assert all(shallow < deep for shallow, deep in itertools.pairwise(rates))
    assert {scales[name] for name in find(scales, last)} == {max(scales.values())}
    assert scales_of(groups, head) == {"weight": (1.0, 0.05), "bias": (1.0, 0.0)}


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_convnext", "test_efficientnet", "test_vit4"])
def test_timms_own_rates_for_a_model_with_its_classifier(name, opened) -> None:
    backbone = opened("timm", name)
    whole = timm.create_model(name, num_classes=2)
    exempt = whole.no_weight_decay() if hasattr(whole, "no_weight_decay") else ()
    expected = scales_of(param_groups_layer_decay(whole, 0.05, exempt, layer_decay=DECAY), whole)
    found = scales_of(groups_of(backbone), backbone.model)
    assert found.keys() <= expected.keys()
    assert {expected[name][0] for name in expected.keys() - found.keys()} == {1.0}
    assert found == {name: expected[name] for name in found}


def test_blocks_of_a_chain_worked_by_hand(opened) -> None:
    backbone = opened("custom", "make")
    scales = scales_of(groups_of(backbone), backbone.model)
    depths = {"stem": 4, "offset": 4, "stages.0": 3, "stages.1": 2, "stages.2": 1, "last": 1, "unread": 1}
    for name, (scale, weight_decay) in scales.items():
        (depth,) = (depth for part, depth in depths.items() if name.startswith(part))
        assert scale == DECAY**depth
        vector = name.endswith("bias") or "norm" in name
        assert weight_decay == (0.0 if vector else 0.05)


@pytest.mark.parametrize(
    ("source", "model", "exempt"),
    [
        ("timm", "test_vit", {"pos_embed", "cls_token"}),
        ("torchvision", "vit_b_16/IMAGENET1K_V1", {"encoder.pos_embedding", "class_token"}),
        ("transformers", "vit", {"embeddings.position_embeddings", "embeddings.cls_token"}),
        ("open_clip", "tiny-vit", {"positional_embedding", "class_embedding"}),
        ("open_clip", "tiny-sigmoid", {"trunk.pos_embed", "trunk.cls_token"}),
    ],
)
def test_tokens_and_positions_do_not_decay(source, model, exempt, opened) -> None:
    backbone = opened(source, model)
    shapes = {name: parameter.ndim for name, parameter in backbone.model.named_parameters()}
    scales = scales_of(groups_of(backbone), backbone.model)
    for name, (_, weight_decay) in scales.items():
        assert (weight_decay == 0.0) == (shapes[name] <= 1 or name in exempt), name
    assert exempt <= scales.keys()


@pytest.mark.parametrize("layer_decay", [None, 1.0])
def test_without_layer_decay_one_rate(layer_decay, opened) -> None:
    backbone = opened("custom", "linear")
    groups = groups_of(backbone, nn.Linear(2, 2), layer_decay)
    assert {group["lr_scale"] for group in groups} == {1.0}
    assert {group["lr"] for group in groups} == {1e-3}


def test_no_blocks_to_be_told_apart(opened, refused) -> None:
    with refused("no blocks that could be told apart", "layer_decay = 1"):
        groups_of(opened("custom", "linear"))


def test_what_does_not_train_is_left_out(opened) -> None:
    backbone = opened("timm", "test_vit")
    backbone.model.pos_embed.requires_grad_(False)
    assert "pos_embed" not in scales_of(groups_of(backbone), backbone.model)
    freeze(backbone)
    assert [group["name"] for group in groups_of(backbone, nn.Linear(2, 2))] == ["head.decay", "head.no_decay"]


def test_looking_for_blocks_changes_nothing(opened) -> None:
    backbone = opened("torchvision", "resnet18/IMAGENET1K_V1").train()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    groups_of(backbone)
    assert all(module.training for module in backbone.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.state_dict().items())
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_timms_scheduler_scales_the_rates(opened) -> None:
    groups = groups_of(opened("timm", "test_vit"), nn.Linear(2, 2))
    optimizer = torch.optim.AdamW(groups)
    with warnings.catch_warnings(action="ignore"):
        CosineLRScheduler(optimizer, t_initial=10)
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates["head.decay"] == 1e-3
    assert rates["layer_6.decay"] == 1e-3 * DECAY
    assert rates["layer_0.decay"] == 1e-3 * DECAY**7
