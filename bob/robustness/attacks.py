"""The attacks themselves, by the Adversarial Robustness Toolbox."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from bob.errors import UserError
from bob.extras import import_extra

LIBRARY = "adversarial-robustness-toolbox"

_REACH = 2.5  # all steps of PGD together, in units of eps: from any start the whole ball is in reach (Madry et al.)
_TARGETS = 9  # of APGD-T, and ...
_QUERIES = 50  # ... queries of Square for each step of APGD: 5,000 for 100, both as Croce and Hein have them
_TINY = 1e-12
_SLACK = 1e-4  # of eps, for rounding in float32


class Attacker:
    """The attacks on one set of images.

    Args:
        model: In eval mode on `device`, with fixed parameters.
        images: float32 (N, 3, H, W).
        labels: (N,) int64.
        logits: (N, C), for the images as they are.
        eps, norm, steps, batch_size, device: See `robust_accuracy`.
    """

    def __init__(
        self,
        model: nn.Module,
        images: torch.Tensor,
        labels: np.ndarray,
        logits: np.ndarray,
        eps: float,
        norm: str,
        steps: int,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self._require_gradient(model, images[:1].to(device))
        self._model, self._images, self._labels, self._device = model, images.numpy(), labels, device
        self._steps, self._batch_size = steps, batch_size
        self._radius = eps / 255 if norm == "linf" else eps
        self._order: Any = np.inf if norm == "linf" else 2
        self._evasion = import_extra("art.attacks.evasion", "robust")
        self._classifier = self._wrap(nn.CrossEntropyLoss(), logits.shape[1])
        self._ratio = self._wrap(TargetedRatio(), logits.shape[1])
        others = logits.copy()
        others[np.arange(len(labels)), labels] = -np.inf
        self._rivals = np.argsort(-others, axis=1)[:, : min(_TARGETS, logits.shape[1] - 1)]

    def run(self, attack: str, correct: np.ndarray) -> str:
        """Clear `correct` (N,) for every image that falls; say what was done."""
        if attack == "pgd":
            self._try(self._pgd(), correct, self._labels)
            return f"PGD of {self._steps} steps"
        parts = [f"APGD-CE of {self._steps} steps", f"APGD-T towards {self._rivals.shape[1]} classes"]
        self._try(self._apgd(self._classifier), correct, self._labels)
        for rivals in self._rivals.T:
            self._try(self._apgd(self._ratio), correct, self._marks(rivals))
        if self._order == np.inf:  # in L2 the library's Square divides by zero
            self._try(self._square(), correct, self._labels)
            parts.append(f"Square of {_QUERIES * self._steps} queries")
        return " + ".join(parts)

    def _wrap(self, loss: nn.Module, classes: int) -> Any:
        return import_extra("art.estimators.classification", "robust").PyTorchClassifier(
            model=self._model,
            loss=loss,
            input_shape=self._images.shape[1:],
            nb_classes=classes,
            clip_values=(0.0, 1.0),
            device_type="cpu" if self._device.type == "cpu" else "gpu",
        )

    def _marks(self, rivals: np.ndarray) -> np.ndarray:
        """float32 (N, C), what `TargetedRatio` reads: 1 at the class of each image, -1 at its rival (N,)."""
        marks = np.zeros((len(rivals), self._classifier.nb_classes), np.float32)
        marks[np.arange(len(rivals)), self._labels] = 1
        marks[np.arange(len(rivals)), rivals] = -1
        return marks

    def _try(self, attack: Any, correct: np.ndarray, labels: np.ndarray) -> None:
        """Attack the images that still stand, with (N,) labels to get away from, or (N, C) marks."""
        standing = np.flatnonzero(correct)
        for start in range(0, len(standing), self._batch_size):
            rows = standing[start : start + self._batch_size]
            changed = attack.generate(self._images[rows], labels[rows]).astype(np.float32)
            self._require_inside(changed - self._images[rows], changed)
            logits = compute_logits(self._model, torch.from_numpy(changed), self._batch_size, self._device)
            correct[rows] = logits.argmax(axis=1) == self._labels[rows]

    def _pgd(self) -> Any:
        return self._evasion.ProjectedGradientDescentPyTorch(
            self._classifier,
            **self._common(eps_step=_REACH * self._radius / self._steps, max_iter=self._steps),
            num_random_init=1,
        )

    def _apgd(self, classifier: Any) -> Any:
        # Its first step is as wide as the ball, and it halves the step where that does not help.
        common = self._common(eps_step=2 * self._radius, max_iter=self._steps)
        return self._evasion.AutoProjectedGradientDescent(classifier, **common, nb_random_init=1, loss_type=None)

    def _square(self) -> Any:
        common = self._common(max_iter=_QUERIES * self._steps)
        return self._evasion.SquareAttack(self._classifier, **common, p_init=0.8, nb_restarts=1)

    def _common(self, **settings: Any) -> dict[str, Any]:
        shared = {"norm": self._order, "eps": self._radius, "batch_size": self._batch_size, "verbose": False}
        return {**shared, **settings}

    def _require_inside(self, change: np.ndarray, changed: np.ndarray) -> None:
        """Believe the library only as far as its images stay in the ball and in [0, 1]."""
        length = np.linalg.norm(change.reshape(len(change), -1), ord=self._order, axis=1).max()
        if not (length <= self._radius * (1 + _SLACK) + 1e-6 and changed.min() >= 0 and changed.max() <= 1):
            raise RuntimeError(f"{LIBRARY} gave an image {length} away from its own, outside of {self._radius}.")

    @staticmethod
    def _require_gradient(model: nn.Module, image: torch.Tensor) -> None:
        if not model(image.clone().requires_grad_()).requires_grad:
            raise UserError("No gradient comes through this classifier.", "Use a backbone that can be fine-tuned.")


class TargetedRatio(nn.Module):
    """The targeted difference of logits ratio, -(z_y - z_t) / (z_1 - (z_3 + z_4) / 2), where z_1 >= z_2 >= ...

    The ratio does not vanish where the softmax is saturated, as cross-entropy does. With fewer than four classes it is
    undefined, and only the numerator is taken.

    Attributes:
        reduction: `none` for one value an image, `mean` or `sum`; the library sets it.

    Source: Croce and Hein 2020 (arXiv 2003.01690), equation 6.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reduction = "mean"

    def forward(self, logits: torch.Tensor, marks: torch.Tensor) -> torch.Tensor:
        """Return the loss of logits (B, C), given marks (B, C): 1 at the class y, -1 at the target t, else 0."""
        loss = -(logits * marks).sum(dim=1)
        if logits.shape[1] > 3:
            ranked = logits.topk(4, dim=1).values
            loss = loss / (ranked[:, 0] - ranked[:, 2:].mean(dim=1) + _TINY)
        return loss if self.reduction == "none" else loss.mean() if self.reduction == "mean" else loss.sum()


def compute_logits(model: nn.Module, images: torch.Tensor, batch_size: int, device: torch.device) -> np.ndarray:
    """Return float32 (N, C) for images (N, 3, H, W) on any device; no gradient is kept."""
    with torch.no_grad():
        parts = [model(batch.to(device)).float().cpu() for batch in images.split(batch_size)]
    return torch.cat(parts).numpy()
