"""The JSON schema that a request asks for, and whether a value is valid against it.

Both are a client's word, so the work is bounded by construction: no part of a schema is asked twice about the same
part of a value, however many references lead there, and a check ends after ``MOST_STEPS`` in any case. A reference
leads within the schema and nowhere else, and a client's regular expressions are not run. What is left out so cannot
be told, which is no fault of any answer's: only what is surely wrong is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from router.scoring.checks import Beyond, Check, Told
from router.scoring.keywords import KEYWORDS


def schema_of(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema of ``response_format``; None where the request gives none, or a malformed one."""
    form = body.get("response_format")
    described = form.get("json_schema") if isinstance(form, Mapping) and form.get("type") == "json_schema" else None
    schema = described.get("schema") if isinstance(described, Mapping) else None
    return schema if isinstance(schema, Mapping) else None


def fits(value: object, schema: Mapping[str, Any]) -> Told:
    """Whether parsed JSON is valid against a schema, by draft 2020-12; None where that cannot be told: the schema
    is none, refers elsewhere or to itself, asks for what is not looked at here, or for more than ``MOST_STEPS``."""
    try:
        return Check(schema, KEYWORDS).node(schema, value, 0)
    except (Beyond, RecursionError, orjson.JSONEncodeError):
        return None
