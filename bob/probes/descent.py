"""L-BFGS for a convex function whose curvature is roughly known, first in float32 and then in float64."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

_PAIRS = 20  # steps remembered
_TRIES = 30  # step lengths tried before it is said that the function goes no lower
_DECREASE = 1e-4  # share of the slope's promise that a step must keep
_EASE = 1.35  # by which the known curvature may fall at a step; what a step too long makes of it is not to be believed
_ROUGH = 1e-7  # what float32 can still tell apart, as a share of the function's value


@dataclass
class Point:
    """A point of the function: its value, its gradient, and what the function knows of its curvature there."""

    theta: torch.Tensor
    value: float
    gradient: torch.Tensor
    curvature: torch.Tensor


Evaluate = Callable[[torch.Tensor, torch.dtype], Point]
Precondition = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Pairs = deque[tuple[torch.Tensor, torch.Tensor, float]]  # steps, the changes of the gradient, their products


@dataclass
class State:
    """Where a descent is: the point, and how far its value is estimated to be above the minimum.

    `exact` says that it is computed as exactly as it will be, and `end` that no step lowers the value further.
    """

    point: Point
    excess: float
    exact: bool
    end: bool


def descend(
    evaluate: Evaluate, precondition: Precondition, theta: torch.Tensor, *dtypes: torch.dtype
) -> Iterator[State]:
    """Go down from theta, yielding before each step, until none lowers the value.

    The excess is half the product of the gradient with the step that L-BFGS proposes: of a quadratic function with
    the curvature learned so far, exactly its height above the minimum.

    Args:
        evaluate: Gives the point at theta, its products computed in a dtype.
        precondition: Multiplies a gradient by the rough inverse of the curvature.
        theta: Where to begin.
        dtypes: In which to compute, in turn; all but the last only as far as float32 tells values apart. What was
            learned of the curvature is kept from one to the next.

    Source: Nocedal and Wright 2006, Numerical Optimization, algorithms 3.1 and 7.4.
    """
    pairs: Pairs = deque(maxlen=_PAIRS)
    for dtype in dtypes:
        point = evaluate(theta, dtype)
        for state in _descend_in(dtype, evaluate, precondition, point, pairs):
            theta = state.point.theta
            state.exact = dtype == dtypes[-1]
            yield state
            if not state.exact and state.excess <= _ROUGH * abs(state.point.value):
                break


def _descend_in(
    dtype: torch.dtype, evaluate: Evaluate, precondition: Precondition, point: Point, pairs: Pairs
) -> Iterator[State]:
    """See `descend`; yields before each step, leaving it to the caller to say which states are exact."""
    end = False
    while not end:
        step = -_inverse_product(pairs, point.gradient, _at(precondition, point))
        slope = _dot(point.gradient, step)
        found = _go(evaluate, dtype, point, step, slope) if slope < 0 else None
        end = found is None
        yield State(point, -slope / 2, exact=False, end=end)
        if found is not None:
            _learn(pairs, point, found)
            point = found


def _at(precondition: Precondition, point: Point) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda gradient: precondition(gradient, point.curvature)


def _learn(pairs: Pairs, point: Point, found: Point) -> None:
    """Keep what the step from point to found says of the curvature."""
    step, change = found.theta - point.theta, found.gradient - point.gradient
    product = _dot(step, change)
    if product > 0:  # always, but for rounding
        pairs.append((step, change, product))
    found.curvature = torch.minimum(torch.maximum(found.curvature, point.curvature / _EASE), point.curvature)


def _go(evaluate: Evaluate, dtype: torch.dtype, point: Point, step: torch.Tensor, slope: float) -> Point | None:
    """Take the step, or as much of it as lowers the value enough."""
    length = 1.0
    for _ in range(_TRIES):
        found = evaluate(point.theta + length * step, dtype)
        if found.value <= point.value + _DECREASE * length * slope and found.value < point.value:
            return found
        # The minimum of the parabola through what is known, within bounds.
        bend = 2 * (found.value - point.value - length * slope)
        length *= min(0.5, max(0.1, -slope * length / bend)) if bend > 0 else 0.1
    return None


def _inverse_product(
    pairs: Pairs,
    gradient: torch.Tensor,
    initial: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """The inverse of the curvature, as learned from steps and the changes of the gradient, times a gradient."""
    shares = []
    for step, change, product in reversed(pairs):
        shares.append(_dot(step, gradient) / product)
        gradient = gradient - shares[-1] * change
    direction = initial(gradient)
    if pairs:
        _, change, product = pairs[-1]
        direction = direction * (product / _dot(change, initial(change)))
    for (step, change, product), share in zip(pairs, reversed(shares), strict=True):
        direction = direction + (share - _dot(change, direction) / product) * step
    return direction


def _dot(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.sum(one * other))
