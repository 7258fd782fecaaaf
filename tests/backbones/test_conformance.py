"""Every source of weights keeps the promises of the one interface."""

import hashlib
import importlib.util
import json
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from bob.backbones.base import Backbone
from bob.backbones.sources import open_backbone
from bob.catalogue import load_backbone_cards
from bob.errors import UserError

SMALL = {"size": 64}
USER_CODE = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, pooled):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 6, 5, 4, padding=2), nn.BatchNorm2d(6), nn.Dropout(0.5), nn.ReLU())
            self.pooled = pooled

        def forward(self, images):
            maps = self.body(images)
            return maps.mean((2, 3)) if self.pooled else maps

    def vector():
        return Net(pooled=True)

    def maps():
        return Net(pooled=False)
    """


def timm_random(make_card, **_):
    return make_card(model="test_resnet", pretrained=False)


def timm_random_vit(make_card, **_):
    return make_card(model="test_vit", pretrained=False, preprocess=SMALL)


def timm_cached(make_card, **_):
    return make_card(model="test_resnet")


def torchvision_random(make_card, **_):
    return make_card("torchvision", model="mobilenet_v3_small/IMAGENET1K_V1", pretrained=False, preprocess=SMALL)


def torchvision_cached(make_card, checkpoints, **_):
    """Its file is torchvision's in name only, so the card has a checksum of its own."""
    path = checkpoints / "torch" / "hub" / "checkpoints" / "mobilenet_v3_small-047dcff4.pth"
    if not path.exists():
        path.parent.mkdir(parents=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            torch.save(torchvision.models.mobilenet_v3_small().state_dict(), path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return make_card("torchvision", model="mobilenet_v3_small/IMAGENET1K_V1", sha256=sha256, preprocess=SMALL)


def package_by_order(**_):
    card = load_backbone_cards()["efficientnet_lite0"]
    return card.model_copy(update={"preprocess": card.preprocess.model_copy(update={"size": (64, 64)})})


def file_by_order(make_card, checkpoints, **_):
    return make_card("checkpoint", model="test_resnet", file=str(checkpoints / "renamed.pth"), keys="order")


def file_by_mapping(make_card, checkpoints, **_):
    """As a publisher would save it: nested, prefixed, with a projector."""
    path = checkpoints / "mapped.pth"
    if not path.exists():
        state = torch.load(checkpoints / "plain.pth", weights_only=True)
        encoder = {f"module.encoder.{name}": tensor for name, tensor in state.items()}
        torch.save({"epoch": 1, "nets": {"teacher": {**encoder, "module.projector.0.weight": torch.ones(2)}}}, path)
    return make_card(
        "checkpoint",
        model="test_resnet",
        file=str(path),
        nest="nets.teacher",
        drop=[r"^module\.projector\."],
        rename={r"^module\.encoder\.": ""},
        fixed=["conv1.0.weight"],
    )


def pth_by_name(make_card, checkpoints, **_):
    return make_card("checkpoint", model="test_resnet", file=str(checkpoints / "plain.pth"))


def safetensors_by_name(make_card, checkpoints, **_):
    return make_card("checkpoint", model="test_resnet", file=str(checkpoints / "plain.safetensors"))


def custom_vector(make_card, user_file, **_):
    return make_card("custom", model=f"{user_file}:vector", preprocess=SMALL)


def custom_maps(make_card, user_file, **_):
    return make_card("custom", model=f"{user_file}:maps", preprocess=SMALL)


def custom_module(make_card, user_file, **_):
    return make_card("custom", model="conformance_package.net:vector", preprocess=SMALL)


def open_clip_random(make_card, model):
    import open_clip

    open_clip.add_model_config(Path(__file__).parent / "open_clip_models")
    return make_card("open_clip", SMALL, {"layer": "image_embedding"}, model=model, pretrained=False)


def open_clip_vit(make_card, **_):
    return open_clip_random(make_card, "tiny-vit")


def open_clip_resnet(make_card, **_):
    return open_clip_random(make_card, "tiny-resnet")


def open_clip_convnext(make_card, **_):
    return open_clip_random(make_card, "tiny-convnext")


def open_clip_sigmoid(make_card, **_):
    return open_clip_random(make_card, "tiny-sigmoid")


def transformers_vit(make_card, hubs, **_):
    return make_card("transformers", model=str(hubs / "vit"))


def transformers_clip(make_card, hubs, **_):
    return make_card("transformers", feature={"layer": "image_embedding"}, model=str(hubs / "clip"))


def transformers_random(make_card, **_):
    pytest.importorskip("transformers")
    options = {"model_type": "vit_msn", "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    whole = {**SMALL, "crop_fraction": 1, "crop_mode": "squash", "interpolation": "bilinear"}
    preprocess = {**whole, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    return make_card("transformers", preprocess, model="nobody/nothing", pretrained=False, options=options)


def diffusers_pipeline(make_card, hubs, **_):
    return make_card("diffusers", feature={"layer": "mid_block"}, model=str(hubs / "pipeline"))


def pixels(**_):
    return load_backbone_cards()["pixels"]


def constant(**_):
    return load_backbone_cards()["constant"]


WIDTHS = {
    timm_random: 96,
    timm_random_vit: 64,
    timm_cached: 96,
    torchvision_random: 1024,
    torchvision_cached: 1024,
    package_by_order: 1280,
    file_by_order: 96,
    file_by_mapping: 96,
    pth_by_name: 96,
    safetensors_by_name: 96,
    custom_vector: 6,
    custom_maps: 6,
    custom_module: 6,
    open_clip_vit: 48,
    open_clip_resnet: 48,
    open_clip_convnext: 48,
    open_clip_sigmoid: 64,
    transformers_vit: 32,
    transformers_clip: 20,
    transformers_random: 48,
    diffusers_pipeline: 32,
    pixels: 3072,
    constant: 1,
}


@pytest.fixture(scope="module")
def user_file(tmp_path_factory):
    import textwrap

    path = tmp_path_factory.mktemp("user") / "conformance_package" / "net.py"
    path.parent.mkdir()
    path.write_text(textwrap.dedent(USER_CODE))
    return path


@pytest.fixture(scope="module")
def hubs(tmp_path_factory):
    """Folder of tiny models as transformers and diffusers save them."""
    pytest.importorskip("transformers")
    pytest.importorskip("diffusers")
    spec = importlib.util.spec_from_file_location("bob_test_tiny_hub", Path(__file__).with_name("tiny_hub.py"))
    tiny_hub = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny_hub)
    folder = tmp_path_factory.mktemp("hubs")
    for kind in ("vit", "clip"):
        tiny_hub.save(tiny_hub.build(kind), folder / kind)
    tiny_hub.save_tokenizer(folder / "clip")
    tiny_hub.save_pipeline(folder / "pipeline", tiny_hub.build_pipeline())
    return folder


@pytest.fixture(scope="module", params=list(WIDTHS), ids=lambda source: source.__name__)
def source(request):
    return request.param


@pytest.fixture(scope="module")
def card(source, make_card, checkpoints, user_file, request):
    needed = {"hubs": request.getfixturevalue("hubs")} if "hubs" in source.__code__.co_varnames else {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(checkpoints / "hub"))
        patch.setenv("TORCH_HOME", str(checkpoints / "torch"))
        patch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
        template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.chdir(user_file.parents[1])
        yield source(make_card=make_card, checkpoints=checkpoints, user_file=user_file, **needed)


@pytest.fixture(scope="module")
def backbone(card):
    return open_backbone(card)


@pytest.fixture(scope="module")
def images(backbone):
    """Three different normalised images (3, 3, h, w)."""
    generator = torch.Generator().manual_seed(0)
    raw = torch.randint(0, 256, (3, 3, *backbone.preprocess.size), generator=generator, dtype=torch.uint8)
    return backbone.preprocess.normalize(raw)


def embed(backbone, images):
    with torch.inference_mode():
        return backbone.embed(images)


def test_is_a_backbone_in_eval_mode(backbone, card):
    assert isinstance(backbone, Backbone) and backbone.card == card
    assert not any(module.training for module in backbone.modules())


def test_features_are_finite_vectors_of_one_width(backbone, images, source):
    features = embed(backbone, images)
    assert features.shape == (3, WIDTHS[source]) and features.dtype == torch.float32
    assert features.isfinite().all()
    assert backbone.width() == WIDTHS[source]


def test_images_do_not_see_one_another(backbone, images):
    alone = torch.cat([embed(backbone, image[None]) for image in images])
    torch.testing.assert_close(embed(backbone, images), alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(embed(backbone, images.flip(0)).flip(0), alone, rtol=1e-4, atol=1e-4)


def test_embedding_changes_no_state(backbone, images):
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    sha = backbone.weights_sha256()
    embed(backbone, images)
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
    assert backbone.weights_sha256() == sha


def test_two_passes_and_two_opens_agree(backbone, card, images):
    first = embed(backbone, images)
    assert torch.equal(first, embed(backbone, images))
    again = open_backbone(card)
    assert torch.equal(first, embed(again, images))
    assert again.identity() == backbone.identity()


def test_opening_leaves_the_random_stream(card):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    open_backbone(card)
    assert torch.equal(torch.rand(3), expected)


def test_identity_is_json(backbone):
    identity = backbone.identity()
    assert json.loads(json.dumps(identity)) == identity
    assert len(identity["weights_sha256"]) == 64
    assert identity["code"]


def test_identity_changes_with_the_weights(card):
    backbone = open_backbone(card)
    before = backbone.identity()
    tensors = list(backbone.model.state_dict().values())
    for tensor in {id(t): t for t in tensors[:1] + tensors[len(tensors) // 2 :][:1] + tensors[-1:]}.values():
        was = tensor.clone()
        tensor.view(-1)[0] += 1
        assert backbone.identity() != before
        tensor.copy_(was)
    assert backbone.identity() == before


def test_identity_changes_with_the_preprocessing(card, backbone):
    changed = card.model_copy(update={"preprocess": card.preprocess.model_copy(update={"mean": (0.1, 0.2, 0.3)})})
    other = open_backbone(changed)
    assert other.preprocess.mean == (0.1, 0.2, 0.3)
    assert other.identity() != backbone.identity()
    assert other.weights_sha256() == backbone.weights_sha256()


def test_identity_tells_the_sources_apart(backbone, card):
    assert backbone.identity()["model"].startswith(f"{card.weights.source}:")


def test_counts_its_parameters(backbone, card):
    assert backbone.parameter_count() == sum(p.numel() for p in backbone.model.parameters())
    if card.parameters is not None:
        assert backbone.parameter_count() == card.parameters


def test_encodes_text_or_says_that_it_cannot(backbone, card, source, refused):
    prompts = ["a photo of a cat", "a photo of a dog", "three blue cars"]
    if type(backbone).encode_text is Backbone.encode_text:
        with refused(card.name, "text tower"):
            backbone.encode_text(prompts)
        return
    with torch.inference_mode():
        texts, alone = backbone.encode_text(prompts), backbone.encode_text(prompts[2:])
    assert texts.shape == (3, WIDTHS[source]) and texts.isfinite().all() and len(texts.unique(dim=0)) == 3
    torch.testing.assert_close(texts[2:], alone, rtol=1e-4, atol=1e-4)
    identity = backbone.text_identity()
    assert json.loads(json.dumps(identity)) == identity == open_backbone(card).text_identity()


def test_maps_have_the_strides_it_declares(backbone, images, card, refused):
    try:
        strides = backbone.strides
    except UserError:
        for ask in (backbone.layers, backbone.feature_maps):
            with refused(card.name):
                ask(images)
        return
    with torch.inference_mode():
        maps, layers = backbone.feature_maps(images), backbone.layers(images)
    height, width = backbone.preprocess.size
    assert [(m.shape[2], m.shape[3]) for m in maps] == [(height // s, width // s) for s in strides]
    assert strides == sorted(strides)
    assert all(layer.pooled.shape == layer.map.shape[:2] for layer in layers)


def test_a_wrong_width_on_the_card_is_refused(card, source, refused):
    wrong = card.model_copy(update={"feature": card.feature.model_copy(update={"width": 7})})
    with refused(card.name, "7", WIDTHS[source]):
        open_backbone(wrong).width()


def test_takes_a_photograph(backbone, photos, source):
    photo = torch.from_numpy(photos["china"]).permute(2, 0, 1)
    batch = backbone.preprocess.normalize(backbone.preprocess.crop(photo)[None])
    assert embed(backbone, batch).shape == (1, WIDTHS[source])


def test_the_same_weights_in_different_files_are_the_same(checkpoints, make_card):
    by = {"make_card": make_card, "checkpoints": checkpoints}
    ways = (pth_by_name, safetensors_by_name, file_by_order, file_by_mapping)
    shas = {open_backbone(make(**by)).weights_sha256() for make in ways}
    assert len(shas) == 1
    assert open_backbone(timm_random(make_card)).weights_sha256() not in shas


@pytest.mark.parametrize("output", ["flat", "list", "fewer"])
def test_what_is_no_feature_is_refused(output, make_card, refused):
    from bob.backbones.preprocess import Preprocess

    class Wrong(nn.Module):
        def forward(self, images):
            return {"flat": images.flatten(), "list": [images], "fewer": images[:1].flatten(1)}[output]

    backbone = Backbone(make_card("pixels"), Wrong(), Preprocess(), {})
    with refused("(B, D) or (B, C, H, W)", "B = 2", {"flat": "(384,)", "list": "a list", "fewer": "(1, 192)"}[output]):
        backbone.embed(torch.zeros(2, 3, 8, 8))


def test_weights_of_every_dtype_are_hashed(make_card):
    from bob.backbones.preprocess import Preprocess

    model = nn.Module()
    for dtype in (torch.bfloat16, torch.float16, torch.bool, torch.int64):
        model.register_buffer(str(dtype).replace(".", "_"), torch.ones((), dtype=dtype))
    model.register_buffer("empty", torch.ones(0))
    model.register_buffer("strided", torch.arange(6.0).reshape(2, 3).T)
    one = Backbone(make_card("pixels"), model, Preprocess(), {}).weights_sha256()
    model.strided = torch.arange(6.0).reshape(3, 2)
    assert Backbone(make_card("pixels"), model, Preprocess(), {}).weights_sha256() != one
