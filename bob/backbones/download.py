"""Publishers' checkpoint files over https, into torch.hub's cache: resumed, checked, in place only when whole."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPMessage
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeGuard
from urllib.parse import SplitResult, unquote, urlsplit

import torch
from filelock import FileLock
from huggingface_hub import constants as hub
from huggingface_hub.utils import tqdm

from bob.errors import UserError, first_line

_CHUNK = 1 << 20
_TIMEOUT = 15.0  # seconds without an answer or a byte
_TRIES = 3  # each goes on where the last one broke off
_LOCAL = ("localhost", "127.0.0.1")


class _BrokenOff(Exception):
    """The transfer began and ended early; what has arrived is kept."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        _require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def is_url(file: str | None) -> TypeGuard[str]:
    """Whether `weights.file` is to be downloaded."""
    return bool(file) and str(file).partition("://")[0].lower() in ("http", "https")


def cached(url: str) -> Path:
    """Where the file of a URL lies once downloaded: HOST/PATH below torch.hub's checkpoints, since names repeat.

    Raises:
        UserError: If the URL names no file.
    """
    try:
        parts = urlsplit(url)
        host = _host(parts)
    except ValueError:  # a port or an address in brackets that is none
        host = ""
    folders = [part for part in PurePosixPath(unquote(parts.path)).parts if part != "/"] if host else []
    if not folders or any(part in (".", "..") or "\\" in part for part in folders):
        raise UserError(f"'{url}' names no file to download.", "Give the whole https address of the file.")
    if parts.query:  # another query may be another file
        folders[-1] = f"{hashlib.sha256(parts.query.encode()).hexdigest()[:8]}-{folders[-1]}"
    return Path(torch.hub.get_dir(), "checkpoints", host, *folders)


def torch_hub_file(url: str) -> Path:
    """Where torch.hub itself, and so timm and torchvision, keeps the file of a URL: by its name alone."""
    return Path(torch.hub.get_dir(), "checkpoints", PurePosixPath(urlsplit(url).path).name)


