"""Folders that bob fills itself: made once, verified at every opening, made again where one is missing or damaged."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bob import places
from bob.errors import UserError

_META = "meta.json"
_ATTEMPTS = 3


def ensure_folder(
    folder: Path, identity: Mapping[str, Any], write: Callable[[Path], None], facts: Mapping[str, Any] | None = None
) -> Path:
    """Return the folder, filling it first where it is missing, damaged or of another identity.

    Any number of processes may do this at once; all end with the same content.

    Args:
        folder: Where it lies.
        identity: What decides its content, JSON-ready; kept in it beside the checksums of its files.
        write: Fills an empty folder.
        facts: What else is worth keeping there.

    Raises:
        UserError: If it cannot be written, or reads back damaged.
    """
    try:
        for _ in range(_ATTEMPTS):
            if _is_intact(folder, identity):
                return folder
            _fill(folder, identity, write, facts or {})
        if _is_intact(folder, identity):
            return folder
    except OSError as error:
        raise UserError(
            f"Cannot write into {folder}: {error}.", "Free some space there, or set BOB_HOME to another folder."
        ) from error
    raise UserError(
        f"{folder} reads back damaged however often it is written.", "Set BOB_HOME to a folder on another disk."
    )


def _fill(folder: Path, identity: Mapping[str, Any], write: Callable[[Path], None], facts: Mapping[str, Any]) -> None:
    with places.atomic_folder(folder) as temporary:
        write(temporary)
        meta = {**identity, "sha256": _hashes(temporary), **facts}
        (temporary / _META).write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
        # Asked again, since another process may have put a good folder there while we were writing.
        if os.path.lexists(folder) and not _is_intact(folder, identity):
            _discard(folder)


def _is_intact(folder: Path, identity: Mapping[str, Any]) -> bool:
    try:
        meta = json.loads((folder / _META).read_text(encoding="utf-8"))
        same = all(meta[key] == value for key, value in identity.items())
        return same and meta["sha256"] == _hashes(folder)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, LookupError, TypeError):
        return False


def _hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but the one that says so; a file too many is damage too."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / _META)
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _discard(path: Path) -> None:
    # Moved aside in one step first, so that nobody ever opens a half-removed folder.
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        os.replace(path, aside / "damaged")
    except FileNotFoundError:
        pass  # another process was faster
    finally:
        shutil.rmtree(aside, ignore_errors=True)
