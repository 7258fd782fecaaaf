"""Image retrieval: queries against a database by the cosine of their features, and how what they find is judged."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from bob.adapters.base import Adapter, Inputs, Outcome, Protocol, named
from bob.adapters.modifiers import Shots
from bob.backbones.base import Backbone
from bob.data.base import Dataset
from bob.data.relevance import Relevance
from bob.data.retrieval import DATABASE, QUERY, RetrievalDataset
from bob.errors import UserError
from bob.features.multiscale import MULTISCALE, require_scales
from bob.features.reading import FEATURE, Reading
from bob.results.retrieval import RetrievalPredictions
from bob.retrieval.faiss_search import FaissIndex, rank_by_faiss
from bob.retrieval.search import Features, Places, Space, rank_exactly
from bob.retrieval.whitening import Whitening

_FAISS, _MULTISCALE = "faiss", "multiscale"  # modifiers


@dataclass(frozen=True)
class Search:
    """A search that is ready to be carried out; what is relevant comes last, when nothing can be chosen by it.

    Attributes:
        queries: (n, D) features.
        database: (m, D) features.
        space: How they are compared.
        index: By faiss; None for exact search.
        seed: Of the order of ties.
        seconds: Where the time that it takes is noted, as `search`.
    """

    queries: Features
    database: Features
    space: Space
    index: FaissIndex | None
    seed: int
    seconds: dict[str, float]

    def places(self, relevance: Relevance) -> Places:
        """Where each query's relevant images stand in its ranking of the database."""
        started = time.perf_counter()
        given = (self.queries, self.database, relevance, self.space)
        found = rank_exactly(*given, self.seed) if self.index is None else rank_by_faiss(*given, self.index, self.seed)
        self.seconds["search"] = time.perf_counter() - started
        return found


