"""Blocks and maps of plain modules: found without declarations, the same as other tools find, refused when unclear."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from bob.backbones.blocks import find_blocks
from bob.backbones.hooks import HookedBackbone
from bob.backbones.preprocess import Preprocess
from bob.backbones.sources import open_backbone


@pytest.fixture
def hooked(make_card):
    """A function from a module to its backbone."""

    def wrap(model, size=(64, 64)):
        return HookedBackbone(make_card("custom", model="net.py:make"), model, Preprocess(size=size), {})

    return wrap


@pytest.fixture
def random(make_card):
    """A function that opens a torchvision model at random initialisation."""

    def open_(model, size=64, **weights):
        return open_backbone(
            make_card("torchvision", model=model, pretrained=False, preprocess={"size": size}, **weights)
        )

    return open_


def pictures(height=64, width=64, batch=2):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


def conv(channels, to, stride=1):
    return nn.Conv2d(channels, to, 3, stride, padding=1)


class Residual(nn.Module):
    def __init__(self, channels, stride=1):
        super().__init__()
        self.body = nn.Sequential(conv(channels, channels, stride), nn.ReLU(), conv(channels, channels))
        self.short = nn.AvgPool2d(stride)

    def forward(self, x):
        return self.short(x) + self.body(x)


class Calls(nn.Module):
    """A network whose forward is a function of the parts given by name."""

    def __init__(self, run, **parts):
        super().__init__()
        self.run = run
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, images):
        return self.run(self, images)


# torchvision's models: name -> number of blocks, first and last block, strides, channels of the last map.

KNOWN = {
    "resnet18": (9, "relu", "layer4.1", [2, 4, 8, 16, 32], 512),
    "mobilenet_v3_small": (13, "features.0", "features.12", [2, 4, 8, 16, 32], 576),
    "convnext_tiny": (18, "features.1.0", "features.7.2", [4, 8, 16, 32], 768),
    "swin_t": (12, "features.1.0", "features.7.1", [4, 8, 16, 32], 768),
    "swin_v2_t": (12, "features.1.0", "features.7.1", [4, 8, 16, 32], 768),
    "densenet121": (5, "features.relu0", "features.denseblock4", [2, 4, 8, 16, 32], 1024),
    "regnet_x_400mf": (23, "stem", "trunk_output.block4.block4-11", [2, 4, 8, 16, 32], 400),
    "efficientnet_b0": (17, "features.1.0", "features.8", [2, 4, 8, 16, 32], 1280),
    "vgg11": (9, "features.1", "features.20", [1, 2, 4, 8, 16, 32], 512),
    "shufflenet_v2_x0_5": (19, "conv1", "conv5", [2, 4, 8, 16, 32], 1024),
    "squeezenet1_1": (9, "features.1", "features.12", [2, 4, 8, 16], 512),
    "googlenet": (12, "conv1", "inception5b", [2, 4, 8, 16, 32], 1024),
    "inception_v3": (16, "Conv2d_1a_3x3", "Mixed_7c", [2, 4, 8, 16, 32], 2048),
    "maxvit_t": (13, "stem.0", "blocks.3.layers.1", [2, 4, 8, 16, 32], 512),
    "vit_b_32": (12, "encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_11", [32], 768),
}


@pytest.mark.parametrize("name", KNOWN)
def test_blocks_of_torchvision_models(name, make_card):
    number, first, last, strides, channels = KNOWN[name]
    with torch.device("meta"):
        backbone = open_backbone(make_card("torchvision", model=name, pretrained=False))
        images = torch.empty(2, 3, *backbone.preprocess.size)
    layers, maps = backbone.layers(images), backbone.feature_maps(images)
    assert (len(layers), backbone.blocks[0], backbone.blocks[-1]) == (number, first, last)
    assert backbone.strides == strides and maps[-1].shape[1] == channels
    assert len(maps) == len(strides)
    for map_, stride in zip(maps, strides, strict=True):
        assert map_.shape[2] == map_.shape[3] == pytest.approx(backbone.preprocess.size[0] / stride, rel=0.2)
    assert all(layer.map.ndim == 4 and layer.pooled.shape == layer.map.shape[:2] for layer in layers)


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (70, 90)])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "swin_t", "shufflenet_v2_x0_5"])
def test_other_sizes_than_the_models_own(name, size, random):
    backbone = random(name, 64)
    with torch.inference_mode():
        maps, layers = backbone.feature_maps(pictures(*size)), backbone.layers(pictures(*size))
    for map_, stride in zip(maps, backbone.strides, strict=True):
        assert all(abs(edge - whole / stride) <= 1.1 for edge, whole in zip(map_.shape[2:], size, strict=True))
    assert all(layer.pooled.shape == layer.map.shape[:2] for layer in layers)


def test_equal_to_torchvisions_feature_extractor(random):
    backbone = random("resnet18")
    names = ["relu", "layer1", "layer2", "layer3", "layer4"]
    extract = create_feature_extractor(backbone.model, names)
    with torch.inference_mode():
        expected = extract(pictures(96, 70))
        maps = backbone.feature_maps(pictures(96, 70))
    assert all(torch.equal(map_, expected[name]) for map_, name in zip(maps, names, strict=True))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "efficientnet_b0", "regnet_x_400mf"])
def test_last_block_pools_to_the_feature(name, random):
    backbone = random(name)
    with torch.inference_mode():
        torch.testing.assert_close(backbone.layers(pictures())[-1].pooled, backbone.embed(pictures()))


def test_channels_last_maps_are_turned(random):
    backbone = random("swin_t")
    with torch.inference_mode():
        last = backbone.layers(pictures(), [-1])[0]
        features = backbone.model.norm(backbone.model.features(pictures()))
        normed = backbone.model.norm(last.map.permute(0, 2, 3, 1))
    assert last.map.shape == (2, 768, 2, 2)
    torch.testing.assert_close(normed, features)


def test_tokens_of_a_vit_become_a_map(random):
    backbone = random("vit_b_32", 96)
    images = pictures(96, 96)
    with torch.inference_mode():
        last = backbone.layers(images, [-1])[0]
        norm = backbone.model.encoder.ln
        tokens = backbone.model.encoder(_tokens(backbone.model, images))
        torch.testing.assert_close(norm(last.map.flatten(2).mT), tokens[:, 1:])
        torch.testing.assert_close(norm(last.pooled), backbone.embed(images))
    assert backbone.strides == [32] and last.map.shape == (2, 768, 3, 3)


def _tokens(vit, images):
    patches = vit._process_input(images)
    return torch.cat([vit.class_token.expand(len(images), -1, -1), patches], dim=1)


def test_a_vit_is_read_at_its_own_size_only(random):
    backbone = random("vit_b_32", 96)
    with pytest.raises(AssertionError, match="Wrong image height"):
        backbone.layers(pictures(64, 64))


# timm's models as a user's plain modules: the same maps as timm's own methods give.


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext", "mobilenetv3_small_050"])
def test_the_same_maps_as_timm(name, hooked):
    model = timm.create_model(name, num_classes=0)
    backbone = hooked(Calls(lambda net, x: net.inner(x), inner=model))
    with torch.inference_mode():
        maps, theirs = backbone.feature_maps(pictures()), model.forward_intermediates(pictures())[1]
    by_stride = dict(zip(backbone.strides, maps, strict=True))
    for info, their in zip(model.feature_info, theirs, strict=True):
        if info["reduction"] < 32 and info["reduction"] in by_stride and "stem" not in info["module"]:
            torch.testing.assert_close(by_stride[info["reduction"]], their)


@pytest.mark.parametrize(
    ("name", "token"),
    [("test_vit", True), ("test_vit2", False), ("test_vit4", False), ("deit_tiny_distilled_patch16_224", False)],
)
def test_vits_pool_as_their_feature_does(name, token, hooked):
    model = timm.create_model(name, num_classes=0, img_size=64)
    backbone = hooked(Calls(lambda net, x: net.inner(x), inner=model))
    with torch.inference_mode():
        layers = backbone.layers(pictures())
        theirs = model.forward_intermediates(pictures(), return_prefix_tokens=True, intermediates_only=True)
    assert len(layers) == len(theirs)
    for layer, (map_, prefix) in zip(layers, theirs, strict=True):
        torch.testing.assert_close(layer.map, map_)
        torch.testing.assert_close(layer.pooled, prefix[:, 0] if token else map_.mean((2, 3)))


# A user's own.


def test_blocks_are_no_convolutions_where_there_are_blocks(hooked):
    net = nn.Sequential(conv(3, 8, 2), nn.ReLU(), nn.Sequential(Residual(8, 2), Residual(8)), Residual(8, 2))
    backbone = hooked(net)
    assert backbone.blocks == ["1", "2.0", "2.1", "3"] and backbone.strides == [2, 4, 8]


def test_convolutions_go_with_norm_and_activation(hooked):
    net = nn.Sequential(conv(3, 8, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), conv(8, 8), nn.ReLU())
    backbone = hooked(net)
    assert backbone.blocks == ["2", "5"] and backbone.strides == [4, 8]


def test_one_convolution_is_a_block(hooked):
    assert hooked(conv(3, 8, 2)).strides == [2]
    assert hooked(nn.Sequential(conv(3, 8, 2))).blocks == ["0"]


def test_module_lists_called_in_turns(hooked):
    """As in ConvNeXt's own code: one list of downsamplings, one of stages."""

    def run(net, x):
        for down, stage in zip(net.downs, net.stages, strict=True):
            x = stage(down(x))
        return x.mean((2, 3))

    stages = nn.ModuleList([nn.Sequential(Residual(8), Residual(8)), nn.Sequential(Residual(8))])
    net = Calls(run, stages=stages, downs=nn.ModuleList([conv(3, 8, 4), conv(8, 8, 2)]))
    assert hooked(net).blocks == ["stages.0.0", "stages.0.1", "stages.1.0"]
    assert hooked(Calls(lambda outer, x: outer.inner(x), inner=net)).blocks[0] == "inner.stages.0.0"


