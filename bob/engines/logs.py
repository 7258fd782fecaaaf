"""TensorBoard logs of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bob.extras import import_extra


class Log:
    """Scalars for each update, under `folder`; a training that goes on hides what was written after its checkpoint.

    Args:
        folder: Of this training.
        step: Updates done.
        writes: Whether this process is the one that does.

    Raises:
        UserError: If tensorboard is not installed.
    """

    def __init__(self, folder: Path, step: int, writes: bool = True) -> None:
        import_extra("tensorboard", "finetune")
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), purge_step=step + 1) if writes else None

    def write(self, step: int, **scalars: float) -> None:
        """Write the scalars of one update."""
        if self._writer is not None:
            for name, value in scalars.items():
                self._writer.add_scalar(f"train/{name}", value, step)

    def close(self) -> None:
        """Write what is still in memory."""
        if self._writer is not None:
            self._writer.close()
