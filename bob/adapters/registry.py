"""Adapter names, as task cards write them."""

from __future__ import annotations

from bob.adapters.base import Adapter
from bob.adapters.classification import Classification
from bob.adapters.multilabel import MultiLabel

ADAPTERS: dict[str, type[Adapter]] = {"classification": Classification, "multilabel": MultiLabel}
