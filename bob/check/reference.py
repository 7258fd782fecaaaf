"""The published number on a card, reproduced where the data and the checkpoint's classifier are here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import beta
from timm.data import ImageNetInfo
from torch import nn

from bob.backbones import checkpoint
from bob.backbones import timm as timm_source
from bob.backbones.base import Backbone
from bob.cards import BackboneCard, Reference
from bob.check.base import Finding, Subject
from bob.data.base import ImageSet
from bob.data.folder import load_folder
from bob.data.loader import load_batches
from bob.errors import UserError
from bob.features.extract import Advance, BackingOff

CLASSES = 1000
MOST_IMAGES = 256
FOLDER = Path("imagenet") / "val"


def check_reference(subject: Subject, data_root: Path, advance: Advance = lambda count: None) -> Finding:
    """Classify some of ImageNet's validation images and compare top-1 with the card's.

    Args:
        subject: The backbone.
        data_root: Folder that may hold `imagenet/val/WNID/*.JPEG`.
        advance: Told how many more images are done.

    Raises:
        UserError: If the folder is there but is not ImageNet's, or an image cannot be read.
    """
    card = subject.backbone.card
    reference = next((r for r in card.references if _is_top1(r)), None)
    if reference is None:
        return Finding("reference", "skip", _without_top1(card))
    published = f"published top-1 {reference.value:.1f} ({reference.source})"
    folder = data_root / FOLDER
    if not folder.is_dir():
        return Finding("reference", "skip", f"{published}, but there is no folder {folder}")
    classifier = find_classifier(subject.backbone)
    if classifier is None:
        return Finding("reference", "skip", f"{published}, but the checkpoint has no linear classifier")
    images, classes = imagenet_val(folder)
    right = _classify(subject, classifier, images, advance)
    return _verdict(right, classes, reference)


def _without_top1(card: BackboneCard) -> str:
    if not card.references:
        return "the card holds no published score"
    published = ", ".join(f"{r.metric} {r.value:g} on {r.dataset}" for r in card.references)
    return f"{published}: to reproduce that takes more than the checkpoint's own classifier on a few images"


def find_classifier(backbone: Backbone) -> nn.Linear | None:
    """The checkpoint's own linear map from `embed`'s feature to ImageNet's 1000 classes; None if it has none."""
    card = backbone.card
    if card.feature.layer != "pre_logits" or card.feature.pooling != "default" or not card.weights.pretrained:
        return None
    find: dict[str, Callable[[BackboneCard, int], nn.Linear | None]] = {"timm": _from_timm, "checkpoint": _from_file}
    return find[card.weights.source](card, backbone.width()) if card.weights.source in find else None


def imagenet_val(folder: Path) -> tuple[ImageSet, int]:
    """The images below `folder/WNID/`, labelled in the order of ImageNet-1k, and how many classes there are.

    Raises:
        UserError: If a folder is none of the 1000 WordNet ids.
    """
    names, pools = load_folder(folder)
    info = ImageNetInfo()
    position = {info.index_to_label_name(index): index for index in range(CLASSES)}
    unknown = next((name for name in names if name not in position), None)
    if unknown is not None or "all" not in pools:
        raise UserError(
            f"{folder} has the folder '{unknown or names[0]}', which is no class of ImageNet-1k.",
            "Its folders must be WordNet ids, such as n01440764.",
        )
    images = pools["all"]
    images.labels = np.array([position[name] for name in names])[images.labels]
    return images, len(names)


def _from_timm(card: BackboneCard, width: int) -> nn.Linear | None:
    model: Any = timm_source.create(card, pretrained=True, num_classes=CLASSES)
    classifier = model.get_classifier()
    fits = isinstance(classifier, nn.Linear) and (classifier.out_features, classifier.in_features) == (CLASSES, width)
    return classifier if fits else None


def _from_file(card: BackboneCard, width: int) -> nn.Linear | None:
    """The one matrix (1000, D) and the one vector (1000,) of the checkpoint, whatever their names."""
    tensors = checkpoint.read_tensors(checkpoint.locate(card), card.weights.nest).values()
    matrices = [t for t in tensors if t.shape[:2] == (CLASSES, width) and t.numel() == CLASSES * width]
    vectors = [t for t in tensors if t.shape == (CLASSES,)]
    if len(matrices) != 1 or len(vectors) != 1:
        return None
    classifier = nn.Linear(width, CLASSES)
    classifier.load_state_dict({"weight": matrices[0].reshape(CLASSES, width), "bias": vectors[0]})
    return classifier


def _classify(subject: Subject, classifier: nn.Linear, images: ImageSet, advance: Advance) -> np.ndarray:
    """Whether each of some evenly spaced images is classified right: float64 (n,)."""
    chosen = np.unique(np.linspace(0, len(images) - 1, MOST_IMAGES).round().astype(int)).tolist()
    size, head = subject.how.images_per_batch, classifier.to(subject.how.device).eval()
    batches = [chosen[start : start + size] for start in range(0, len(chosen), size)]
    forward, predicted = BackingOff(subject.backbone, subject.how), []
    for batch in load_batches(images, batches, subject.backbone.preprocess.crop, subject.how.workers):
        with torch.inference_mode():
            predicted.append(head(forward(batch.images).float()).argmax(dim=1).cpu())
        advance(len(batch.indices))
    return (torch.cat(predicted).numpy() == images.labels[chosen]).astype(np.float64)


def _verdict(right: np.ndarray, classes: int, reference: Reference) -> Finding:
    low, high = (100 * end for end in _interval(int(right.sum()), len(right)))
    value = 100 * float(right.mean())
    values = {
        "top1": value,
        "low": low,
        "high": high,
        "n": len(right),
        "classes": classes,
        "published": reference.value,
    }
    detail = f"top-1 {value:.1f} [{low:.1f}, {high:.1f}] on {len(right)} images of {classes} classes; "
    detail += f"published {reference.value:.1f} ({reference.source})"
    if classes < CLASSES:
        remedy = f"The number is for all {CLASSES} classes: complete the folder to compare."
        return Finding("reference", "warn", detail, remedy, values)
    if high < reference.value:
        remedy = "Something differs from how it was evaluated: weights, preprocessing or architecture; see above."
        return Finding("reference", "fail", detail, remedy, values)
    if low > reference.value:
        return Finding("reference", "warn", detail, "Better than published: check that these are val images.", values)
    return Finding("reference", "pass", detail, values=values)


def _interval(hits: int, n: int) -> tuple[float, float]:
    """95% interval of a proportion.

    Source: Clopper & Pearson 1934; unlike a bootstrap it has a width when all are right.
    """
    low = float(beta.ppf(0.025, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
    return low, high


def _is_top1(reference: Reference) -> bool:
    return reference.dataset.lower().startswith("imagenet-1k val") and reference.metric == "top1"
