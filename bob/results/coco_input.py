"""Annotated objects and detections of many images laid flat, each detection judged by its box and its mask."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bob.data.objects import Detections, Objects
from bob.errors import UserError
from bob.results.coco_matching import Bools, Ints, Outcome, Regions, match, places, ranges_of

MOST_OF_A_CLASS = 100  # detections of one class in an image that count, the surest: COCO's maxDets
MOST_OF_AN_IMAGE = 300  # detections of an image that count where annotation is federated: LVIS's max_dets


def flatten(
    truths: Sequence[Objects], detections: Sequence[Detections], images: int, classes: int, federated: bool
) -> dict[str, Any]:
    """Judge detections: the arrays of `DetectionPredictions`, by name; see its `from_detections`."""
    _check(truths, detections, images, classes, federated)
    image_o, label_o = _spread(truths), _labels(truths)
    order_o = np.argsort(image_o * classes + label_o, kind="stable")
    image_d, label_d = _spread(detections), _labels(detections)
    scores = np.concatenate([each.scores for each in detections]).astype(np.float32)
    order_d = _counted(image_d, label_d, scores, classes, truths if federated else None)
    objects, found = _Source(truths, order_o, image_o, label_o), _Source(detections, order_d, image_d, label_d)
    crowd = np.concatenate([each.crowd for each in truths]).astype(bool)[order_o]
    areas = np.concatenate([each.areas for each in truths]).astype(np.float64)[order_o]
    unsure = _partial(truths, found.image, found.label)
    result: dict[str, Any] = {"object_images": objects.image, "object_labels": objects.label}
    result |= {"object_ranges": ranges_of(areas, crowd)}
    result |= {"images": found.image, "labels": found.label, "scores": scores[order_d]}
    for shape in ("box", "mask") if _have_masks(truths, detections) else ("box",):
        result[shape] = _judge(objects, areas, crowd, found, unsure, shape, classes)
    return result


class _Source:
    """The boxes, masks, images and labels of all images in one order."""

    def __init__(self, parts: Sequence[Objects] | Sequence[Detections], order: Ints, image: Ints, label: Ints) -> None:
        self._parts = parts
        self._order = order
        self.image, self.label = image[order], label[order]

    def boxes(self) -> NDArray[np.float64]:
        """(k, 4) of left, top, width and height."""
        corners = np.concatenate([each.boxes for each in self._parts]).reshape(-1, 4).astype(np.float64)[self._order]
        return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)

    def masks(self) -> list[dict[str, Any]]:
        """K masks in COCO's run lengths."""
        every = list(chain.from_iterable(each.rles or () for each in self._parts))
        return [every[index] for index in self._order.tolist()]


def _judge(
    objects: _Source,
    areas: NDArray[np.float64],
    crowd: Bools,
    found: _Source,
    unsure: Bools,
    shape: str,
    classes: int,
) -> Outcome:
    group_o, group_d = (source.image * classes + source.label for source in (objects, found))
    if shape == "box":
        boxes = found.boxes()
        own = Regions(group_d, boxes[:, 2] * boxes[:, 3], boxes)
        return match(Regions(group_o, areas, objects.boxes()), crowd, own, unsure)
    from faster_coco_eval.core import mask as coco_mask

    masks = found.masks()
    sizes = np.asarray(coco_mask.area(masks), dtype=np.float64) if masks else np.zeros(0)
    return match(Regions(group_o, areas, objects.masks()), crowd, Regions(group_d, sizes, masks), unsure)


def _counted(
    image: Ints, label: Ints, scores: NDArray[np.float32], classes: int, federated: Sequence[Objects] | None
) -> Ints:
    """The detections that count, by image, class and falling score; among equals in the order given."""
    if federated is None:
        group = image * classes + label
        order = np.lexsort((-scores, group))
        return order[places(group[order]) < MOST_OF_A_CLASS]
    surest = np.lexsort((-scores, image))
    surest = surest[places(image[surest]) < MOST_OF_AN_IMAGE]
    known = np.concatenate([_is_known(truth, own) for truth, own in _by_image(federated, image[surest], label[surest])])
    kept = surest[known]
    return kept[np.lexsort((-scores[kept], label[kept], image[kept]))]


def _is_known(truth: Objects, labels: Ints) -> Bools:
    """Whether the image says if it shows each label; an image without negatives says it of all."""
    if truth.negatives is None:
        return np.ones(len(labels), dtype=bool)
    return np.isin(labels, np.concatenate([truth.labels, np.array(truth.negatives, dtype=np.int64)]))


def _partial(truths: Sequence[Objects], image: Ints, label: Ints) -> Bools:
    """Which detections are of a class of which their image need not show every object."""
    if not any(truth.partial for truth in truths):
        return np.zeros(len(image), dtype=bool)
    return np.concatenate([np.isin(own, truth.partial) for truth, own in _by_image(truths, image, label)])


def _by_image(truths: Sequence[Objects], image: Ints, label: Ints) -> list[tuple[Objects, Ints]]:
    """Each image's truth with the labels of its detections; (d,) rising images."""
    return list(zip(truths, np.split(label, np.searchsorted(image, np.arange(1, len(truths)))), strict=True))


def _spread(parts: Sequence[Objects] | Sequence[Detections]) -> Ints:
    """The image of each member."""
    return np.repeat(np.arange(len(parts)), [len(each) for each in parts])


def _labels(parts: Sequence[Objects] | Sequence[Detections]) -> Ints:
    return np.concatenate([each.labels for each in parts]).astype(np.int64)


def _have_masks(truths: Sequence[Objects], detections: Sequence[Detections]) -> bool:
    """Whether objects and detections have masks; an image without members says nothing either way."""
    have = []
    for name, parts in (("objects", truths), ("detections", detections)):
        said = [each.rles is not None and len(each.rles) == len(each) for each in parts if len(each)]
        if len(set(said)) > 1:
            raise ValueError(f"Expected all {name} or none to have masks, but got {sum(said)} of {len(said)} images.")
        have.append(said[0] if said else any(each.rles is not None for each in parts))
    return all(have)


def _check(
    truths: Sequence[Objects], detections: Sequence[Detections], images: int, classes: int, federated: bool
) -> None:
    for name, parts in (("truths", truths), ("detections", detections)):
        if len(parts) != images:
            raise ValueError(f"Expected `{name}` to be of {images} images, but got {len(parts)}.")
        labels = _labels(parts)
        if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
            got = f"{labels.min()} to {labels.max()}"
            raise ValueError(f"Expected labels of `{name}` to be at least 0 and less than {classes}, but got {got}.")
    if not federated and any(truth.negatives is not None or truth.partial for truth in truths):
        raise ValueError("Expected `federated` to be true where images say what they do not show, but got false.")
    if not all(np.isfinite(each.scores).all() for each in detections):
        raise UserError("Expected the scores of all detections to be finite, but got some that are not.")
