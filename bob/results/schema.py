"""The form of a record, as JSON Schema: for those who read records without bob."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

from pydantic import BaseModel

from bob.results.record import Cost, MetricResult, Record, Request

# The version of the schema that brought each key which the first did not have.
SINCE = {"per_group": 2, "breakdown": 3, "content_sha256": 4, "resampled": 4, "command": 4}
_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n {8,}.*)*)", re.MULTILINE)


def record_schema() -> dict[str, Any]:
    """JSON Schema of a record, draft 2020-12: its keys, their types, and what each says.

    Records of older versions fit it too: what they lack is not required.
    """
    schema = Record.model_json_schema()
    parts = schema["$defs"]
    for model, described in (
        (Record, schema),
        *((part, parts[part.__name__]) for part in (Request, MetricResult, Cost)),
    ):
        _describe(model, described)
    title = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Record of a run of bob"}
    return title | {key: value for key, value in schema.items() if key not in title}


def as_text() -> str:
    """The schema as the file that is published."""
    return json.dumps(record_schema(), indent=1) + "\n"


def _describe(model: type[BaseModel], schema: dict[str, Any]) -> None:
    """Take the descriptions of a model and its fields from its docstring, and leave out titles that repeat the keys."""
    said = inspect.getdoc(model) or ""
    schema["description"] = _flat(said.partition("\n\nAttributes:\n")[0])
    known = {name: _flat(text) for name, text in _ATTRIBUTE.findall(said.partition("\n\nAttributes:\n")[2])}
    for key, described in schema["properties"].items():
        described.pop("title", None)
        if key in known:
            described["description"] = known[key]
        if key in SINCE and model is Record:
            described["description"] = f"{described.get('description', '')} Since schema {SINCE[key]}.".strip()


def _flat(text: str) -> str:
    return " ".join(text.split())
