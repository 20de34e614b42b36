"""The JSON schema that a request asks for, and whether a value is valid against it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson


def schema_of(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema of ``response_format``; None where the request gives none, or a malformed one."""
    form = body.get("response_format")
    described = form.get("json_schema") if isinstance(form, Mapping) and form.get("type") == "json_schema" else None
    schema = described.get("schema") if isinstance(described, Mapping) else None
    return schema if isinstance(schema, Mapping) else None


def valid(value: object, schema: Mapping[str, Any]) -> bool:
    """Whether the value is valid against the schema, as far as that can be told: of a schema that is none, is
    endless, or refers to somewhere else, nothing is valid."""
    from referencing.exceptions import Unresolvable  # noqa: PLC0415

    validator = _validator(orjson.dumps(schema))
    try:
        return validator is not None and bool(validator.is_valid(value))
    except (RecursionError, Unresolvable, ValueError):  # ValueError: an "$id" that is no URL
        return False


def breaks(value: object, schema: Mapping[str, Any]) -> bool:
    """Whether the value is surely not valid: never by a schema of which that cannot be told."""
    from referencing.exceptions import Unresolvable  # noqa: PLC0415

    validator = _validator(orjson.dumps(schema))
    try:
        return validator is not None and not validator.is_valid(value)
    except (RecursionError, Unresolvable, ValueError):
        return False


@lru_cache(maxsize=256)
def _validator(schema: bytes) -> Any:
    """A validator that can neither call anywhere nor run for ever on a client's word.

    Its registry is empty, so that a ``$ref`` to a URL fetches nothing, and a client's own regular
    expressions are not run: ``pattern`` is not looked at, ``patternProperties`` cannot be told.
    None where the schema itself is wrong.
    """
    from jsonschema import Draft202012Validator, SchemaError  # noqa: PLC0415
    from jsonschema.validators import create  # noqa: PLC0415
    from referencing import Registry  # noqa: PLC0415

    parsed = orjson.loads(schema)
    try:
        Draft202012Validator.check_schema(parsed)
    except SchemaError:
        return None
    if b'"patternProperties"' in schema:
        return None
    keywords = {k: v for k, v in Draft202012Validator.VALIDATORS.items() if k != "pattern"}
    kind = create(Draft202012Validator.META_SCHEMA, keywords, type_checker=Draft202012Validator.TYPE_CHECKER)
    return kind(parsed, registry=Registry())
