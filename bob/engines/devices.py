"""Devices, precision and processes, by accelerate."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch

from bob.errors import UserError
from bob.extras import import_extra

if TYPE_CHECKING:
    from accelerate import Accelerator

    from bob.features.extract import Extraction

_MIXED = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


def open_accelerator(how: Extraction) -> Accelerator:
    """What moves, scales and adds up gradients on `how.device`, or on this process's own GPU under `torchrun`.

    Raises:
        UserError: If accelerate is not installed, or the device cannot train in that precision.
    """
    library = import_extra("accelerate", "finetune")
    if how.precision == "float16" and how.device.type == "cpu":
        # accelerate would go on in float32 without a word.
        raise UserError("A CPU does not train in float16.", "Use --precision bfloat16 or float32.")
    _forget(library, how.device)
    utils = library.utils
    alone = not library.PartialState._shared_state and not _launched()
    place = {"ACCELERATE_TORCH_DEVICE": str(how.device)} if alone else {}
    with utils.patch_environment(**place):
        return library.Accelerator(
            cpu=how.device.type == "cpu",
            mixed_precision=_MIXED[how.precision],
            # Otherwise a number of `accelerate config` would divide the loss once more.
            gradient_accumulation_plugin=utils.GradientAccumulationPlugin(num_steps=1),
        )


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a smaller batch may help."""
    from accelerate.utils.memory import should_reduce_batch_size

    # The last of these comes from CUDA's libraries.
    texts = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
    known = isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)
    return known or any(text in str(error) for text in texts)


def sum_over_processes(tensors: list[torch.Tensor], accelerator: Accelerator) -> None:
    """Add up each tensor over all processes, in place; all give the same number of tensors."""
    if accelerator.num_processes > 1:
        works = [torch.distributed.all_reduce(tensor, async_op=True) for tensor in tensors]
        for work in works:
            work.wait()


def _launched() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 or int(os.environ.get("LOCAL_RANK", "-1")) >= 0


def _forget(library: Any, device: torch.device) -> None:
    """Let one process train in turn on several devices and in several precisions, which accelerate keeps globally."""
    state = library.PartialState._shared_state
    elsewhere = state.get("device") != device and not torch.distributed.is_initialized()
    library.state.AcceleratorState._reset_state(reset_partial_state=bool(state) and elsewhere)
