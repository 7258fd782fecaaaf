"""Files of a Hugging Face repository: from its cache, from the hub, or from a folder of the user's."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from urllib.parse import quote

from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from bob.cards import Weights
from bob.errors import UserError, first_line

# Seconds to wait for the hub's answer; without a network the user should not wait longer for the error.
_TIMEOUT = 10


def fetch(weights: Weights, patterns: Sequence[str]) -> Path:
    """Return the folder that holds a repository's files of these names, downloading what the cache lacks.

    A `weights.model` that is a folder on this machine is that folder. `HF_HOME` and `HF_HUB_OFFLINE` are respected;
    without a network the cached files are used as they are.

    Args:
        weights: `model` is the repository or folder, `revision` its branch, tag or commit.
        patterns: Globs of paths inside the repository; the first one is the name of a file that it has.

    Raises:
        UserError: If there is no such repository or revision, or it is not cached and the hub does not answer.
    """
    if local := local_folder(weights):
        return local
    try:
        silence = _silence(weights, patterns[0])
        return Path(
            snapshot_download(
                weights.model,
                revision=weights.revision or None,
                allow_patterns=list(patterns),
                cache_dir=constants.HF_HUB_CACHE,
                endpoint=constants.ENDPOINT,
                local_files_only=silence is not None,
            )
        )
    except LocalEntryNotFoundError as error:
        raise _unreachable(weights, silence or error.__cause__ or error) from error
    except Exception as error:
        if not _is_about_hub(error):
            raise
        raise _unreachable(weights, error) from error


def local_folder(weights: Weights) -> Path | None:
    """The folder on this machine that `weights.model` names, if it names one.

    Raises:
        UserError: If the card asks for a revision of it.
    """
    folder = Path(weights.model).expanduser()
    if not folder.is_dir():
        return None
    if weights.revision:
        raise UserError(f"{folder} is a folder, so it has no revision '{weights.revision}'.", "Drop the revision.")
    return folder


def commit_of(folder: Path) -> str | None:
    """The commit that a folder of the cache holds; None for any other folder."""
    is_snapshot = folder.parent.name == "snapshots" and re.fullmatch("[0-9a-f]{40}", folder.name)
    return folder.name if is_snapshot else None


def status(weights: Weights, files: Sequence[str]) -> str:
    """Say in words whether one of these files is on this machine, and if not how it gets here."""
    if local := local_folder(weights):
        return f"here, {local}"
    for file in files:
        try:
            path = try_to_load_from_cache(
                weights.model, file, cache_dir=constants.HF_HUB_CACHE, revision=weights.revision or None
            )
        except HFValidationError:
            return f"not here; '{weights.model}' is no folder and no repository"
        if isinstance(path, str):
            return f"here, {path}"
    return f"not here; downloaded from {weights.model} when first used"


@contextmanager
def quiet(*libraries: ModuleType) -> Iterator[None]:
    """Keep load reports of transformers and diffusers off the terminal: what matters in them is an error in bob."""
    logs = [library.utils.logging for library in libraries]
    levels = [log.get_verbosity() for log in logs]
    bars = [log for log in logs if log.is_progress_bar_enabled()]
    for log in logs:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.set_verbosity(level)
        for log in bars:
            log.enable_progress_bar()


def lacks(weights: Weights, folder: Path, file: str) -> UserError:
    """The error for a repository, or a copy of it, without a file that it must have."""
    if local_folder(weights):
        return UserError(f"The folder {folder} has no {file}.", "Save the model there with `save_pretrained`.")
    return UserError(f"'{weights.model}' has no {file}, or the cache holds only a part of it.", _remedy(weights))


def _silence(weights: Weights, file: str) -> Exception | None:
    """Ask the hub once, and return why it gives no answer: without a network its own retries take most of a minute."""
    revision = quote(weights.revision or constants.DEFAULT_REVISION, safe="")
    url = f"{constants.ENDPOINT}/{weights.model}/resolve/{revision}/{file}"
    try:
        validate_repo_id(weights.model)
        get_hf_file_metadata(url, timeout=_TIMEOUT)
    except (HfHubHTTPError, HFValidationError):
        return None  # it has answered; what it lacks, the download says
    except Exception as error:
        if not _is_about_hub(error):
            raise
        return error
    return None


def _is_about_hub(error: Exception) -> bool:
    if isinstance(error, OSError):
        # Every failure of the hub's client is one, or httpx's own; a full disk is another matter.
        return error.errno not in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, HFValidationError) or type(error).__module__.startswith("httpx")


def _unreachable(weights: Weights, error: BaseException) -> UserError:
    where = f"'{weights.model}'" + (f" at revision '{weights.revision}'" if weights.revision else "")
    if isinstance(error, HFValidationError):
        return UserError(f"'{weights.model}' is no folder and no name of a repository.", "Give OWNER/NAME, or a path.")
    if isinstance(error, GatedRepoError):
        return UserError(f"Access to {where} is restricted.", "Accept its terms on its page, then `hf auth login`.")
    if isinstance(error, RevisionNotFoundError):
        return UserError(f"The hub has no {where}.", "Correct weights.revision.")
    if isinstance(error, RepositoryNotFoundError):
        return UserError(f"The hub has no {where}, or it is private.", "Correct the name, or `hf auth login`.")
    return UserError(f"{where} is not in the cache and cannot be downloaded ({first_line(error)}).", _remedy(weights))


def _remedy(weights: Weights) -> str:
    revision = f" --revision {weights.revision}" if weights.revision else ""
    return (
        f"On a machine with a network run `hf download {weights.model}{revision}` and copy the cache folder here "
        f"({constants.HF_HUB_CACHE}; $HF_HOME moves it), or give a folder that holds the files."
    )
