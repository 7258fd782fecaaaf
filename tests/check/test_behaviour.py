"""Planted faults of a forward pass: train mode, randomness, neighbours, NaN, numbers too large."""

import pytest

from bob.check.behaviour import check_determinism, check_drift, check_frozen, check_neighbours, check_scale

TRAIN = "def train(self, mode=True): return super().train(True)"


def test_a_healthy_backbone_passes(healthy):
    sha256 = healthy.backbone.weights_sha256()
    findings = [check(healthy) for check in (check_determinism, check_neighbours, check_scale, check_drift)]
    findings.append(check_frozen(healthy, sha256))
    assert {finding.name: finding.status for finding in findings} == dict.fromkeys(
        ("determinism", "neighbours", "scale", "drift", "frozen"), "pass"
    )
    assert findings[1].values["alone"] < 1e-4


@pytest.mark.parametrize(
    ("body", "more"),
    [
        ("return self.trunk(x)", TRAIN),
        ("self.trunk.train(); return self.trunk(x)", "pass"),
        ("self.trunk.bn1.train(); return self.trunk(x)", "pass"),
    ],
)
def test_train_mode(wrapped, body, more):
    subject = wrapped(body, more)
    sha256 = subject.backbone.weights_sha256()
    frozen = check_frozen(subject, sha256)
    assert frozen.status == "fail" and "eval()" in frozen.remedy
    assert "running_mean" in frozen.detail and frozen.values["training"]
    assert check_neighbours(subject).status == "fail"


def test_a_module_left_in_train_mode_without_effect(wrapped):
    subject = wrapped("self.trunk.act = self.trunk.conv_stem.train(); return self.trunk(x)")
    frozen = check_frozen(subject, subject.backbone.weights_sha256())
    assert frozen.status == "fail" and "train mode" in frozen.detail and "conv_stem" in frozen.detail


def test_a_buffer_written_in_a_forward_pass_before(healthy):
    finding = check_frozen(healthy, "hash of another state")
    assert finding.status == "fail" and "the weights" in finding.detail


def test_dropout(wrapped):
    subject = wrapped("return F.dropout(self.trunk(x), 0.1, training=True)")
    finding = check_determinism(subject)
    assert finding.status == "fail" and "dropout" in finding.remedy
    assert finding.values["difference"] > 0.1


@pytest.mark.parametrize(
    "body",
    [
        "f = self.trunk(x); return f - f.mean(0)",
        "f = self.trunk(x); return f / f.amax()",
        "return F.batch_norm(self.trunk.forward_features(x), None, None, training=True)",
    ],
)
def test_neighbours(wrapped, body):
    subject = wrapped(body)
    finding = check_neighbours(subject)
    assert finding.status == "fail" and "BatchNorm" in finding.remedy
    assert max(finding.values.values()) > 0.01 and "e-" in finding.detail
    assert check_determinism(subject).status == "pass"


def test_nan(wrapped):
    finding = check_scale(wrapped("return (self.trunk(x) - 0.1).sqrt()"))
    assert finding.status == "fail" and "NaN" in finding.detail and "checkpoint" in finding.remedy


def test_nan_on_a_black_image_only(wrapped):
    finding = check_scale(wrapped("return self.trunk(x) / (x + 1).abs().sum(dim=(1, 2, 3))[:, None]"))
    assert finding.status == "fail" and finding.values == {"broken": 1}


def test_scale_beyond_half_precision(wrapped):
    subject = wrapped("return self.trunk(x) * 1e5")
    finding = check_scale(subject)
    assert finding.status == "warn" and "bfloat16" in finding.remedy
    tiny = check_scale(wrapped("return self.trunk(x) * 1e-9"))
    assert tiny.status == "warn" and "vanish" in tiny.remedy


def test_drift(wrapped, how):
    from dataclasses import replace

    # What all images share is a million times what tells them apart, so that rounding hides the difference.
    subject = wrapped(
        "return (self.trunk(x).to(torch.get_autocast_dtype('cpu') if torch.is_autocast_enabled('cpu') "
        "else x.dtype) + 1000)"
    )
    finding = check_drift(subject)
    assert finding.status == "warn" and finding.remedy.endswith("float32.")
    assert check_drift(replace(subject, how=replace(how, precision="bfloat16"))).status == "fail"
