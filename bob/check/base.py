"""What the checks share: what one finds, and the opened backbone with a few real images to try it on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from sklearn.datasets import load_sample_image
from torch import nn

from bob.backbones.base import Backbone
from bob.backbones.user_code import run_user_code
from bob.data.shapes import load_shapes
from bob.features.extract import Extraction, prepare

T = TypeVar("T")
Status = Literal["pass", "skip", "warn", "fail"]
PHOTOGRAPHS = ("china", "flower")
_TILES = (0.5, 0.35)  # edges of the parts cut from each photograph, as shares of its own
_TILES_EACH = 4
_SHAPES = 12


@dataclass(frozen=True)
class Finding:
    """The answer to one question.

    Attributes:
        name: Of the check.
        status: `fail` where scores would be wrong, `warn` where they may be, `skip` where nothing could be compared.
        detail: What was measured, without a full stop.
        remedy: What to change; empty if all is well.
        values: The numbers behind it, JSON-ready.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""
    values: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


@dataclass(frozen=True)
class Subject:
    """An opened backbone and the images that it is tried on.

    Attributes:
        backbone: On its device, in eval mode.
        how: Device, precision and batch size of the runs to come.
        photographs: uint8 (N, 3, h, w), scikit-learn's two photographs and parts of them, after the backbone's crop.
        shapes: uint8 (M, 3, h, w), images of the built-in data set `shapes`, after the backbone's crop.
    """

    backbone: Backbone
    how: Extraction
    photographs: torch.Tensor
    shapes: torch.Tensor

    @property
    def name(self) -> str:
        """The backbone's."""
        return self.backbone.card.name

    @property
    def is_baseline(self) -> bool:
        """Whether nothing was learnt, and on purpose."""
        return self.backbone.card.paradigm == "baseline"

    def mixed(self, photographs: int, shapes: int) -> torch.Tensor:
        """Some photographs and some shapes: uint8 (photographs + shapes, 3, h, w)."""
        return torch.cat([self.photographs[:photographs], self.shapes[:shapes]])

    def embed(self, images: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        """uint8 (B, 3, h, w) -> float32 (B, D) on the CPU; in one forward pass, in float32 unless `dtype` is given.

        Raises:
            UserError: If a user's code fails, or the output is no feature.
        """
        return self.forward(self.backbone.preprocess.normalize(images.to(self.how.device)), dtype).float().cpu()

    def forward(self, normalised: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Normalised (B, 3, h, w) on the device -> (B, D) there; raises as `embed`."""
        with torch.inference_mode(), torch.autocast(self.how.device.type, dtype=dtype, enabled=dtype is not None):
            return self.run(lambda: self.backbone.embed(normalised))

    def run(self, function: Callable[[], T]) -> T:
        """Call a function that runs the backbone; an error in a user's code becomes one line with its place.

        Raises:
            UserError: If that code fails.
        """
        weights = self.backbone.card.weights
        return run_user_code(weights.model, function) if weights.source == "custom" else function()


def open_subject(backbone: Backbone, how: Extraction) -> Subject:
    """Put the backbone on its device and cut its images."""
    crop = backbone.preprocess.crop
    shapes = load_shapes().splits["test"].images
    photographs = [crop(part) for part in natural_images()]
    drawn = [crop(shapes.read(index)) for index in range(_SHAPES)]
    return Subject(prepare(backbone, how.device), how, torch.stack(photographs), torch.stack(drawn))


def natural_images() -> list[torch.Tensor]:
    """scikit-learn's two photographs and parts of them, in turn: uint8 (3, H, W)."""
    whole = [torch.from_numpy(np.array(load_sample_image(f"{name}.jpg"))).permute(2, 0, 1) for name in PHOTOGRAPHS]
    return [*whole, *(_tile(photo, share, n) for share in _TILES for n in range(_TILES_EACH) for photo in whole)]


def _tile(photo: torch.Tensor, share: float, number: int) -> torch.Tensor:
    rng = np.random.default_rng([number, round(100 * share)])
    height, width = (int(edge * share) for edge in photo.shape[1:])
    top, left = rng.integers(photo.shape[1] - height), rng.integers(photo.shape[2] - width)
    return photo[:, top : top + height, left : left + width]


@contextmanager
def hooked(modules: dict[str, nn.Module], hook: Any) -> Iterator[None]:
    """Call `hook(name, module, inputs, output)` after each module's forward pass, within the block."""
    handles = [
        module.register_forward_hook(lambda m, given, output, name=name: hook(name, m, given, output))
        for name, module in modules.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def relative_difference(features: torch.Tensor, reference: torch.Tensor) -> float:
    """Largest distance of a feature from its reference, as a share of the reference's length: (B, D), (B, D) -> >= 0.

    NaN counts as infinitely far.
    """
    length = reference.norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    return float(((features - reference).norm(dim=1) / length).nan_to_num(nan=float("inf")).max())
