"""What open_clip publishes, and where its weights and tokenizers lie: a file, the hub's cache, or the hub."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.utils import HfHubHTTPError
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.pretrained import download_pretrained_from_hf, download_pretrained_from_url
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer

from bob.backbones.checkpoint import find, locate, read_tensors
from bob.cards import BackboneCard, Weights
from bob.errors import UserError, did_you_mean, first_line
from bob.extras import import_extra

# Formats of Google's big_vision, which open_clip converts itself and numpy reads without unpickling.
_ARRAYS = (".npz", ".npy")
_URL_CACHE = Path("~/.cache/clip")
_TOKENIZER_FILE = "tokenizer.json"


def split(weights: Weights) -> tuple[str, str]:
    """Return architecture and tag, the latter "" if there is none."""
    architecture, _, tag = weights.model.partition("/")
    return architecture, tag


def require_known(architecture: str, tag: str, needs_tag: bool) -> None:
    """Fail unless open_clip has the architecture and, if one is given or needed, the tag.

    Raises:
        UserError: Suggesting close names and listing the tags.
    """
    known, tags = open_clip.list_models(), open_clip.list_pretrained_tags_by_model(architecture)
    if architecture not in known:
        raise UserError(f"open_clip has no architecture '{architecture}'.", did_you_mean(architecture, known))
    if tag and tag not in tags:
        remedy = f"{did_you_mean(tag, tags)} {_listed(architecture, tags)}"
        raise UserError(f"open_clip has no weights '{tag}' for {architecture}.", remedy)
    if needs_tag and not tag:
        raise UserError(f"'{architecture}' names an architecture but no weights.", _listed(architecture, tags))


def find_or_download(card: BackboneCard, published: dict[str, Any]) -> Path:
    """Path of the card's file, or of the published weights, from the cache if they are there.

    Args:
        card: Which checkpoint.
        published: open_clip's `pretrained_cfg` of its tag; may be empty if the card names a file.

    Raises:
        UserError: If there is no such file, or it is unsafe or damaged, or no network.
    """
    if card.weights.file:
        path = locate(card)
        if path.suffix not in _ARRAYS:
            read_tensors(path)
        return path
    return _cached(card.weights, published) or _downloaded(card, published)


def status(weights: Weights, published: dict[str, Any]) -> str:
    """Say in words where the weights are, or where they come from when first used."""
    if weights.file:
        path = find(weights)
        return f"here, {path}" if path and path.is_file() else f"not here; {weights.install or weights.file}"
    if not (origin := published.get("hf_hub") or published.get("url")):
        return "open_clip publishes none"
    path = _cached(weights, published)
    return f"here, {path}" if path else f"not here; downloaded from {origin.rstrip('/')} when first used"


def require_text_config(architecture: str) -> None:
    """Fail in one line if the architecture's text tower is described on the hub and that cannot be reached.

    Raises:
        UserError: Naming the repository.
    """
    repository = open_clip.get_model_config(architecture)["text_cfg"].get("hf_model_name")
    if repository:
        import_extra("transformers", "hf")
        if not _in_hub_cache(repository, ("config.json",)):
            with _as_missing(f"The text tower of open_clip's {architecture}", _fetch(repository, "config.json")):
                _ask_hub(repository, "config.json")


def open_tokenizer(architecture: str, context_length: int | None) -> Any:
    """open_clip's tokenizer of an architecture; one of the hub's is opened without it if it is in the cache.

    Raises:
        UserError: If its files are neither here nor reachable, or transformers is missing.
    """
    text = open_clip.get_model_config(architecture)["text_cfg"]
    repository = text.get("hf_tokenizer_name")
    if not repository:
        return open_clip.get_tokenizer(architecture, context_length=context_length)
    import_extra("transformers", "hf")
    if here := _in_hub_cache(repository, (_TOKENIZER_FILE,)):
        # By its folder: by its name, transformers asks for files that the repository need not have.
        length = context_length or text.get("context_length", DEFAULT_CONTEXT_LENGTH)
        options = {"tokenizer_mode": text.get("tokenizer_mode"), **text.get("tokenizer_kwargs", {})}
        return HFTokenizer(str(here.parent), length, **options)
    with _as_missing(f"The tokenizer of open_clip's {architecture}", _fetch(repository, '--include "*.json"')):
        _ask_hub(repository, _TOKENIZER_FILE)
        return open_clip.get_tokenizer(architecture, context_length=context_length, cache_dir=constants.HF_HUB_CACHE)


def tokenizer_identity(tokenizer: Any) -> dict[str, Any]:
    """Class, context length and, for a tokenizer that is not part of open_clip, a hash of what it does to text."""
    facts: dict[str, Any] = {"class": type(tokenizer).__name__, "context_length": tokenizer.context_length}
    hugging_face = getattr(tokenizer, "tokenizer", None)
    if hugging_face is not None:
        backend = getattr(hugging_face, "backend_tokenizer", None)
        rules = json.loads(backend.to_str()) if backend is not None else hugging_face.get_vocab()
        # Set anew by each call.
        rules = {key: value for key, value in rules.items() if key not in ("padding", "truncation")}
        facts["sha256"] = hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()
    return facts


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep open_clip from writing to, and setting up, the root logger in the block."""
    handler, before = logging.NullHandler(), logging.root.manager.disable
    logging.root.addHandler(handler)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
        logging.root.removeHandler(handler)


