"""Training features as a bank of directions: the nearest of each query, exactly, in chunks of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

# Together these bound memory whatever the number of images: a few hundred MB at a width of 768.
_BANK = 1 << 14  # training images held at once as float32 directions
_ELEMENTS = 1 << 23  # similarities held at once
_WORKING_ROWS = 1 << 10  # rows that one thread takes at once

_SPARE = 32  # candidates beyond k; so many may lie within rounding of the k-th before one must look more closely
_SAMPLE = 1 << 10  # training images whose mean is taken off before bfloat16
_GROUP = 16  # similarities that share one maximum when candidates are sought


class Bank:
    """Training features as they were given, looked through in chunks.

    Products of low precision name candidates: k and some to spare. How far off such a product can be is known, so it is
    known whether an image beyond the candidates may be nearer than the k-th. The candidates are then measured in
    float64. Processors that multiply bfloat16 begin with that; queries for which it cannot tell are asked again in
    float32, and where this cannot tell either, in float64 altogether.

    Attributes:
        features: (n, D), not copied.
        lengths: (n,) float64; 1 in place of 0.
    """

    def __init__(self, features: np.ndarray, device: str) -> None:
        self.features = features
        self._device = torch.device(device)
        # Apple's devices have no float64, so there the processor keeps the last digits.
        self._wide = torch.device("cpu") if self._device.type == "mps" else self._device
        self.lengths = _lengths(features)
        coarse = self._device.type == "cpu" and _multiplies_bfloat16()
        self._dtypes = (torch.bfloat16, torch.float32) if coarse else (torch.float32,)
        sample = np.linspace(0, len(features) - 1, min(len(features), _SAMPLE)).astype(np.int64)
        mean = _directions(features[sample], self.lengths[sample], np.float32).mean(axis=0)
        self._mean = torch.from_numpy(mean).to(self._device)

    def nearest(self, features: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return float64 similarities (m, k) to the nearest, descending, and their positions (m, k), for (m, D)."""
        queries = torch.from_numpy(_directions(features, _lengths(features), np.float64))
        exact = queries.new_empty(len(queries), k)
        positions = torch.empty(exact.shape, dtype=torch.long)
        left = torch.arange(len(queries))
        for dtype in self._dtypes:
            candidates, near = self._candidates(queries[left], k, dtype)
            sure = ~near[:, -1] if near.shape[1] < len(self.features) else torch.ones_like(near[:, -1])
            if sure.any():
                done = left[sure]
                exact[done], positions[done] = self._measured(queries[done], candidates[sure], near[sure].sum(dim=1), k)
            left = left[~sure]
            if not len(left):
                return exact.numpy(), positions.numpy()
        exact[left], positions[left] = self._exhaustive(queries[left], k)
        return exact.numpy(), positions.numpy()

    def _candidates(self, queries: torch.Tensor, k: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions (m, c) of the c > k, or all, with the largest products, descending, and which of them are near.

        What is not near is neither among the k nearest nor equal to one of them. What is no candidate is, by its
        product, no nearer than the last candidate.
        """
        spare = _SPARE if dtype == torch.float32 else _SPARE + k // 2
        values, positions, error = self._products(queries, min(k + spare, len(self.features)), dtype)
        # Rounding of the product itself, which float32's error already holds, goes by its size.
        rounding = 0.0 if dtype == torch.float32 else torch.finfo(dtype).eps / 2
        least = values[:, k - 1 : k] - values[:, k - 1 : k].abs() * rounding - error
        return positions, values + values.abs() * rounding + error >= least

    def _products(
        self, queries: torch.Tensor, keep: int, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor, float]:
        """The `keep` largest products, descending, as float64, their positions, and how far off one may be.

        The products of bfloat16 are those with the training directions less a mean, which for one query are all the
        same amount smaller: where all directions are much alike, what remains fills the few digits.
        """
        asked, lost, _ = _rounded(queries.float().to(self._device), dtype)
        values = asked.new_full((len(asked), keep), -torch.inf)
        positions = torch.zeros(values.shape, dtype=torch.long, device=self._device)
        error = product_error(asked.shape[1])
        with _full_float32():
            buffer = asked.new_empty(max(_ELEMENTS, _BANK))  # fresh memory for each product would cost time
            for start, directions in self._chunks(np.float32, self._device):
                chunk = directions
                if dtype != torch.float32:
                    chunk, lost_here, length = _rounded(directions - self._mean, dtype)
                    error = max(error, _error_of_rounded(asked.shape[1], lost, length, lost_here))
                for rows in slices(len(asked), _ELEMENTS // len(chunk)):
                    some = asked[rows]
                    similarity = buffer[: len(some) * len(chunk)].view(len(some), len(chunk))
                    found, columns = _largest(torch.mm(some, chunk.T, out=similarity), keep)
                    values[rows], order = torch.cat([values[rows], found], dim=1).topk(keep, sorted=False)
                    positions[rows] = torch.cat([positions[rows], columns + start], dim=1).gather(1, order)
        values, order = values.sort(dim=1, descending=True)
        return values.cpu().double(), positions.gather(1, order).cpu(), error

    def _measured(
        self, queries: torch.Tensor, candidates: torch.Tensor, near: torch.Tensor, k: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Exact similarities (m, k) of the k nearest candidates (m, c), and their positions.

        The first near (m,) candidates of each query are looked at, at the least.
        """
        directions, positions, enough = queries.numpy(), candidates.numpy(), near.numpy()
        exact = np.full(positions.shape, -np.inf)

        def measure(rows: slice) -> None:
            # Not a matrix product: einsum adds up every pair alike, wherever it stands, so equal vectors stay equal.
            width = enough[rows].max()
            at = np.sort(positions[rows, :width], axis=1)  # among equals the first in the training set win
            positions[rows, :width] = at
            products = np.einsum("qcd,qd->qc", self.features[at], directions[rows], dtype=np.float64)
            exact[rows, :width] = products / self.lengths[at]

        _in_parallel(measure, len(positions), _WORKING_ROWS // k)
        return _first_nearest(torch.from_numpy(exact), torch.from_numpy(positions), k)

    def _exhaustive(self, queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """As `_measured`, of all training images, by float64 products; not for the many."""
        parts, queries = [], queries.to(self._wide)
        for rows in slices(len(queries), _ELEMENTS // min(_BANK, len(self.features))):
            exact = queries.new_empty(len(queries[rows]), 0)
            positions = torch.empty(exact.shape, dtype=torch.long, device=self._wide)
            for start, chunk in self._chunks(np.float64, self._wide):
                found = queries[rows] @ chunk.T
                columns = torch.arange(start, start + len(chunk), device=self._wide).expand_as(found)
                exact, positions = torch.cat([exact, found], dim=1), torch.cat([positions, columns], dim=1)
                exact, positions = _first_nearest(exact, positions, min(k, exact.shape[1]))
            parts.append((exact, positions))
        exact, positions = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
        return exact, positions

    def _chunks(self, dtype: type, device: torch.device) -> Iterator[tuple[int, torch.Tensor]]:
        """Directions (at most _BANK, D) of the training images in turn, and the position of the first."""
        whole_groups = len(self.features) // _GROUP * _GROUP
        for rows in (*slices(whole_groups, _BANK), *slices(len(self.features), start=whole_groups)):
            chunk = _directions(self.features[rows], self.lengths[rows], dtype)
            yield rows.start, torch.from_numpy(chunk).to(device)


def product_error(width: int) -> float:
    """The most by which a float32 product of two directions of so many numbers may differ from the similarity.

    With u = 2^-24, rounding each direction to float32 costs u, and each of `width` products and sums another, in
    whatever order they are added up and however large the parts are (Cauchy and Schwarz). One more for the similarity
    itself, which counts to float32's last digit; 1% for the squares of u.

    Source: Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.1.
    """
    return 1.01 * (width + 4) * 2.0**-24


def _error_of_rounded(width: int, lost_of_query: float, length: float, lost: float) -> float:
    """As `product_error`, before the product itself is rounded: |q'b' - qb| <= |q' - q| |b'| + |b' - b| |q|.

    No b, a direction less a mean of directions, is longer than 2; the factors leave room for that and for rounding.
    """
    return 1.01 * (lost_of_query * length + lost) + 3 * product_error(width)


def _rounded(rows: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, float, float]:
    """Float32 rows (n, D) in another type, the length of the most that a row lost by it, and that of the longest."""
    if dtype == rows.dtype:
        return rows, 0.0, 1.0
    rounded = rows.to(dtype)
    return rounded, float((rows - rounded).norm(dim=1).max()), float(rounded.float().norm(dim=1).max())


def _multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for products of bfloat16, summed in float32, and torch uses them."""
    has: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # an older torch does not say
    return torch.backends.mkldnn.is_available() and any(has.get(name) for name in ("avx512_bf16", "amx_bf16"))


@contextmanager
def _full_float32() -> Iterator[None]:
    """Products of float32 in float32, though the user may have asked for TF32 or bfloat16 elsewhere."""
    parents: list[Any] = [torch.backends.cuda, torch.backends.mkldnn]
    if not hasattr(parents[0].matmul, "fp32_precision"):  # torch < 2.9
        before = torch.get_float32_matmul_precision()
        try:
            torch.set_float32_matmul_precision("highest")
            yield
        finally:
            torch.set_float32_matmul_precision(before)
        return
    settings = [parent.matmul.fp32_precision for parent in parents]
    try:
        for parent in parents:
            parent.matmul.fp32_precision = "ieee"
        yield
    finally:
        for parent, setting in zip(parents, settings, strict=True):
            parent.matmul.fp32_precision = setting


def slices(n: int, rows: int = _WORKING_ROWS, start: int = 0) -> Iterator[slice]:
    """Cut range(start, n) into slices of at most so many rows, at least one."""
    rows = max(1, rows)
    return (slice(first, min(first + rows, n)) for first in range(start, n, rows))


def _lengths(features: np.ndarray) -> np.ndarray:
    """Float64 (n,), 1 in place of 0."""
    square = np.empty(len(features))

    def measure(rows: slice) -> None:
        np.einsum("nd,nd->n", features[rows], features[rows], dtype=np.float64, out=square[rows])

    _in_parallel(measure, len(features))
    return np.sqrt(np.where(square > 0, square, 1.0))


def _directions(features: np.ndarray, lengths: np.ndarray, dtype: type) -> np.ndarray:
    """Features (n, D) over their lengths, in float64 rounded once; memory for the result alone."""
    directions: np.ndarray = np.empty(features.shape, dtype)
    shares = 1 / lengths[:, None]

    def scale(rows: slice) -> None:
        np.multiply(features[rows], shares[rows], out=directions[rows], dtype=np.float64, casting="same_kind")

    _in_parallel(scale, len(features))
    return directions


def _in_parallel(work: Callable[[slice], None], n: int, rows: int = _WORKING_ROWS) -> None:
    """Do the rows of numpy arrays in slices, on as many threads as torch uses."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(work, slices(n, rows)))


def _largest(similarity: torch.Tensor, keep: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `keep` largest of each row, or all, unsorted, and their columns.

    They lie in the `keep` groups of the largest maxima: finding these reads the matrix once, without sorting it.
    """
    n, columns = similarity.shape
    groups = columns // _GROUP
    if columns % _GROUP or keep > groups // 2:
        values, where = similarity.topk(min(keep, columns), sorted=False)
        return values, where
    grouped = similarity.unflatten(1, (_GROUP, groups))  # of columns that lie apart, for whole vectors of maxima
    best = grouped.amax(dim=1).topk(keep, sorted=False).indices
    members = grouped.gather(2, best[:, None].expand(n, _GROUP, keep)).flatten(1)
    values, where = members.topk(keep, sorted=False)
    return values, best.gather(1, where % keep) + where // keep * groups


def _first_nearest(exact: torch.Tensor, positions: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of float64 similarities in the order of positions, the k largest and their positions; the first among equals."""
    # Products of equal vectors may differ in their last digits by where they stand in a matrix. Rounded from float64
    # to float32 they are equal, so neither chunks nor the order of queries decides between them.
    _, order = nearest(exact.float(), k)
    return exact.gather(1, order), positions.gather(1, order)


def nearest(similarity: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k largest of each row, descending, and their positions; among equals the first positions win.

    Args:
        similarity: (n, m).
        k: At most m.
    """
    values, positions = similarity.topk(k, dim=1)
    # topk breaks ties as it likes. Rows where more than k reach the k-th value, or where it has equals, are sorted.
    ties = (values[:, 1:] == values[:, :-1]).any(dim=1) | ((similarity >= values[:, -1:]).sum(dim=1) > k)
    if ties.any():
        ordered, order = similarity[ties].sort(dim=1, descending=True, stable=True)
        values[ties], positions[ties] = ordered[:, :k], order[:, :k]
    return values, positions
