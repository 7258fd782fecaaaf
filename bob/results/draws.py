"""The primary metric on resamples of the test samples, as a record keeps it."""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray

from bob.errors import UserError

# Of the bootstrap's resamples, how many a record keeps: enough for the ends of a 95% interval of a rank.
KEPT_RESAMPLES = 500


def pack(draws: NDArray[np.floating]) -> str:
    """Values as little-endian float32 in base64."""
    return base64.b64encode(draws.astype("<f4").tobytes()).decode("ascii")


def unpack(resampled: str) -> NDArray[np.float32]:
    """The values that `pack` wrote.

    Raises:
        UserError: If the text is not base64 of whole numbers of four bytes.
    """
    try:
        return np.frombuffer(base64.b64decode(resampled, validate=True), dtype="<f4")
    except ValueError as error:
        raise UserError(f"The resampled scores of a record are damaged: {error}.", "Run it again.") from error
