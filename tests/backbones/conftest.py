"""What the tests of the backbones share: photographs, cards, a user's files, and a hub that is not there."""

import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image

from bob.backbones import user_code
from bob.cards import BackboneCard, Feature, PreprocessOverride, Weights
from bob.errors import UserError


@pytest.fixture(scope="session")
def photos():
    """Name -> uint8 (427, 640, 3) of scikit-learn's two photographs."""
    return {name: np.array(load_sample_image(f"{name}.jpg")) for name in ("china", "flower")}


@pytest.fixture(scope="session")
def make_card():
    """A function from the keys of `[weights]` to a card."""

    def make(source="timm", preprocess=None, feature=None, **weights):
        return BackboneCard(
            name="mine",
            weights=Weights(source=source, **weights),
            preprocess=PreprocessOverride(**preprocess or {}),
            feature=Feature(**feature or {}),
        )

    return make


@pytest.fixture
def write(tmp_path):
    """A function that writes a user's Python file below `tmp_path` and returns its path."""

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    return write


@pytest.fixture(autouse=True)
def fresh_imports():
    """Forget what a test imported from files of its own."""
    path, folders, modules = list(sys.path), list(user_code._folders), set(sys.modules)
    yield
    sys.path[:], user_code._folders[:] = path, folders
    for name in set(sys.modules) - modules:
        if "pytest-of" in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """Folder of an empty hub cache, on a machine from which no hub can be reached."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("hub")
        patch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
        template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
        patch.setenv("TORCH_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def refused():
    """A context that expects a UserError: one readable line, holding every given text."""

    @contextmanager
    def expect(*texts):
        with pytest.raises(UserError) as error:
            yield
        line = str(error.value)
        assert "\n" not in line and "\x1b" not in line
        assert ".." not in line.replace("...", "") and line.endswith((".", "?"))
        assert len(line) < 1000
        for text in texts:
            assert str(text) in line, f"{text!r} not in {line!r}"

    return expect


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Folder with test_resnet's weights, initialised with seed 7, in many forms."""
    import timm
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("checkpoints")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        state = timm.create_model("test_resnet").state_dict()
    renamed = {f"their.{i}.{name.rpartition('.')[2]}": tensor for i, (name, tensor) in enumerate(state.items())}
    torch.save(state, folder / "plain.pth")
    torch.save(renamed, folder / "renamed.pth")
    save_file(state, folder / "plain.safetensors")
    _hub_layout(folder / "hub", state)
    return folder


def _hub_layout(cache: Path, state):
    """The files that huggingface_hub leaves after downloading test_resnet."""
    from safetensors.torch import save_file

    repository = cache / "models--timm--test_resnet.r160_in1k"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    save_file(state, snapshot / "model.safetensors")
