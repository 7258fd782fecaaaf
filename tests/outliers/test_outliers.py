"""Every score equals pytorch-ood's or a case worked by hand, and is finite on features without any information."""

from __future__ import annotations

import inspect
import itertools
import sys

import numpy as np
import pytest
import torch
from pytorch_ood import detector
from sklearn.covariance import EmpiricalCovariance
from sklearn.metrics import roc_auc_score

from bob.errors import UserError
from bob.outliers.base import Score
from bob.outliers.distances import KthNearest, Mahalanobis, Vim
from bob.outliers.head import LinearHead
from bob.outliers.logits import Energy, MaximumLogit, MaximumSoftmax, Odin
from bob.outliers.shaping import Ash, FeatureShaping, React, She
from bob.probes.logistic import LogisticRegression

SCORES: list[type[Score]] = [
    *(MaximumSoftmax, MaximumLogit, Energy, Odin, Mahalanobis, Vim, KthNearest, React, Ash, She, FeatureShaping)
]
WIDTH, CLASSES = 24, 4


def _blobs(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features without negative numbers, as after ReLU, of four classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % CLASSES
    means = 3 * np.random.default_rng(9).normal(size=(CLASSES, WIDTH))
    return np.maximum(means[labels] + rng.normal(size=(n, WIDTH)), 0).astype(np.float32), labels


def _strangers(n: int = 60) -> np.ndarray:
    """Between the classes: neither near the images of any, nor clearly of one."""
    rng = np.random.default_rng(5)
    mean = 3 * np.random.default_rng(9).normal(size=(CLASSES, WIDTH)).mean(axis=0)
    return np.maximum(mean + rng.normal(size=(n, WIDTH)), 0).astype(np.float32)


@pytest.fixture(scope="module")
def head() -> LinearHead:
    features, labels = _blobs()
    return LinearHead.of(LogisticRegression(l2=1e-2).fit(features, labels, CLASSES))


def _fitted(kind: type[Score], head: LinearHead, **settings: object) -> Score:
    return kind(**settings).fit(*_blobs(), CLASSES, head)


def _queries() -> np.ndarray:
    return np.concatenate([_blobs(60, seed=1)[0], _strangers()])


def test_head_is_the_probe() -> None:
    features, labels = _blobs()
    probe = LogisticRegression(l2=1e-2).fit(features, labels, CLASSES)
    head, x = LinearHead.of(probe), torch.from_numpy(_queries())
    np.testing.assert_allclose(head.logits(x).softmax(dim=1).numpy(), probe.predict_proba(_queries()), atol=1e-6)
    np.testing.assert_allclose(head.logits_of_standardized(head.standardized(x)), head.logits(x), atol=1e-9)


@pytest.mark.parametrize("kind", SCORES)
def test_tells_strangers(kind: type[Score], head: LinearHead) -> None:
    scores = _fitted(kind, head).score(_queries())
    assert scores.shape == (120,) and scores.dtype == np.float64
    assert roc_auc_score(np.repeat([0, 1], 60), scores) > 0.8


@pytest.mark.parametrize("kind", SCORES)
def test_rows_do_not_depend_on_each_other(kind: type[Score], head: LinearHead, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _fitted(kind, head)
    expected = whole.score(_queries())
    monkeypatch.setattr("bob.probes.minibatch._CHUNK_ELEMENTS", 7 * WIDTH)
    np.testing.assert_allclose(_fitted(kind, head).score(_queries()), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", SCORES)
def test_settings(kind: type[Score], head: LinearHead) -> None:
    names = {name for name in inspect.signature(kind).parameters if name != "device"}
    assert set(kind().settings()) == names == set(_fitted(kind, head).settings())


def test_refuses_what_makes_no_sense(head: LinearHead) -> None:
    features, labels = _blobs()
    with pytest.raises(ValueError, match="Expected `head`"):
        Energy().fit(features, labels, CLASSES)
    with pytest.raises(ValueError, match=r"Expected features of shape \(n, 24\)"):
        _fitted(Energy, head).score(features[:, 1:])
    with pytest.raises(ValueError, match="Expected finite features"):
        Mahalanobis().fit(np.full_like(features, np.nan), labels, CLASSES)
    with pytest.raises(ValueError, match=r"Expected `k` to be in \[1, 400\], but got 401"):
        KthNearest(k=401).fit(features, labels, CLASSES)


def test_without_pytorch_ood(head: LinearHead, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_ood", None)
    with pytest.raises(UserError, match=r"pytorch_ood is not installed.*pip install .*'pytorch-ood"):
        _fitted(Energy, head).score(_queries())


def _reference(name: str, head: LinearHead) -> np.ndarray:
    features, labels = _blobs()
    z, y, x = torch.from_numpy(features), torch.from_numpy(labels), torch.from_numpy(_queries())
    model, flat = head.logits, lambda maps: head.logits(maps.flatten(1))
    if name == "MaximumSoftmax":
        return detector.MaxSoftmax(None).predict_logits(model(x)).numpy()
    if name == "MaximumLogit":
        return detector.MaxLogit(None).predict_logits(model(x)).numpy()
    if name == "Energy":
        return detector.EnergyBased(None).predict_logits(model(x)).numpy()
    if name == "Odin":
        layer = torch.nn.Linear(WIDTH, CLASSES).double()
        layer.weight.data, layer.bias.data = head.weight * head.scale, head.logits(head.mean[None])[0]
        return detector.ODIN(layer).predict(head.standardized(x)).detach().numpy()
    if name == "Vim":
        return detector.ViM(None, WIDTH // 2, head.weight, head.bias).fit_features(z, y).predict_features(x).numpy()
    if name == "KthNearest":
        return detector.KNN(None, k=50).fit_features(z, y).predict_features(x).numpy()
    if name == "React":
        return detector.ReAct(None, model).fit_feature_maps(z, y).predict_feature_maps(x).numpy()
    if name == "Ash":
        return detector.ASH(None, flat, "ash-b", 0.65).predict_feature_maps(x[:, :, None, None]).numpy()
    assert name == "She"
    return detector.SHE(None, model).fit_features(z, y).predict_features(x).numpy()


@pytest.mark.parametrize("kind", [kind for kind in SCORES if kind not in (Mahalanobis, FeatureShaping)])
def test_equals_pytorch_ood(kind: type[Score], head: LinearHead) -> None:
    np.testing.assert_allclose(_fitted(kind, head).score(_queries()), _reference(kind.__name__, head), 1e-5, 1e-5)


def test_mahalanobis_equals_references(head: LinearHead) -> None:
    features, labels = _blobs()
    own = _fitted(Mahalanobis, head).score(_queries())
    means = np.stack([features[labels == c].mean(axis=0) for c in range(CLASSES)])
    covariance = EmpiricalCovariance(assume_centered=True).fit((features - means[labels]).astype(np.float64))
    each = [covariance.mahalanobis(_queries().astype(np.float64) - mean) for mean in means]
    np.testing.assert_allclose(own, np.min(each, axis=0), rtol=1e-4)
    z, y = torch.from_numpy(features), torch.from_numpy(labels)
    theirs = detector.Mahalanobis(None).fit_features(z, y).predict_features(torch.from_numpy(_queries())).numpy()
    np.testing.assert_allclose(own, 2 * len(features) * theirs, rtol=1e-3)  # half, and not divided by n


def test_mahalanobis_with_fewer_images_than_dimensions() -> None:
    features, labels = _blobs(16)
    own = Mahalanobis().fit(features, labels, CLASSES).score(_queries())
    means = np.stack([features[labels == c].mean(axis=0, dtype=np.float64) for c in range(CLASSES)])
    inverse = np.linalg.pinv(np.cov((features - means[labels]).T, bias=True), hermitian=True)
    each = [np.einsum("nd,de,ne->n", d, inverse, d) for d in (_queries() - mean for mean in means)]
    np.testing.assert_allclose(own, np.min(each, axis=0), rtol=1e-6)


def test_feature_shaping_by_hand() -> None:
    # Two classes that the head tells apart by which of two features is larger. All four values are 1 or 3; quantiles
    # without tails give the range [1, 3], two bins [1, 2) and [2, 3), so 3 itself lies beyond it. Bin 0 holds the ones:
    # each adds 1 x weight -1 to the logit of the class that the other feature speaks for. So the weights are (-1, 0)
    # times sqrt(2), and a query (1, 2.5) of class 1 scores -[sqrt(2) * 1 * -(-1)] = -(-1 * 1 * -sqrt(2)).
    one, zero = torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    head = LinearHead(2 * one - 1, zero, zero, zero + 1)
    features, labels = np.array([[3, 1], [1, 3]], dtype=np.float32), np.array([0, 1])
    shaping = FeatureShaping(bins=2, tail=0).fit(features, labels, 2, head)
    assert shaping.edges_.tolist() == [1, 2, 3]
    np.testing.assert_allclose(shaping.weights_, [-(2**0.5), 0])
    np.testing.assert_allclose(shaping.score(np.array([[1, 2.5], [0, 9]], dtype=np.float32)), [-(2**0.5), 0])


def test_feature_shaping_by_brute_force(head: LinearHead) -> None:
    features, _ = _blobs()
    own = _fitted(FeatureShaping, head)
    x, edges = features.astype(np.float64), own.edges_.numpy()
    assert edges[[0, -1]] == pytest.approx(np.quantile(features, [0.001, 0.999]))
    weight, bias = head.weight.numpy(), head.bias.numpy()
    added = weight[(x @ weight.T + bias).argmax(axis=1)] * x
    each = [added[(x >= low) & (x < high)].sum() for low, high in itertools.pairwise(edges)]
    np.testing.assert_allclose(own.weights_, np.array(each) / np.linalg.norm(each) * 10)
    expected = sum((own.weights_[i].item() * added * ((x >= edges[i]) & (x < edges[i + 1]))).sum(1) for i in range(100))
    np.testing.assert_allclose(own.score(features), -expected)


def test_odin_steps_towards_the_predicted_class(head: LinearHead) -> None:
    still, stepped = (_fitted(Odin, head, temperature=1.0, eps=eps).score(_queries()) for eps in (0.0, 0.0014))
    np.testing.assert_allclose(still, _fitted(MaximumSoftmax, head).score(_queries()))
    assert (stepped <= still).all() and (stepped < still).any()


def test_features_without_information() -> None:
    features, labels = np.ones((400, WIDTH), dtype=np.float32), np.arange(400) % CLASSES
    head = LinearHead.of(LogisticRegression(l2=1e-2).fit(features, labels, CLASSES))
    for kind in SCORES:
        if kind is She:
            with pytest.raises(UserError, match=r"of class 1 .* no training image is predicted rightly, as of 3 of 4"):
                kind().fit(features, labels, CLASSES, head)
            continue
        try:
            scores = kind().fit(features, labels, CLASSES, head).score(features[:9])
        except UserError as error:
            assert kind is Vim and "principal space" in str(error)
        else:
            assert np.isfinite(scores).all() and np.ptp(scores) == 0


@pytest.mark.parametrize(("images", "principal"), [(400, 12), (24, 12), (12, 6)])
def test_vim_leaves_some_of_the_training_images_over(head: LinearHead, images: int, principal: int) -> None:
    vim = Vim().fit(*_blobs(images), CLASSES, head)
    assert isinstance(vim, Vim) and vim.vim_.d == principal
    assert roc_auc_score(np.repeat([0, 1], 60), vim.score(_queries())) > 0.6


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", SCORES)
def test_same_on_a_gpu(kind: type[Score]) -> None:
    features, labels = _blobs()
    scores = []
    for device in ("cpu", "cuda"):
        head = LinearHead.of(LogisticRegression(l2=1e-2, device=device).fit(features, labels, CLASSES))
        scores.append(kind(device=device).fit(features, labels, CLASSES, head).score(_queries()))
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-4, atol=1e-4)
