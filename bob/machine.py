"""The machine: which device is meant, and what a record says of it (versions, memory, size of a forward pass)."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import bob
from bob.backbones.base import Backbone
from bob.cores import granted_cores
from bob.errors import UserError, did_you_mean
from bob.features.extract import Precision

_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "accelerate",
    "open_clip_torch",
    "transformers",
    "detectron2",
    "sal-detectron2",
    "segmentation-models-pytorch",
    "onedl-mmsegmentation",
    "faster-coco-eval",
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "pillow",
)


def resolve_device(name: str) -> torch.device:
    """Return the device that `auto`, `cpu`, `cuda[:N]` or `mps` stands for.

    Raises:
        UserError: If torch has no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    nothing = UserError(f"There is no device '{name}' here.", "Use --device auto, cpu, cuda, cuda:N or mps.")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise nothing from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise nothing  # torch has others, such as `meta`, that compute nothing
    return device


def resolve_precision(name: str, device: torch.device) -> Precision:
    """Return the precision that `auto` (float16 on CUDA, else float32) or its own name stands for.

    Raises:
        UserError: If there is no such precision.
    """
    if name == "auto":
        return "float16" if device.type == "cuda" else "float32"
    known: tuple[Precision, ...] = ("float32", "bfloat16", "float16")
    for precision in known:
        if name == precision:
            return precision
    raise UserError(f"Unknown precision '{name}'.", did_you_mean(name, known) or f"Use {', '.join(known)}.")


def environment(device: torch.device) -> dict[str, Any]:
    """Versions of what computes, the device, the cores granted, and bob's git revision if it runs from a checkout."""
    return {
        "bob": bob.__version__,
        "git_revision": _git_revision(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in _PACKAGES},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cores": granted_cores(),
        "threads": torch.get_num_threads(),
    }


def launched_processes() -> tuple[int, int]:
    """Number of this process and how many there are, as `torchrun` and `accelerate launch` say; (0, 1) without them."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory held so far: on the GPU if `device` is one, else by this process, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def count_flops(backbone: Backbone) -> int:
    """Floating-point operations of one image's forward pass, as torch counts them (a multiply-add is two)."""
    image = torch.zeros(1, 3, *backbone.preprocess.size, device=backbone.device)
    counter = FlopCounterMode(display=False)
    # no_grad, not inference_mode: the counter watches dispatch, which inference tensors skip.
    with torch.no_grad(), counter:
        backbone.embed(image)
    return counter.get_total_flops()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


@lru_cache(maxsize=1)
def _git_revision() -> str | None:
    checkout = Path(bob.__file__).parent.parent
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", os.fspath(checkout), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