def test_a_module_called_twice_is_two_blocks(hooked):
    net = Calls(lambda net, x: net.again(net.again(net.stem(x))), stem=conv(3, 8, 4), again=Residual(8))
    backbone = hooked(net)
    with torch.inference_mode():
        layers = backbone.layers(pictures())
        first = net.again(net.stem(pictures()))
        second = net.again(first)
    assert backbone.blocks == ["again", "again"]
    assert torch.equal(layers[0].map, first) and torch.equal(layers[1].map, second)


def test_what_a_shortcut_goes_round_is_no_block(hooked):
    """Blocks whose residual is added outside give differences, not what the network goes on with."""

    def run(net, x):
        x = net.stem(x)
        for block in net.blocks:
            x = x + block(x)
        return net.neck(x)

    parts = {"stem": conv(3, 8, 2), "blocks": nn.ModuleList([Residual(8), Residual(8)]), "neck": conv(8, 8, 2)}
    assert hooked(Calls(run, **parts)).blocks == ["stem", "neck"]


def test_side_branches_are_no_blocks(hooked):
    def run(net, x):
        x = net.stem(x)
        return net.stage(x).mean((2, 3)) + net.side(x).mean((2, 3))

    net = Calls(run, stem=conv(3, 8, 2), stage=nn.Sequential(Residual(8), Residual(8, 2)), side=Residual(8))
    assert hooked(net).blocks == ["stage.0", "stage.1"]


