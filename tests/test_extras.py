"""A library that is not installed is missed in one line, with the command that installs it."""

import pytest

from bob.errors import UserError
from bob.extras import import_extra


def test_what_is_installed_is_imported():
    assert import_extra("json.decoder", "hf").__name__ == "json.decoder"


def test_a_missing_library_is_named_with_what_its_extra_needs(monkeypatch):
    monkeypatch.setattr("importlib.import_module", _missing("transformers"))
    with pytest.raises(UserError) as error:
        import_extra("transformers.models", "hf")
    line = str(error.value)
    assert line.startswith("transformers is not installed. Run `pip install '")
    assert "'transformers>=" in line and "'diffusers>=" in line and "pytest" not in line and "timm" not in line


def test_what_a_library_lacks_itself_is_not_ours(monkeypatch):
    monkeypatch.setattr("importlib.import_module", _missing("something_below"))
    with pytest.raises(ModuleNotFoundError, match="something_below"):
        import_extra("transformers", "hf")


def _missing(name):
    def fail(_):
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    return fail