def _listed(architecture: str, tags: list[str]) -> str:
    if not tags:
        return f"open_clip publishes none: give a file, `open_clip:{architecture}@FILE`."
    return f"Its weights, as in `open_clip:{architecture}/{tags[0]}`: {', '.join(tags)}."


def _cached(weights: Weights, published: dict[str, Any]) -> Path | None:
    if published.get("hf_hub"):
        repository, names = _hub_files(published)
        return _in_hub_cache(repository, names, weights.revision)
    path = (_URL_CACHE / Path(published.get("url", "")).name).expanduser()
    return path if path.is_file() else None


def _downloaded(card: BackboneCard, published: dict[str, Any]) -> Path:
    with _as_missing(f"The checkpoint of open_clip's {card.weights.model}", _how_to_get(card, published)):
        if not published.get("hf_hub"):
            return Path(download_pretrained_from_url(published["url"]))
        repository, names = _hub_files(published)
        _ask_hub(repository, names[-1], card.weights.revision)
        return Path(download_pretrained_from_hf(repository, names[-1], revision=card.weights.revision or None))


def _hub_files(published: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Repository, and the names that open_clip looks for in it, the preferred one first."""
    repository, _, file = published["hf_hub"].rpartition("/")
    if not file:
        return repository, (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME)
    return repository, tuple(dict.fromkeys((str(Path(file).with_suffix(".safetensors")), file)))


def _in_hub_cache(repository: str, names: tuple[str, ...], revision: str = "") -> Path | None:
    found = (try_to_load_from_cache(repository, name, revision=revision or None) for name in names)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def _ask_hub(repository: str, file: str, revision: str = "") -> None:
    """Ask the hub once before a download: without a network the libraries' own retries take most of a minute."""
    with contextlib.suppress(HfHubHTTPError):  # it has answered; what it lacks, the download says
        get_hf_file_metadata(hf_hub_url(repository, file, revision=revision or None), timeout=10)


@contextlib.contextmanager
def _as_missing(what: str, remedy: str) -> Iterator[None]:
    """Say in one line that `what` cannot be downloaded, if that is what fails in the block."""
    try:
        yield
    except Exception as error:
        full_disk = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full_disk or not (isinstance(error, OSError) or type(error).__module__.startswith("httpx")):
            raise
        problem = f"{what} is not in the cache and cannot be downloaded ({first_line(error)})."
        raise UserError(problem, remedy) from error


def _how_to_get(card: BackboneCard, published: dict[str, Any]) -> str:
    if card.weights.install:
        return f"Run `{card.weights.install}`."
    by_file = f"or only the file, then `--backbone open_clip:{card.weights.model}@FILE`."
    if not published.get("hf_hub"):
        return f"On a machine with a network run `curl -LO {published['url']}` and copy it to {_URL_CACHE}, {by_file}"
    repository, names = _hub_files(published)
    files = '--include "open_clip_*"' if names[-1] == HF_WEIGHTS_NAME else names[-1]
    return f"{_fetch(repository, files).rstrip('.')}, {by_file}"


def _fetch(repository: str, files: str) -> str:
    return (
        f"On a machine with a network run `hf download {repository} {files}` and copy the cache folder ($HF_HOME) here."
    )
