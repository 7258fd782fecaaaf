"""faiss' exact index finds what the exact search finds; a limited depth and wrong indices are said."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from bob.data.relevance import ByClass
from bob.errors import UserError
from bob.retrieval.faiss_search import FaissIndex, rank_by_faiss
from bob.retrieval.search import Places, Space, rank_exactly

CPU = Space(torch.device("cpu"))
needs_faiss = pytest.mark.skipif(find_spec("faiss") is None, reason="faiss is not installed")


def _case(n: int = 40, m: int = 300) -> tuple[np.ndarray, np.ndarray, ByClass]:
    rng = np.random.default_rng(0)
    queries, database = (rng.normal(size=(rows, 16)).astype(np.float32) for rows in (n, m))
    return queries, database, ByClass(rng.integers(9, size=n), rng.integers(9, size=m))


def _same(a: Places, b: Places) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("starts", "ranks", "kind_of"))


@needs_faiss
def test_flat_index_equals_the_exact_search() -> None:
    case = _case()
    assert _same(rank_by_faiss(*case, CPU, FaissIndex()), rank_exactly(*case, CPU))


@needs_faiss
def test_depth_cuts_the_ranking() -> None:
    case = _case()
    whole, cut = rank_exactly(*case, CPU), rank_by_faiss(*case, CPU, FaissIndex(depth=20))
    assert np.array_equal(whole.starts, cut.starts)
    assert np.array_equal(cut.ranks, np.where(whole.ranks < 20, whole.ranks, -1))


@needs_faiss
@pytest.mark.parametrize("index", [FaissIndex("HNSW16"), FaissIndex("IVF8,Flat", nprobe=8)])
def test_approximate_indices_find_most(index: FaissIndex) -> None:
    case = _case()
    whole, found = rank_exactly(*case, CPU), rank_by_faiss(*case, CPU, index)
    first = whole.starts[:-1]
    assert (whole.ranks[first] == found.ranks[first]).mean() > 0.7


@needs_faiss
def test_a_constant_scorer_gets_nothing_from_the_order_of_files() -> None:
    queries, database = np.ones((200, 4), np.float32), np.ones((500, 4), np.float32)
    relevance = ByClass(np.zeros(200, np.int64), (np.arange(500) >= 250).astype(np.int64))
    shares = [
        (rank_by_faiss(queries, database, relevance, CPU, FaissIndex(depth=100), seed).ranks >= 0).mean()
        for seed in range(5)
    ]
    assert np.mean(shares) == pytest.approx(0.2, abs=0.05)


@needs_faiss
@pytest.mark.parametrize("index", [FaissIndex("Nonsense"), FaissIndex("IVF8,Flat,"), FaissIndex("Flat", nprobe=4)])
def test_wrong_index_is_one_line(index: FaissIndex) -> None:
    with pytest.raises(UserError, match="faiss cannot build") as caught:
        rank_by_faiss(*_case(), CPU, index)
    assert "\n" not in str(caught.value) and ".cpp" not in str(caught.value)


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match="faiss is not installed"):
        rank_by_faiss(*_case(), CPU, FaissIndex())
