"""Backbones to check: real weights at a small size, and user code that wraps them and does one thing wrong."""

from __future__ import annotations

import sys
import textwrap

import pytest
import torch

from bob.backbones import user_code
from bob.backbones.sources import open_backbone, resolve_backbone
from bob.catalogue import load_backbone_cards
from bob.check.base import open_subject
from bob.features.extract import Extraction

SIZE = 128
WRAPPER = """
    import torch
    import torch.nn.functional as F
    from torch import nn
    from bob.backbones.preprocess import Preprocess
    from bob.backbones.sources import open_backbone
    from bob.catalogue import load_backbone_cards

    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            backbone = open_backbone(load_backbone_cards()["efficientnet_lite0"])
            self.trunk = backbone.model
            self.preprocess = Preprocess((128, 128), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

        def forward(self, x):
            {body}

        {more}

    def make():
        return Wrapper()
    """


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory):
    """One BOB_HOME for all of these tests, so that `shapes` is drawn once."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOB_HOME", str(folder))
        patch.delenv("BOB_DATA", raising=False)
        yield folder


@pytest.fixture(scope="session")
def how():
    """float32 on the CPU."""
    return Extraction(torch.device("cpu"), workers=0)


@pytest.fixture(scope="session")
def altered():
    """A function that gives a built-in card with other weights or preprocessing, at a small size."""
    cards = load_backbone_cards()

    def alter(name, weights=None, **preprocess):
        card = resolve_backbone(name, cards)
        preprocess = card.preprocess.model_copy(update={"size": (SIZE, SIZE), **preprocess})
        return card.model_copy(
            update={"weights": card.weights.model_copy(update=weights or {}), "preprocess": preprocess}
        )

    return alter


@pytest.fixture(scope="session")
def subject_of(how):
    """A function from a card to the subject of a check."""
    return lambda card: open_subject(open_backbone(card), how)


@pytest.fixture(scope="session")
def healthy(altered, subject_of):
    """EfficientNet-Lite0 with its ImageNet weights."""
    return subject_of(altered("efficientnet_lite0"))


@pytest.fixture
def wrapped(tmp_path, subject_of):
    """A function that writes a user's wrapper around EfficientNet-Lite0 and opens it."""
    path, folders, modules = list(sys.path), list(user_code._folders), set(sys.modules)

    def wrap(body="return self.trunk(x)", more="pass"):
        text = textwrap.dedent(WRAPPER).replace("{body}", body).replace("{more}", more)
        (tmp_path / "mine.py").write_text(text)
        return subject_of(resolve_backbone(f"{tmp_path}/mine.py:make", {}))

    yield wrap
    sys.path[:], user_code._folders[:] = path, folders
    for name in set(sys.modules) - modules:
        if "pytest-of" in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]
