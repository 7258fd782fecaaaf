"""What is expected of a frozen backbone: eval mode, the same answer each time, for each image alone, in any type."""

from __future__ import annotations

import torch

from bob.check.base import Finding, Status, Subject, relative_difference
from bob.errors import UserError

_LARGE = 3e4  # float16 ends at 65504
_SMALL = 1e-6
_DRIFT = 0.3  # rounding error as a share of the spread between images; bfloat16 keeps healthy networks far below


def check_frozen(subject: Subject, weights_sha256: str) -> Finding:
    """Find modules in train mode after a forward pass, and state that it changes.

    Args:
        subject: The backbone.
        weights_sha256: `Backbone.weights_sha256()` from before any forward pass.
    """
    model = subject.backbone.model
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    subject.embed(subject.mixed(4, 4))
    training = [f"{name or 'the model'} ({type(m).__name__})" for name, m in model.named_modules() if m.training]
    changed = [name for name, buffer in model.named_buffers() if not _equal(buffer, before.get(name))]
    # Also what changed in forward passes before this one, such as a buffer that is written once.
    hashed = subject.backbone.weights_sha256() == weights_sha256
    values = {"training": training, "changed": changed, "state_unchanged": hashed}
    if changed or not hashed:
        what = f"{len(changed)} buffers, the first being {changed[0]}" if changed else "the weights"
        remedy = (
            "Freeze it: do not override `train()`, call no `.train()` and write no buffer in forward, use `.eval()`."
        )
        return Finding("frozen", "fail", f"a forward pass changes {what}", remedy, values)
    if training:
        detail = f"{len(training)} modules are in train mode during the forward pass, the first being {training[0]}"
        return Finding("frozen", "fail", detail, "Call `.eval()` on it; remove `self.train()` from forward.", values)
    return Finding("frozen", "pass", "eval mode, no buffer changes in a forward pass", values=values)


def check_determinism(subject: Subject) -> Finding:
    """Embed the same batch twice and compare."""
    images = subject.mixed(4, 4)
    difference = relative_difference(subject.embed(images), subject.embed(images))
    detail, values = f"the same batch twice differs by {difference:.1e}", {"difference": difference}
    warn, fail = _tolerances(subject)
    if difference > fail:
        remedy = "Make it deterministic: put dropout in eval mode (no `training=True`) and draw no random numbers."
        return Finding("determinism", "fail", detail, remedy, values)
    if difference > warn:
        return Finding("determinism", "warn", detail, "Look for random or non-deterministic operations.", values)
    return Finding("determinism", "pass", detail, values=values)


def check_neighbours(subject: Subject) -> Finding:
    """Embed images together, alone, in another order and among extreme neighbours, and compare."""
    images = subject.mixed(5, 3)
    reference = subject.embed(images)
    alone = torch.cat([subject.embed(image[None]) for image in images[:4]])
    backwards = subject.embed(images.flip(0)).flip(0)
    crowd = torch.cat([images[:3], _extremes(images)])
    values = {
        "alone": relative_difference(alone, reference[:4]),
        "reversed": relative_difference(backwards, reference),
        "extreme": relative_difference(subject.embed(crowd)[:3], reference[:3]),
    }
    detail = f"alone, in reverse, among extreme images: {', '.join(f'{v:.1e}' for v in values.values())} apart"
    warn, fail = _tolerances(subject)
    worst = max(values.values())
    if worst > warn:
        remedy = (
            "Make each feature depend on its own image only: BatchNorm in eval mode (no `training=True`), no mean, "
            "maximum or attention over the batch."
        )
        return Finding("neighbours", "fail" if worst > fail else "warn", detail, remedy, values)
    return Finding("neighbours", "pass", detail, values=values)


def check_scale(subject: Subject) -> Finding:
    """Look for NaN on photographs, shapes and extreme images, and for numbers that half precision cannot hold."""
    extremes = _extremes(subject.shapes)
    features = torch.cat([subject.embed(subject.mixed(4, 4)), subject.embed(extremes)])
    broken = int((~features.isfinite().all(dim=1)).sum())
    if broken:
        detail = f"NaN or infinite features for {broken} of {len(features)} images"
        remedy = "Look for a damaged checkpoint, a division by zero, or a wrong normalisation."
        return Finding("scale", "fail", detail, remedy, {"broken": broken})
    rms, largest = float(features.square().mean().sqrt()), float(features.abs().max())
    detail, values = f"finite, root mean square {rms:.3g}, largest {largest:.3g}", {"rms": rms, "largest": largest}
    if largest > _LARGE:
        return Finding("scale", "warn", detail, "float16 ends at 65504: use --precision bfloat16 or float32.", values)
    if rms < _SMALL:
        return Finding("scale", "warn", detail, "Read the feature before what makes it vanish.", values)
    return Finding("scale", "pass", detail, values=values)


def check_drift(subject: Subject) -> Finding:
    """Measure how far bfloat16 and float16 move the features, as a share of the distance between images."""
    images = subject.mixed(2, 2)  # a CPU takes four times as long in float16
    reference = subject.embed(images)
    # Between images: a large part that all features share says nothing about what rounding does to a comparison.
    spread = float((reference - reference.mean(0)).norm(dim=1).median())
    moved = {}
    for dtype in ("bfloat16", "float16"):
        try:
            features = subject.embed(images, getattr(torch, dtype))
        except (RuntimeError, TypeError, UserError):
            continue  # not every device and operation has every type
        moved[dtype] = _drift(features, reference, spread)
    if not moved:
        return Finding("drift", "warn", "it runs in float32 only", "Use --precision float32.", {})
    detail = "; ".join(f"{t}: cosine {m['cosine']:.5f}, error {m['error']:.1%} of the spread" for t, m in moved.items())
    bad = [dtype for dtype, measured in moved.items() if not measured["error"] <= _DRIFT]
    if not bad:
        return Finding("drift", "pass", detail, values=moved)
    status: Status = "fail" if subject.how.precision in bad else "warn"
    rest = [dtype for dtype in moved if dtype not in bad]
    return Finding("drift", status, detail, f"Use --precision {' or '.join([*rest, 'float32'])}.", moved)


def _drift(features: torch.Tensor, reference: torch.Tensor, spread: float) -> dict[str, float]:
    error = (features - reference).norm(dim=1).median()
    cosine = torch.cosine_similarity(features, reference).min()
    return {"cosine": float(cosine), "error": float(error) / spread if spread else float(error)}


def _tolerances(subject: Subject) -> tuple[float, float]:
    """Differences to warn of and to fail on: sums in another order, and TF32 on a GPU, differ by rounding."""
    return (1e-4, 1e-3) if subject.how.device.type == "cpu" else (3e-3, 3e-2)


def _extremes(like: torch.Tensor) -> torch.Tensor:
    """Black, white, noise and a checkerboard of single pixels: uint8 (4, 3, h, w)."""
    black = torch.zeros_like(like[:1])
    noise = torch.randint(256, black.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    height, width = like.shape[2:]
    board = (torch.arange(height)[:, None] + torch.arange(width)) % 2 * 255
    return torch.cat([black, black + 255, noise, board.to(torch.uint8).expand_as(black)])


def _equal(now: torch.Tensor, before: torch.Tensor | None) -> bool:
    return before is not None and torch.equal(now, before)