def fetch(url: str, sha256: str | None = None) -> Path:
    """Return the cached file of a URL, after downloading it if it is not there.

    A transfer that broke off goes on where it stopped, in this call or the next; two processes wait for one another.
    The cache is `$TORCH_HOME/hub/checkpoints`; with HF_HUB_OFFLINE=1 nothing is downloaded.

    Args:
        url: https (http for this machine alone).
        sha256: Checksum that the file must have, hex.

    Raises:
        UserError: If it cannot be downloaded or written, or has another checksum; says where to put it by hand.
    """
    path = cached(url)
    _require_https(url)
    if path.is_file():
        return path
    if hub.HF_HUB_OFFLINE:
        raise _cannot(url, "HF_HUB_OFFLINE is set")
    with _as_user_error(url, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.is_file():  # another process may have had the lock
                partial = _transfer(url, path)
                _require_checksum(partial, url, sha256)
                os.replace(partial, path)
                _validator(partial).unlink(missing_ok=True)
    return path


def _transfer(url: str, path: Path) -> Path:
    """Bring the whole file to PATH.partial."""
    partial = path.with_name(f"{path.name}.partial")
    for attempt in range(1, _TRIES + 1):
        try:
            _continue(url, partial)
            return partial
        except _BrokenOff:
            if attempt == _TRIES:
                raise
    raise _BrokenOff(url)


def _continue(url: str, partial: Path) -> None:
    """Request what is missing of the partial file and append it, or all of it if the server's file has changed."""
    with _response(url, partial) as response:
        start = _start(response, partial)
        total = _total(response, start)
        _require_file(response)
        _require_space(partial, (total or 0) - start)
        if start == 0:
            _remember_validator(response, partial)
        with partial.open("r+b" if start else "wb") as file:
            file.seek(start)
            file.truncate()
            _copy(response, file, start, total)
    if total is not None and partial.stat().st_size != total:
        raise _BrokenOff(f"it ended after {partial.stat().st_size:,} of {total:,} bytes")


def _response(url: str, partial: Path) -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": "bob", "Accept-Encoding": "identity"})
    have, validator = partial.stat().st_size if partial.is_file() else 0, _validator(partial)
    if have and validator.is_file():
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", validator.read_text())  # the whole file if it is another one by now
    try:
        return urllib.request.build_opener(_Redirects).open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not request.has_header("Range"):
            raise
        # Nothing follows what is here, so it may be whole, or of another file: that costs one more download.
        validator.unlink(missing_ok=True)
        return _response(url, partial)


def _start(response: Any, partial: Path) -> int:
    """Byte at which the response begins; 0 if the server sends everything."""
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        return 0
    have = partial.stat().st_size
    sent = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if not sent or int(sent[1]) != have:
        _validator(partial).unlink(missing_ok=True)
        raise _BrokenOff("the server sent another part of the file than the missing one")
    return have


def _total(response: Any, start: int) -> int | None:
    """Bytes of the whole file; None if the server does not say."""
    length = response.headers.get("Content-Length")
    return start + int(length) if length and length.isdigit() else None


def _copy(response: Any, file: IO[bytes], start: int, total: int | None) -> None:
    name = Path(file.name).name.removesuffix(".partial")
    # Hugging Face's bar, as for every other download: on standard error, off with HF_HUB_DISABLE_PROGRESS_BARS=1.
    with tqdm(desc=name, total=total, initial=start, unit="B", unit_scale=True) as bar:
        while chunk := _read(response):
            file.write(chunk)
            bar.update(len(chunk))


def _read(response: Any) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOff(first_line(error)) from error


def _validator(partial: Path) -> Path:
    """The file that tells which version of the server's file the partial one is of."""
    return partial.with_name(f"{partial.name}.validator")


def _remember_validator(response: Any, partial: Path) -> None:
    etag = response.headers.get("ETag", "")
    strong = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")
    validator = _validator(partial)
    validator.unlink(missing_ok=True)
    if strong:
        # The old bytes go first: a validator must never stand beside those of another version.
        partial.unlink(missing_ok=True)
        validator.write_text(strong)


def _require_checksum(partial: Path, url: str, sha256: str | None) -> None:
    if not sha256:
        return
    with partial.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        partial.unlink()
        _validator(partial).unlink(missing_ok=True)
        raise UserError(
            f"What {url} sent has SHA-256 {found[:12]}..., but the card says {sha256[:12]}....",
            "Run it again; if it stays so, the publisher has changed the file.",
        )


def _require_https(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOCAL):
        raise UserError(f"{url} is not https.", "Download it by hand and give its path.")


def _require_file(response: Any) -> None:
    if response.headers.get_content_type() == "text/html":
        raise urllib.error.URLError("the server answered with a web page")


def _require_space(partial: Path, needed: int) -> None:
    free = shutil.disk_usage(partial.parent).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free")


@contextlib.contextmanager
def _as_user_error(url: str, path: Path) -> Iterator[None]:
    """Say in one line what stopped a download, and what to do."""
    try:
        yield
    except _BrokenOff as error:
        raise UserError(f"The download of {url} broke off ({error}).", "Run it again: it goes on there.") from error
    except urllib.error.HTTPError as error:
        raise _cannot(url, f"the server says {error.code} {error.reason}") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise _cannot(url, str(getattr(error, "reason", None) or first_line(error))) from error
    except OSError as error:
        raise UserError(
            f"Cannot write {path} ({first_line(error)}).", "Free some space, or set TORCH_HOME to another folder."
        ) from error


def _cannot(url: str, reason: str) -> UserError:
    return UserError(
        f"Cannot download {url} ({' '.join(reason.split()).rstrip('.')}).",
        f"On a machine with a network run `curl -LO {url}`, and put the file here as {cached(url)}.",
    )


def _host(parts: SplitResult) -> str:
    port = f"_{parts.port}" if parts.port else ""  # a colon is no character for a folder everywhere
    return f"{parts.hostname}{port}" if parts.hostname else ""