def test_output_of_several_stages(hooked):
    """Features put together from two stages: both stages stay blocks."""

    def run(net, x):
        one = net.one(x)
        return torch.cat([one.mean((2, 3)), net.two(one).mean((2, 3))], dim=1)

    net = Calls(run, one=nn.Sequential(conv(3, 8, 4), Residual(8)), two=nn.Sequential(Residual(8, 2), Residual(8)))
    assert hooked(net).blocks == ["one.1", "two.0", "two.1"]


def test_encoder_of_a_unet(hooked):
    def run(net, x):
        fine = net.fine(x)
        coarse = F.interpolate(net.coarse(fine), scale_factor=2)
        return net.up(torch.cat([fine, coarse], dim=1))

    net = Calls(run, fine=Residual(3, 2), coarse=nn.Sequential(Residual(3, 2), Residual(3)), up=conv(6, 8))
    assert hooked(net).blocks == ["fine", "coarse.0", "coarse.1"]


def test_outputs_changed_in_place_are_copied(hooked):
    net = nn.Sequential(Residual(3, 2), nn.Sequential(nn.ReLU(inplace=True), Residual(3)))
    images = pictures()
    with torch.inference_mode():
        first = hooked(net).layers(images)[0].map
        assert torch.equal(first, net[0](images)) and (first < 0).any()


def test_outputs_in_tuples(hooked):
    class Pair(Residual):
        def forward(self, x):
            return super().forward(x), None

    def run(net, x):
        for block in net.blocks:
            x = block(x)[0]
        return x

    assert hooked(Calls(run, blocks=nn.ModuleList([Pair(3, 2), Pair(3, 2)]))).strides == [2, 4]


