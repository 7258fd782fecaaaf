"""Importing and running code that is the user's own: their mistakes in one line, and a hash of what they wrote."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import sys
import sysconfig
import textwrap
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from bob.errors import UserError

T = TypeVar("T")
_BOB = Path(__file__).resolve().parents[1]
_LIBRARIES = {Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
# Folders of user files, newest first: they stand at the end of `sys.path`, where they hide nothing.
_folders: list[str] = []


def import_user_module(where: str) -> ModuleType:
    """Import `file.py` or `package.module`; what lies beside it is importable, as when it is run as a script.

    Raises:
        UserError: If it is not there, or fails while it is imported.
    """
    if not where.endswith(".py"):
        return run_user_code(where, lambda: _import_named(where))
    path = Path(where).expanduser().resolve()
    if not path.is_file():
        raise UserError(f"There is no file {where}.", "Give the path of a Python file, as in `my_model.py:make`.")
    return run_user_code(where, lambda: _import_file(path))


def run_user_code(what: str, run: Callable[[], T]) -> T:
    """Run code that is not ours; an error in it is the user's to mend, so it becomes one line with its place.

    Raises:
        UserError: If it raises anything or exits.
    """
    try:
        return run()
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        message = error.msg if isinstance(error, SyntaxError) else error
        problem = textwrap.shorten(f"{what} failed: {type(error).__name__}: {message}", 500).rstrip(".: ")
        place = _place(error)
        remedy = (
            f"Mend {place}."
            if place
            else "It is called with the card's weights.options alone, its model with images (B, 3, H, W)."
        )
        raise UserError(f"{problem}.", remedy) from error


def source_sha256(module: ModuleType) -> str:
    """Hash (hex) of a module's file and of every file beside or below it that it imports, however indirectly.

    Of an installed package, the hash of all its files.

    Raises:
        UserError: If it has no file, as in an interactive session.
    """
    if not getattr(module, "__file__", None):
        raise UserError(f"The module '{module.__name__}' lies in no file.", "Save it, so that its code can be hashed.")
    file = Path(str(module.__file__)).resolve()
    above = module.__name__.count(".") + (file.name == "__init__.py")
    root = file.parents[above]
    if root not in _LIBRARIES:
        files = _reachable_files(file, root)
    else:
        files = set(file.parents[above - 1].rglob("*.py")) if above else {file}
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _import_named(name: str) -> ModuleType:
    _make_importable(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise UserError(
                f"There is no module '{error.name}'.", "Install it, or give a file, as in `my_model.py:make`."
            ) from error
        raise


def _import_file(path: Path) -> ModuleType:
    # A name of its own, so that the user's `torch.py` or `bob.py` hides nothing.
    name = f"_bob_custom_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} cannot be imported.", "Give the path of a Python file.")
    module = importlib.util.module_from_spec(spec)
    _make_importable(path.parent)
    sys.modules[name] = module  # pickling and dataclasses look a class's module up by name
    spec.loader.exec_module(module)
    return module


def _make_importable(folder: Path) -> None:
    """Put a user's folder behind what is installed but before other users' folders, and drop their namesakes."""
    importlib.invalidate_caches()
    others = [other for other in _folders if other != str(folder)]
    installed = [entry for entry in sys.path if entry not in _folders]
    _folders[:] = others if str(folder) in installed else [str(folder), *others]
    sys.path[:] = [*installed, *_folders]
    own = {entry.stem for entry in folder.iterdir() if entry.suffix == ".py" or entry.is_dir()} - {"bob"}
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        if top in own and any(_lies_in(module, top, Path(other)) for other in others):
            del sys.modules[name]


def _lies_in(module: ModuleType, top: str, folder: Path) -> bool:
    """Whether a module comes from `folder/top` or `folder/top.py`."""
    file = Path(getattr(module, "__file__", None) or "/")
    return file == folder / f"{top}.py" or file.is_relative_to(folder / top)


def _reachable_files(file: Path, root: Path) -> set[Path]:
    """Files below `root` that importing `file` may load.

    Read from the import statements: which modules are loaded depends on what else has run in this process.
    """
    seen, todo = {file}, [file]
    while todo:
        found = set(_imported_files(todo.pop(), root)) - seen
        seen |= found
        todo += found
    return seen


def _imported_files(file: Path, root: Path) -> Iterator[Path]:
    """Files below `root`, bob's own left out, that the import statements anywhere in `file` may load."""
    package = file.parent.relative_to(root).parts
    for parts in _imported_names(file, package):
        for length in range(1, len(parts) + 1):
            stem = root.joinpath(*parts[:length])
            for candidate in (stem.with_name(f"{stem.name}.py"), stem / "__init__.py"):
                if candidate.is_file() and not candidate.is_relative_to(_BOB):
                    yield candidate


def _imported_names(file: Path, package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Absolute dotted names, split, of what the import statements in `file` may load."""
    tree = ast.Module([], [])
    with contextlib.suppress(SyntaxError, ValueError):  # such a file cannot have been imported
        tree = ast.parse(file.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module or "").split(".")) if node.module else base
            yield from ((*module, alias.name) for alias in node.names)


def _place(error: BaseException) -> str:
    """`file:line` of the last line that is the user's; "" if no line is."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_library(frame.filename)]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _is_library(filename: str) -> bool:
    path = Path(filename).resolve()
    return filename.startswith("<") or any(path.is_relative_to(folder) for folder in (_BOB, *_LIBRARIES))
