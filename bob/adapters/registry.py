"""Adapter names, as task cards write them."""

from __future__ import annotations

from bob.adapters.base import Adapter
from bob.adapters.classification import Classification
from bob.adapters.detection import Detection
from bob.adapters.factors import Factors
from bob.adapters.multilabel import MultiLabel
from bob.adapters.ood import OOD
from bob.adapters.ood_detection import OODDetection
from bob.adapters.retrieval import Retrieval
from bob.adapters.segmentation import Segmentation

ADAPTERS: dict[str, type[Adapter]] = {
    "classification": Classification,
    "multilabel": MultiLabel,
    "detection": Detection,
    "segmentation": Segmentation,
    "ood": OOD,
    "ood_detection": OODDetection,
    "factors": Factors,
    "retrieval": Retrieval,
}
