"""The published number is tried where the data and the classifier are, and only there."""

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import ImageNetInfo

from bob.backbones import checkpoint
from bob.backbones import timm as timm_source
from bob.cards import Reference
from bob.check import reference as of
from bob.check.base import natural_images
from bob.check.reference import check_reference, find_classifier, imagenet_val
from bob.errors import UserError


def wnid(index):
    return ImageNetInfo().index_to_label_name(index)


@pytest.fixture(scope="module")
def whole(altered):
    """EfficientNet-Lite0 with its classifier, loaded by timm's own names."""
    card = altered("efficientnet_lite0")
    model = timm_source.create(card, pretrained=False, num_classes=1000)
    tensors = checkpoint.read_tensors(checkpoint.locate(card)).values()
    model.load_state_dict(dict(zip(model.state_dict(), tensors, strict=True)))
    return model.eval()


@pytest.fixture(scope="module")
def root(tmp_path_factory, whole, healthy):
    """A tiny ImageNet: each photograph lies where the network thinks that it belongs, but one."""
    root = tmp_path_factory.mktemp("data")
    for number, image in enumerate(natural_images()[:4]):
        with torch.inference_mode():
            batch = healthy.backbone.preprocess.normalize(healthy.backbone.preprocess.crop(image)[None])
            index = int(whole(batch).argmax()) if number else 7
        folder = root / "imagenet" / "val" / wnid(index)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(folder / f"{number}.png")
    return root


def test_top1_through_embed_is_that_of_the_whole_model(healthy, root):
    done = []
    finding = check_reference(healthy, root, done.append)
    assert finding.status == "warn" and "complete the folder" in finding.remedy
    assert (finding.values["top1"], finding.values["n"], sum(done)) == (75.0, 4, 4)
    assert finding.values["published"] == 75.1


@pytest.mark.parametrize(("published", "status"), [(75.1, "pass"), (99.9, "fail"), (5.0, "warn")])
def test_verdict_on_all_classes(healthy, root, monkeypatch, published, status):
    monkeypatch.setattr(of, "imagenet_val", lambda folder: (imagenet_val(folder)[0], 1000))
    reference = healthy.backbone.card.references[0].model_copy(update={"value": published})
    card = healthy.backbone.card.model_copy(update={"references": (reference,)})
    monkeypatch.setattr(healthy.backbone, "card", card)
    finding = check_reference(healthy, root)
    assert finding.status == status
    assert finding.values["low"] < 75 < finding.values["high"]


def test_without_data_it_says_what_is_missing(healthy, tmp_path):
    finding = check_reference(healthy, tmp_path)
    assert finding.status == "skip" and f"no folder {tmp_path / 'imagenet' / 'val'}" in finding.detail
    assert "75.1" in finding.detail


def test_without_number_or_classifier(altered, subject_of, root):
    assert check_reference(subject_of(altered("pixels")), root).detail == "the card holds no published score"
    probed = altered("mobilenetv2_trunk").model_copy(
        update={"references": (Reference(dataset="D", metric="linear_top1", value=71.5, source="S"),)}
    )
    assert "linear_top1 71.5 on D: to reproduce" in check_reference(subject_of(probed), root).detail
    reference = altered("efficientnet_lite0").references
    trunk = altered("mobilenetv2_trunk").model_copy(update={"references": reference})
    assert "no linear classifier" in check_reference(subject_of(trunk), root).detail


def test_the_classifier_is_the_checkpoints(healthy, whole):
    found = find_classifier(healthy.backbone)
    assert torch.equal(found.weight, whole.get_classifier().weight)
    assert torch.equal(found.bias, whole.get_classifier().bias)


def test_timms_classifier(altered, subject_of, monkeypatch):
    card = altered("timm:test_resnet.random")
    pretrained = card.model_copy(update={"weights": card.weights.model_copy(update={"pretrained": True})})
    backbone = subject_of(card).backbone
    monkeypatch.setattr(backbone, "card", pretrained)
    create = timm_source.create
    monkeypatch.setattr(timm_source, "create", lambda card, pretrained, num_classes=0: create(card, False, num_classes))
    assert find_classifier(backbone).in_features == backbone.width()


def test_a_folder_of_other_classes_is_refused(healthy, tmp_path, make_photos):
    make_photos(tmp_path / "imagenet" / "val")
    with pytest.raises(UserError, match="'ant', which is no class of ImageNet-1k"):
        check_reference(healthy, tmp_path)


def test_labels_are_imagenets_own(root):
    images, classes = imagenet_val(root / "imagenet" / "val")
    assert all(name.startswith(f"{wnid(label)}/") for name, label in zip(images.names, images.labels, strict=True))
    assert classes == len(np.unique(images.labels))


def test_interval():
    assert of._interval(0, 10)[0] == 0 and of._interval(10, 10)[1] == 1
    assert of._interval(10, 10)[0] == pytest.approx(0.025 ** (1 / 10))
