"""k-NN on `shapes`: real weights win, what has learnt nothing does not, and `bob run` finds the features."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from bob.backbones.sources import open_backbone
from bob.check import knn
from bob.check.knn import Rival, check_knn, leave_one_out, pixels_rival, random_rival, reinitialised, shape_features
from bob.errors import UserError
from bob.features.extract import fill_store, open_store


@pytest.fixture(scope="module")
def learned(healthy):
    return shape_features(healthy.backbone, healthy.backbone.identity(), healthy.how)


@pytest.fixture(scope="module")
def rivals(healthy):
    return [random_rival(healthy), pixels_rival(healthy)]


def test_real_weights_pass(healthy, learned, rivals):
    finding = check_knn(healthy, learned, rivals)
    assert (finding.status, finding.remedy) == ("pass", "")
    own, beside = finding.values["top1"], finding.values["rivals"]
    assert own["low"] < own["value"] < own["high"] and own["value"] > 0.3
    assert set(beside) == {"random initialisation", "raw pixels"}
    assert all(rival["difference"][0] > 0 for rival in beside.values())


def test_weights_that_do_not_reach_the_features_fail(healthy, rivals):
    finding = check_knn(healthy, rivals[0].features[::-1], rivals)
    assert finding.status == "fail" and "no better than" in finding.detail
    assert "weights" in finding.remedy and "architecture (heads" in finding.remedy


def test_what_may_be_chance_warns(healthy, learned):
    noise = np.random.default_rng(0).normal(scale=1e-3, size=learned.shape)
    nearly = [Rival("itself", (learned + learned.std() * 800 * noise).astype(np.float32))]
    finding = check_knn(healthy, learned, nearly)
    assert finding.status == "warn" and "bob run --task shapes" in finding.remedy


def test_a_baseline_is_not_blamed(altered, subject_of, rivals):
    finding = check_knn(subject_of(altered("efficientnet_lite0.random")), rivals[0].features, [rivals[1], rivals[0]])
    assert finding.status == "warn" and "baseline" in finding.remedy


def test_nan_fails(healthy):
    assert check_knn(healthy, np.full((256, 4), np.nan, np.float32), []).status == "fail"


def test_leave_one_out_agrees_with_scikit_learn(monkeypatch):
    monkeypatch.setattr(knn, "K", 1)
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(60, 5)).astype(np.float32), rng.integers(3, size=60)
    expected = []
    for index in range(60):
        rest = np.arange(60) != index
        near = KNeighborsClassifier(1, metric="cosine").fit(features[rest], labels[rest])
        expected.append(near.predict(features[[index]])[0] == labels[index])
    assert leave_one_out(features, labels).tolist() == expected


def test_a_run_uses_the_same_features(healthy, learned, monkeypatch):
    from bob.data.shapes import load_shapes

    images, identity = load_shapes().splits["train"].images, healthy.backbone.identity()
    store = open_store(healthy.backbone, identity, images, healthy.how)
    assert [number for number, _ in store.missing()] == [1, 2, 3]
    again = open_store(pixels := _pixels(), pixels.identity(), images, healthy.how)
    before = np.array(again.finished()[1])
    fill_store(again, pixels, images, healthy.how)
    assert np.array_equal(again.read()[:256], before)
    monkeypatch.setattr(knn, "load_batches", None)  # nothing is computed again
    assert np.array_equal(shape_features(healthy.backbone, identity, healthy.how), learned)


def test_features_of_an_unsound_backbone_are_not_kept(wrapped, home):
    subject = wrapped("return x.mean((2, 3)) + 1")
    stores = len(list((home / "features").iterdir()))
    features = shape_features(subject.backbone, subject.backbone.identity(), subject.how, keep=False)
    assert features.shape == (256, 3) and len(list((home / "features").iterdir())) == stores


def test_user_code_that_has_changed_its_mind(wrapped):
    body = "import os; return x.mean((2, 3)) + float(os.environ.get('BOB_TEST_SHIFT', 0))"
    subject = wrapped(body)
    identity = subject.backbone.identity()
    shape_features(subject.backbone, identity, subject.how)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError, match="no longer gives the features stored"):
        patch.setenv("BOB_TEST_SHIFT", "5")
        shape_features(subject.backbone, identity, subject.how)


def test_user_code_is_initialised_again(wrapped):
    subject = wrapped()
    twin, share = reinitialised(subject.backbone)
    assert 0.99 < share <= 1
    before, after = subject.backbone.model.trunk.conv_stem.weight, twin.model.trunk.conv_stem.weight
    assert before.shape == after.shape and not torch.equal(before, after)
    assert float(twin.model.trunk.bn1.running_mean.abs().max()) == 0
    assert torch.equal(reinitialised(subject.backbone)[0].model.trunk.conv_stem.weight, after)


def test_nothing_to_initialise_again(altered, subject_of):
    subject = subject_of(altered("pixels"))
    assert reinitialised(subject.backbone) is None and random_rival(subject) is None


def _pixels():
    from bob.catalogue import load_backbone_cards

    return open_backbone(load_backbone_cards()["pixels"])
