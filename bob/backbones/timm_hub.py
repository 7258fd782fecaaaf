"""Where timm's weights come from: the cache, the hub, and what to say when neither has them."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

import timm
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.utils import HfHubHTTPError

from bob.backbones.download import torch_hub_file
from bob.cards import Weights
from bob.errors import UserError, first_line


@contextlib.contextmanager
def download_of(name: str) -> Iterator[None]:
    """Make sure that the weights of a timm model can be had, and say how to get them where the block cannot.

    Raises:
        UserError: If they are not in the cache and cannot be downloaded.
    """
    try:
        _require_hub(name)
        yield
    except Exception as error:
        if not is_about_download(error):
            raise
        raise UserError(
            f"The weights of '{name}' are not in the cache and cannot be downloaded ({first_line(error)}).",
            _how_to_get(name),
        ) from error


def is_about_download(error: Exception) -> bool:
    """Whether an error of timm, huggingface_hub or their HTTP libraries says that weights could not be downloaded."""
    if isinstance(error, OSError):
        # urllib, requests and huggingface_hub raise kinds of OSError; a full disk is another matter.
        return error.errno not in (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, RuntimeError):
        return "no pretrained weights" in str(error).lower()
    return type(error).__module__.startswith("httpx")


def weights_status(weights: Weights) -> str:
    """Say in words whether timm's weights for a model are in the cache."""
    config = timm.get_pretrained_cfg(weights.model)
    if config is None or not (config.hf_hub_id or config.url):
        return "timm publishes none"
    if config.hf_hub_id:
        found = _in_hub_cache(config.hf_hub_id)
        return f"here, {found}" if found else f"not here; downloaded from {config.hf_hub_id} when first used"
    path = torch_hub_file(str(config.url))
    return f"here, {path}" if path.is_file() else f"not here; downloaded from {config.url} when first used"


def _require_hub(name: str) -> None:
    """Ask the hub once before a download: without a network its own retries take most of a minute."""
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id or _in_hub_cache(config.hf_hub_id):
        return
    with contextlib.suppress(HfHubHTTPError):  # it has answered; what it lacks, the download says
        get_hf_file_metadata(hf_hub_url(config.hf_hub_id, "config.json"), timeout=10)


def _how_to_get(name: str) -> str:
    config = timm.get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url):
        return f"timm publishes none for it: give a file, `--backbone timm:{name}@WEIGHTS`, or use '{name}.random'."
    if not config.hf_hub_id:
        place = torch_hub_file(str(config.url))
        return f"On a machine with a network run `curl -LO {config.url}` and put the file here as {place}."
    return (
        f"On a machine with a network run `hf download {config.hf_hub_id}` and copy the file here, then "
        f"`--backbone timm:{name}@FILE`, or copy the cache folder ($HF_HOME)."
    )


def _in_hub_cache(repository: str) -> str | None:
    """Path of the weights in huggingface_hub's cache, under one of the names that timm gives them."""
    found = [try_to_load_from_cache(repository, file) for file in ("model.safetensors", "pytorch_model.bin")]
    return next((path for path in found if isinstance(path, str)), None)
