"""From the shape of a module's output for one image to how it is read as a map."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Form = Literal["NCHW", "NHWC", "tokens"]
# More extra tokens (class, distillation, registers) than this, and the tokens are something else than image patches.
_MOST_EXTRA_TOKENS = 16


@dataclass(frozen=True)
class Reading:
    """How an output is read as a map.

    Attributes:
        form: Order of its axes; `tokens` is (B, N, C).
        stride: Input pixels from one place of the map to the next.
        extra: Tokens before those of the patches.
    """

    form: Form
    stride: int
    extra: int = 0


def readings(shape: tuple[int, ...], size: tuple[int, int]) -> tuple[Reading, ...]:
    """The ways in which an output for one image of this size may be a map."""
    if len(shape) == 4 and shape[0] == 1:
        both: list[tuple[Form, int | None]] = [
            ("NCHW", _stride((shape[2], shape[3]), size)),
            ("NHWC", _stride((shape[1], shape[2]), size)),
        ]
        return tuple(Reading(form, stride) for form, stride in both if stride)
    return _token_readings(shape[1], size) if len(shape) == 3 and shape[0] == 1 else ()


def _stride(grid: tuple[int, int], size: tuple[int, int]) -> int | None:
    """Stride of a grid, which may be off a whole number for lack of padding; None if it is no grid of this image."""
    (rows, columns), (height, width) = grid, size
    if rows * columns <= 1 or rows > height or columns > width or abs(rows * width / height - columns) > 1:
        return None
    power = 2 ** round(math.log2(math.sqrt(height * width / (rows * columns))))
    exact = height // rows
    if _fits(grid, size, power) or (exact * rows, exact * columns) != (height, width):
        return power
    return exact


def _fits(grid: tuple[int, int], size: tuple[int, int], stride: int) -> bool:
    return all(edge in (whole // stride, -(-whole // stride)) for edge, whole in zip(grid, size, strict=True))


def _token_readings(count: int, size: tuple[int, int]) -> tuple[Reading, ...]:
    """The finest grid of square patches that leaves a few extra tokens."""
    height, width = size
    for patch in range(1, min(size) + 1):
        patches = (height // patch) * (width // patch)
        if height % patch or width % patch or patches > count:
            continue
        return (Reading("tokens", patch, count - patches),) if count - patches <= _MOST_EXTRA_TOKENS else ()
    return ()
