"""A Gaussian prior over a backbone's parameters: where fine-tuning may go, and how far, as the source task left it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from bob.backbones.base import Backbone
from bob.engines.checkpoint import save_tensors
from bob.errors import UserError, first_line

FORMAT = "bob prior 1"
# Added to every variance, as a parameter that never moved at the source would otherwise never move again.
FLOOR = 1e-6
_REMEDY = "Write it as l2sp:STRENGTH or FILE.safetensors[:LAMBDA], e.g. l2sp:0.01 or source.safetensors:1000."
_BLOCK = 2**14  # columns in float64 at once, for a processor's caches
_PARTS = ("mean", "variance", "factor", "buffers")
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Gaussian:
    """Low rank plus diagonal: covariance = diag(variance) + factor^T factor, over D parameters in all.

    Attributes:
        mean: Of each trainable parameter of a backbone's `model`, by its name.
        variance: Of each parameter: a tensor of its shape, or one number for all of it.
        factor: Of each parameter (K, *shape), the same K for all; empty for a diagonal covariance.
        buffers: Running statistics of the network at the mean; empty if they are those of the checkpoint.
        facts: What a record should say: the backbone's identity, how the prior was learnt.
    """

    mean: Tensors
    variance: Tensors
    factor: Tensors = field(default_factory=dict)
    buffers: Tensors = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def rescaled(self, scale: float, floor: float = FLOOR) -> Gaussian:
        """The covariance times `scale`, and `floor` added to every variance."""
        variance = {name: scale * values + floor for name, values in self.variance.items()}
        factor = {name: math.sqrt(scale) * values for name, values in self.factor.items()}
        return Gaussian(self.mean, variance, factor, self.buffers, {**self.facts, "scale": scale, "floor": floor})

    def start(self, model: nn.Module) -> None:
        """Put a backbone's `model` at the mean, with the running statistics that belong to it."""
        parameters = dict(model.named_parameters())
        buffers = dict(model.named_buffers())
        with torch.no_grad():
            for name, values in self.mean.items():
                parameters[name].copy_(values)
            for name, values in self.buffers.items():
                buffers[name].copy_(values)

    def save(self, path: Path) -> None:
        """Write a safetensors file; one that is there is replaced when the new one is whole.

        Raises:
            UserError: If the disk refuses.
        """
        tensors = {
            f"{part}/{name}": tensor.detach().cpu().contiguous()
            for part in _PARTS
            for name, tensor in getattr(self, part).items()
        }
        save_tensors(tensors, path, {"format": FORMAT, "facts": json.dumps(self.facts)})

    @classmethod
    def load(cls, path: Path) -> Gaussian:
        """Read what `save` wrote.

        Raises:
            UserError: If the file is missing, damaged, or no prior.
        """
        remedy = "Learn it again, or correct the path."
        if not path.is_file():
            raise UserError(f"There is no prior at {path}.", remedy)
        parts: dict[str, Tensors] = {part: {} for part in _PARTS}
        try:
            with safe_open(path, framework="pt") as file:
                said = file.metadata() or {}
                if said.get("format") != FORMAT:
                    raise UserError(f"{path} is no prior of this version of bob.", remedy)
                for key in file.keys():  # noqa: SIM118 - no mapping
                    part, _, name = key.partition("/")
                    parts[part][name] = file.get_tensor(key)
                return cls(**parts, facts=json.loads(said["facts"]))
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise UserError(f"Cannot read the prior {path} ({first_line(error)}).", remedy) from error


class Prior:
    """The negative log density of a Gaussian, as a part of the training loss.

    Args:
        gaussian: Of the parameters.
        n_images: Number of training images, so that the mean loss of an image plus the penalty is the negative log
            posterior divided by `n_images`, up to a constant.

    Raises:
        ValueError: If there are no images, or a variance is not positive.

    Source: arXiv 2205.10279, https://github.com/hsouri/BayesianTransferLearning.
    """

    def __init__(self, gaussian: Gaussian, n_images: int) -> None:
        if n_images < 1:
            raise ValueError(f"Expected `n_images` to be positive, but got {n_images}.")
        if still := [name for name, values in gaussian.variance.items() if not (values > 0).all()]:
            raise ValueError(f"Expected every variance to be positive, but that of {still[0]} is not; use `rescaled`.")
        self.gaussian = gaussian
        self.n_images = n_images
        self._mean = dict(gaussian.mean)
        self._inverse_std = {name: values.rsqrt() for name, values in gaussian.variance.items()}
        self._axes, self._gains = _principal_axes(gaussian, self._inverse_std)

    @property
    def facts(self) -> dict[str, Any]:
        """What a record should say of it."""
        return self.gaussian.facts

    def start(self, model: nn.Module) -> None:
        """See `Gaussian.start`."""
        self.gaussian.start(model)

    def penalty(self, named_parameters: Iterable[tuple[str, nn.Parameter]]) -> torch.Tensor:
        """Return half the squared Mahalanobis distance to the mean, divided by `n_images`; a scalar with a gradient.

        Args:
            named_parameters: Of the backbone's `model`; those that do not train are passed over.

        Raises:
            ValueError: If the trainable ones are not those of the prior.
        """
        parameters = {name: values for name, values in named_parameters if values.requires_grad}
        if parameters.keys() != self._mean.keys():
            difference = sorted(parameters.keys() ^ self._mean.keys())[:3]
            raise ValueError(f"Expected `named_parameters` to be those of the prior, but they differ in {difference}.")
        device = next(iter(parameters.values())).device
        self._move(device)
        with torch.autocast(device.type, enabled=False):
            return self._half_distance(parameters) / self.n_images

    def _half_distance(self, parameters: Mapping[str, nn.Parameter]) -> torch.Tensor:
        # With z = diag(variance)^(-1/2) (x - mean), and s_k^2 and rows q_k the eigenvalues and eigenvectors of the
        # whitened low-rank part, Woodbury's identity reads |z|^2 - sum_k s_k^2 / (1 + s_k^2) (q_k z)^2. As s_k^2 is of
        # the order of D, that is a small difference of large numbers; hence split z into its parts along and across Q.
        white = {
            name: ((values.to(self._mean[name].dtype) - self._mean[name]) * self._inverse_std[name]).flatten()
            for name, values in parameters.items()
        }
        if not self._axes:
            return sum(values.square().sum() for values in white.values()) / 2  # type: ignore[return-value]
        along = torch.stack([self._axes[name] @ values for name, values in white.items()]).sum(dim=0)
        across = [(values - along @ self._axes[name]).square().sum() for name, values in white.items()]
        return (torch.stack(across).sum() + (along.square() / (1 + self._gains)).sum()) / 2

    def _move(self, device: torch.device) -> None:
        if next(iter(self._mean.values())).device != device:
            for tensors in (self._mean, self._inverse_std, self._axes):
                tensors.update({name: values.to(device) for name, values in tensors.items()})
            self._gains = self._gains.to(device)