@dataclass(frozen=True, kw_only=True)
class Searching(Protocol):
    """Nearest neighbours by cosine similarity, with nothing to choose.

    Attributes:
        whitened: Whether features are whitened by what the database says of them.
        dims: How many directions whitening keeps; None for all that have variance.
        index: By faiss; None for exact search.
        multiscale: Whether features of three scales are averaged.
    """

    whitened: bool = False
    dims: int | None = None
    index: FaissIndex | None = None
    multiscale: bool = False

    @property
    def readings(self) -> tuple[Reading, ...]:
        """See `Protocol.readings`."""
        return MULTISCALE if self.multiscale else (FEATURE,)

    @property
    def settings(self) -> frozenset[str]:
        """See `Protocol.settings`."""
        return frozenset({"dims"} if self.whitened else ()) | frozenset(vars(self.index) if self.index else ())

    def as_dict(self) -> dict[str, Any]:
        """See `Protocol.as_dict`."""
        said = {"whitened": self.whitened, "dims": self.dims, "index": self.index and vars(self.index)}
        return super().as_dict() | {key: value for key, value in said.items() if value}

    def configured(self, overrides: dict[str, str], max_steps: int | None, max_hours: float | None) -> Protocol:
        """See `Protocol.configured`: `dims` of whitening; `index`, `depth` and `nprobe` of faiss.

        Raises:
            UserError: If a number is none.
        """
        numbers = {key: _number(key, value) for key, value in overrides.items() if key != "index"}
        dims = numbers.pop("dims", self.dims)
        if self.index is None:
            return replace(self, dims=dims)
        index = replace(self.index, index=overrides.get("index", self.index.index), **numbers)
        return replace(self, dims=dims, index=index)

    def expanded(self, backbone: Backbone) -> list[Protocol]:
        """See `Protocol.expanded`; raises `UserError` if the backbone takes images of one size only."""
        if self.multiscale:
            require_scales(backbone)
        return [self]

    def with_scales(self) -> Protocol:
        """See `Protocol.with_scales`."""
        return replace(self._without(self.multiscale), multiscale=True)

    def with_engine(self, name: str) -> Protocol:
        """See `Protocol.with_engine`; the one there is is faiss."""
        if name != _FAISS:
            return super().with_engine(name)
        return replace(self._without(self.index is not None), index=FaissIndex())

    def with_shots(self, shots: Shots) -> Protocol:
        """See `Protocol.with_shots`; a search learns from no image."""
        raise UserError(f"The protocol '{self.name}' sees no training image.", f"Take it without '@{shots}'.")

    def run(self, given: Inputs, seed: int) -> Outcome:
        """See `Protocol.run`; the search itself waits until it is judged."""
        started = time.perf_counter()
        queries, database = (self._features(given, split) for split in (QUERY, DATABASE))
        space = Space(given.how.device)
        width = queries.shape[1]
        if self.whitened:
            whitening = Whitening(database, space, self.dims)
            space, width = Space(given.how.device, whitening), whitening.dims
        seconds = {"prepare": time.perf_counter() - started}
        search = Search(queries, database, space, self.index, seed, seconds)
        return Outcome(search, {}, [], tuple(self._notes(given.dataset, width)), seconds, width)

    def _features(self, given: Inputs, split: str) -> np.ndarray:
        """(n, D); of several scales the mean of normalised features."""
        parts = [given.features(split, reading) for reading in self.readings]
        if len(parts) == 1:
            return parts[0]
        return np.mean(
            [part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-30) for part in parts], axis=0
        )

    def _notes(self, dataset: Dataset, width: int) -> list[str]:
        notes = [
            f"{what}: {dataset.facts[key]}"
            for key, what in {
                "queries_with_nothing_to_find": "queries left out because they have nothing to find",
                "classes_of_one_image": "classes that have one image, which is searched but does not ask",
            }.items()
            if key in dataset.facts
        ]
        database = len(dataset.splits[DATABASE])
        if self.index and self.index.depth < database:
            notes.append(f"of {database} images the first {self.index.depth} of each ranking were looked at")
        return notes + ([f"whitened in {width} directions"] if self.whitened else [])

    def _without(self, has_it: bool) -> Searching:
        """Itself, which must not have a modifier yet."""
        if has_it:
            raise UserError(f"'{self.title}' has a modifier twice.", "Give it once.")
        return self

    def _modifiers(self) -> list[str]:
        own = {_FAISS: self.index is not None, _MULTISCALE: self.multiscale}
        return [*super()._modifiers(), *(name for name, is_on in own.items() if is_on)]


COSINE = Searching(
    name="cosine",
    version=1,
    description="Exact nearest neighbours by cosine similarity; nothing to choose. @faiss, @multiscale.",
)
WHITENED = Searching(
    name="whitened",
    version=1,
    description="As cosine, on features whitened by PCA of the database's. @faiss, @multiscale.",
    whitened=True,
)


class Retrieval(Adapter):
    """Instance and class retrieval: mean average precision and the like of rankings without training."""

    protocols: ClassVar = named([COSINE, WHITENED])
    choose_by: ClassVar = ("retrieval_map",)
    tested: ClassVar[str] = QUERY

    def judge(self, dataset: Dataset, split: str, predicted: Search) -> RetrievalPredictions:
        """See `Adapter.judge`; carries the search out."""
        if not isinstance(dataset, RetrievalDataset):
            raise ValueError(f"Expected `dataset` to be a RetrievalDataset, but got {type(dataset).__name__}.")
        relevance, queries = dataset.answers(), dataset.splits[split]
        places = predicted.places(relevance)
        return RetrievalPredictions(
            names=queries.names,
            labels=queries.labels,
            classes=dataset.classes,
            starts=places.starts,
            ranks=places.ranks,
            kind_of=places.kind_of,
            kinds=tuple(relevance.kinds),
            levels=relevance.levels,
            primary=relevance.primary,
            database=len(dataset.splits[DATABASE]),
        )


def _number(key: str, value: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,8}", value):
        raise UserError(f"'{value}' is no {key}.", f"Say it as a positive whole number: --set {key}=64.")
    return int(value)
