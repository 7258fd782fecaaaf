"""Where bob keeps things on disk, and how it writes them so that a kill never leaves half a file."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs


def home() -> Path:
    """Folder of features and rendered data: `$BOB_HOME`, else the platform's cache folder."""
    return Path(os.environ.get("BOB_HOME") or platformdirs.user_cache_dir("bob")).expanduser()


def data_root() -> Path:
    """Folder of downloaded data sets: `$BOB_DATA`, else `data` under `home()`."""
    given = os.environ.get("BOB_DATA")
    return Path(given).expanduser() if given else home() / "data"


def shipped(folder: str) -> Path:
    """A folder of the repository that travels inside the installed package; in a checkout it lies beside it."""
    package = Path(__file__).parent
    inside = package / Path(folder).name
    return inside if inside.is_dir() else package.parent / folder


def sheet_name(backbone: str) -> str:
    """The file name of a backbone's contact sheet, as `bob check` writes it and `bob report` finds it."""
    return f"check-{re.sub(r'[^A-Za-z0-9._-]+', '-', backbone)}.png"


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; it takes `path`'s name only when the block ends without error."""
    temporary = _beside(path)
    temporary.touch(exist_ok=False)
    try:
        yield temporary
        _flush_to_disk(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`; it takes `path`'s name only when the block ends without error.

    If another process has made `path` in the meantime, its folder stays and ours is thrown away.
    """
    temporary = _beside(path)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _flush_to_disk(file)
        try:
            os.rename(temporary, path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _beside(path: Path) -> Path:
    """A new name in `path`'s folder; not by `tempfile`, which would give permissions that only this user has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name[:50]}.{secrets.token_hex(8)}")


def _flush_to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