def load_prior(spec: str, backbone: Backbone, n_images: int) -> Prior:
    """Read a prior for a backbone's trainable parameters.

    Args:
        spec: `l2sp:STRENGTH` for STRENGTH / 2 times the squared distance to the backbone's weights as they are now;
            `FILE.safetensors` for what was learnt at a source task, with `:LAMBDA` for LAMBDA times its covariance.
        backbone: Opened, with the checkpoint's weights.
        n_images: Number of training images.

    Raises:
        UserError: If `spec` is something else, the file is missing, damaged, or of another architecture, or there is
            nothing to train.

    Source: arXiv 1802.01483 (L2-SP), arXiv 2205.10279.
    """
    if not _trainable(backbone):
        raise UserError(f"Backbone '{backbone.card.name}' has no weights to train.", "Leave the prior out.")
    if spec.startswith("l2sp:"):
        return isotropic_prior(backbone, _positive(spec.removeprefix("l2sp:"), spec), n_images)
    found = re.fullmatch(r"(.+\.safetensors)(?::([^:/\\]*))?", spec)
    if found is None:
        raise UserError(f"'{spec}' is no prior.", _REMEDY)
    scale = 1.0 if found[2] is None else _positive(found[2], spec)
    gaussian = Gaussian.load(Path(found[1]).expanduser())
    _require_same_architecture(gaussian, backbone, found[1])
    return Prior(gaussian.rescaled(scale), n_images)


def isotropic_prior(backbone: Backbone, strength: float, n_images: int) -> Prior:
    """L2-SP: a penalty of `strength` / 2 times the squared distance to the backbone's weights as they are now."""
    mean = {name: values.detach().clone() for name, values in _trainable(backbone).items()}
    variance = {name: values.new_tensor(1 / (strength * n_images)) for name, values in mean.items()}
    return Prior(Gaussian(mean, variance, facts={"prior": "l2sp", "strength": strength}), n_images)


def _principal_axes(gaussian: Gaussian, inverse_std: Mapping[str, torch.Tensor]) -> tuple[Tensors, torch.Tensor]:
    """Eigenvectors (rank, d) of each parameter's part of the whitened low-rank covariance, and eigenvalues (rank,).

    From the K x K matrix of the rows' products, so that nothing of size D x D is ever formed.
    """
    if not gaussian.factor:
        return {}, torch.zeros(0)
    rows = {name: (values * inverse_std[name]).flatten(1) for name, values in gaussian.factor.items()}
    blocks = (block.double() for values in rows.values() for block in values.split(_BLOCK, dim=1))
    gains, vectors = torch.linalg.eigh(sum(block @ block.T for block in blocks))
    kept = gains > 1e-12 * gains.max()  # the deviations of a mean may depend on one another
    weights = (vectors[:, kept] / gains[kept].sqrt()).T

    def turned(values: torch.Tensor) -> torch.Tensor:
        return torch.cat([(weights @ block.double()).to(values.dtype) for block in values.split(_BLOCK, dim=1)], dim=1)

    return {name: turned(values) for name, values in rows.items()}, gains[kept].to(next(iter(rows.values())).dtype)


def _trainable(backbone: Backbone) -> dict[str, nn.Parameter]:
    return {name: values for name, values in backbone.model.named_parameters() if values.requires_grad}


def _positive(text: str, spec: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UserError(f"Expected a positive number in the prior '{spec}', but got '{text}'.", _REMEDY)
    return value


def _require_same_architecture(gaussian: Gaussian, backbone: Backbone, path: str) -> None:
    there = {name: tuple(values.shape) for name, values in {**gaussian.mean, **gaussian.buffers}.items()}
    buffers = {name: values for name, values in backbone.model.named_buffers() if name in gaussian.buffers}
    here = {name: tuple(values.shape) for name, values in {**_trainable(backbone), **buffers}.items()}
    # In the order of the backbone, so that the first difference is the one nearest to the image.
    for name in [*here, *there]:
        if there.get(name) != here.get(name):
            raise UserError(
                f"The prior {path} is of another architecture than backbone '{backbone.card.name}': its '{name}' is "
                f"{_shape(there.get(name))}, and that of the backbone is {_shape(here.get(name))}.",
                "Learn a prior with this backbone, or use the backbone that it was learnt with.",
            )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "not there" if shape is None else "x".join(map(str, shape)) or "a number"