def test_tokens_without_class_token_and_as_many_channels_as_columns(hooked):
    def run(net, x):
        tokens = net.patches(x).flatten(2).mT
        return net.blocks(tokens).mean(1)

    def block():
        return nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

    net = Calls(run, patches=nn.Conv2d(3, 16, 16, 16), blocks=nn.Sequential(block(), block()))
    backbone = hooked(net, (64, 96))
    with torch.inference_mode():
        layers = backbone.layers(pictures(64, 96))
        tokens = net.blocks(net.patches(pictures(64, 96)).flatten(2).mT)
    assert backbone.blocks == ["blocks.0", "blocks.1"] and backbone.strides == [16]
    torch.testing.assert_close(layers[1].map.flatten(2).mT, tokens, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layers[1].pooled, backbone.embed(pictures(64, 96)), rtol=1e-4, atol=1e-5)


def test_order_of_axes_is_that_of_the_other_blocks(hooked):
    """(1, 8, 8, 8) says nothing; the blocks around it do."""

    class Last(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))

        def forward(self, x):
            return x + self.body(x)

    net = Calls(
        lambda net, x: net.two(net.down(net.one(net.stem(x).permute(0, 2, 3, 1)))[:, ::2, ::2]).mean((1, 2)),
        **{"stem": conv(3, 12, 4), "one": nn.Sequential(Last(12), Last(12)), "down": nn.Linear(12, 8)},
        two=nn.Sequential(Last(8)),
    )
    backbone = hooked(net)
    with torch.inference_mode():
        last = backbone.layers(pictures())[-1]
    assert last.map.shape == (2, 8, 8, 8)
    torch.testing.assert_close(last.pooled, backbone.embed(pictures()))


def test_mode_and_gradients_are_left_as_they_are(hooked):
    net = nn.Sequential(conv(3, 8, 2), nn.BatchNorm2d(8), Residual(8, 2))
    backbone = hooked(net)
    backbone.train()
    mean = net[1].running_mean.clone()
    assert backbone.strides == [2, 4]
    assert net[1].training and torch.equal(net[1].running_mean, mean)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())
    backbone.feature_maps(pictures())[-1].sum().backward()
    assert net[0].weight.grad is not None


def test_found_once_and_always_the_same(hooked):
    net = nn.Sequential(conv(3, 8, 2), Residual(8, 2), Residual(8, 2))
    size, device = (64, 64), torch.device("cpu")
    assert find_blocks(net, size, device) == find_blocks(net, size, device)
    backbone = hooked(net)
    with torch.inference_mode():
        once = backbone.feature_maps(pictures())
        calls = []
        net.register_forward_hook(lambda *_: calls.append(1))
        assert all(torch.equal(a, b) for a, b in zip(once, backbone.feature_maps(pictures()), strict=True))
    assert calls == [1]


def test_layers_by_index(hooked, refused):
    backbone = hooked(nn.Sequential(conv(3, 8, 2), Residual(8, 2), Residual(8, 2)))
    with torch.inference_mode():
        every, some = backbone.layers(pictures()), backbone.layers(pictures(), [2, 0, -1])
    assert [torch.equal(a.map, every[i].map) for a, i in zip(some, (2, 0, 2), strict=True)] == [True] * 3
    with refused("no block 3", "it has 3", "0 to 2"):
        backbone.layers(pictures(), [3])


# What it cannot tell.


def two_streams(net, x):
    return torch.cat([net.one(x), net.two(x)], dim=1).mean((2, 3))


def without_gradients(net, x):
    with torch.no_grad():
        return net.one(x).mean((2, 3))


def through_numpy(net, x):
    return torch.from_numpy(net.one(x).numpy()).mean((2, 3))


@pytest.mark.parametrize("run", [two_streams, without_gradients, through_numpy])
def test_unclear_blocks_are_refused(run, hooked, refused):
    backbone = hooked(Calls(run, one=Residual(3, 2), two=Residual(3, 2)))
    for ask in (
        lambda: backbone.strides,
        lambda: backbone.layers(pictures()),
        lambda: backbone.feature_maps(pictures()),
    ):
        with refused("'mine'", "no blocks to read one by one", "`layers` of its own"):
            ask()
    with torch.inference_mode():
        assert len(backbone.embed(pictures())) == 2


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()),
        nn.Sequential(nn.Flatten(), nn.Linear(12_288, 8), nn.ReLU(), nn.Linear(8, 4)),
        nn.Sequential(nn.AvgPool2d(2), nn.ReLU()),
    ],
    ids=["pooling", "mlp", "no weights"],
)
def test_networks_without_maps_are_refused(net, hooked, refused):
    with refused("'mine'", "no blocks"):
        hooked(net).layers(pictures())


def test_blocks_do_not_depend_on_the_size(random):
    assert random("resnet18", 64).blocks == random("resnet18", 96).blocks
