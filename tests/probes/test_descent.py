"""The descent finds the minimum of a quadratic function, estimates its height above it, and ends there."""

from __future__ import annotations

import pytest
import torch

from bob.probes.descent import Point, State, descend


def _states(exact_preconditioner: bool, *dtypes: torch.dtype) -> tuple[list[State], torch.Tensor]:
    """A descent from zero on 1/2 t^T A t - b^T t + 1, with A of condition number 1e4; and the minimum."""
    generator = torch.Generator().manual_seed(0)
    turned, _ = torch.linalg.qr(torch.randn(12, 12, generator=generator, dtype=torch.float64))
    matrix = turned @ torch.diag(torch.logspace(0, 4, 12, dtype=torch.float64)) @ turned.T
    target = torch.randn(12, 1, generator=generator, dtype=torch.float64)

    def evaluate(theta: torch.Tensor, dtype: torch.dtype) -> Point:
        off = theta - target
        gradient = (matrix.to(dtype) @ off.to(dtype)).double()
        return Point(theta, float(0.5 * (off * gradient).sum()) + 1, gradient, torch.ones(1, dtype=torch.float64))

    def precondition(gradient: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return torch.linalg.solve(matrix, gradient) if exact_preconditioner else gradient / 1e4

    return list(descend(evaluate, precondition, torch.zeros_like(target), *dtypes)), target


def test_knowing_the_curvature_one_step_is_enough() -> None:
    states, target = _states(True, torch.float64)
    assert states[0].excess == pytest.approx(states[0].point.value - 1)
    torch.testing.assert_close(states[1].point.theta, target)


def test_without_it_the_minimum_is_found_and_said_to_be() -> None:
    for dtypes in ((torch.float64,), (torch.float32, torch.float64)):
        states, target = _states(False, *dtypes)
        torch.testing.assert_close(states[-1].point.theta, target, rtol=0, atol=1e-4)
        assert states[-1].end and states[-1].exact
        assert [state.exact for state in states] == sorted(state.exact for state in states)
        assert (len(dtypes) == 1) == all(state.exact for state in states)


def test_within_a_precision_the_value_only_falls() -> None:
    states, _ = _states(False, torch.float32, torch.float64)
    for exact in (False, True):
        values = [state.point.value for state in states if state.exact == exact]
        assert values == sorted(values, reverse=True)
