"""What the page says of each backbone: its card and its contact sheet."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from bob import places
from bob.errors import UserError
from bob.results.index import records_of
from bob.results.record import Record

_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Details:
    """What is said of one backbone.

    Attributes:
        fields: Term and text of what its newest record says.
        facts: Where the card's facts come from.
        references: A published score in words, and its source.
        sheet: Its contact sheet as a data URI, if there is one.
    """

    fields: list[tuple[str, str]]
    facts: list[str]
    references: list[tuple[str, str]]
    sheet: str | None = None


def details_of(results: Path, runs: pd.DataFrame) -> dict[str, Details]:
    """Read what the records of runs say of their backbones; of several records, the newest.

    Args:
        results: Folder of all records.
        runs: Some rows of what `index.read_runs` gave.

    Raises:
        UserError: If a record cannot be read.
    """
    runs = runs.sort_values(["created", "run_id"])
    newest = runs.drop_duplicates("backbone", keep="last")
    found = {record.request.backbone: _details(record) for record in records_of(results, newest)}
    return dict(sorted(found.items()))


def with_sheets(details: dict[str, Details], folder: Path) -> dict[str, Details]:
    """Put the contact sheets that `bob check` left in a folder beside what is said of their backbones.

    Two backbones whose sheets would have one file name get none, for nothing says whose it is.

    Raises:
        UserError: If a sheet cannot be read, or is no PNG.
    """
    names = Counter(map(places.sheet_name, details))
    return {
        name: replace(
            said, sheet=_sheet(folder / places.sheet_name(name)) if names[places.sheet_name(name)] == 1 else None
        )
        for name, said in details.items()
    }


def _sheet(path: Path) -> str | None:
    if not path.is_file():
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.", "Give another folder: --sheets DIR.") from error
    if not content.startswith(_PNG):
        raise UserError(f"{path} is no PNG.", "Make it again with `bob check NAME`, or move it away.")
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def _details(record: Record) -> Details:
    card = record.card
    references = [
        (f"{said.get('metric')} {said.get('value')} on {said.get('dataset')}", str(said.get("source") or ""))
        for said in card.get("references", ())
    ]
    facts = [str(fact) for fact in card.get("facts", ())]
    return Details([(term, text) for term, text in _fields(record) if text], facts, references)


def _fields(record: Record) -> Iterable[tuple[str, str]]:
    card, identity = record.card, record.request.backbone_identity
    weights = card.get("weights") or {}
    images = card.get("pretraining_images")
    yield "What it is", _text(card.get("description"))
    yield "Method", _text(card.get("method"))
    yield "Architecture", _text(card.get("architecture"))
    yield "Pretrained on", _text(card.get("pretraining_data"))
    yield "Pretraining images", f"{images:,}" if isinstance(images, int) else ""
    yield "Parameters", f"{record.cost.parameters:,}"
    yield "FLOPs of one image", f"{record.cost.flops:,}"
    yield "Feature", _feature(record)
    yield from _input(identity.get("preprocess") or {})
    yield "Licence", _text(card.get("licence"))
    source = " ".join(filter(None, map(_text, (weights.get("source"), weights.get("model")))))
    yield "Weights", source if weights.get("pretrained", True) else f"{source}, at random initialisation"
    yield "File", _text(weights.get("file"))
    yield "Revision", _text(weights.get("revision"))
    yield "SHA-256 of the weights", _text(identity.get("weights_sha256"))
    yield "Installed by", _text(weights.get("install"))


def _feature(record: Record) -> str:
    feature = record.request.backbone_identity.get("feature") or {}
    pooling = feature.get("pooling", "default")
    parts = [_text(feature.get("layer")), "" if pooling == "default" else f"pooling {pooling}"]
    return ", ".join(filter(None, [*parts, f"width {record.feature_width:,}" if record.feature_width else ""]))


def _input(preprocess: dict[str, Any]) -> Iterable[tuple[str, str]]:
    """How an image is made ready, as far as the record says."""
    if "size" in preprocess:
        height, width = preprocess["size"]
        crop = [f"{preprocess.get('crop_mode')} crop {preprocess.get('crop_fraction'):.3g}"]
        yield "Input", ", ".join([f"{height} \u00d7 {width}", *crop, _text(preprocess.get("interpolation"))])
    if "mean" in preprocess:
        mean, std = (", ".join(f"{value:.3g}" for value in preprocess[key]) for key in ("mean", "std"))
        yield "Normalised by", f"mean {mean}; deviation {std}"


def _text(value: object) -> str:
    return "" if value is None else str(value)
