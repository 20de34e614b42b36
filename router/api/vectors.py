"""Embeddings in the form that was asked for: numbers, or their 32-bit floats in base64. Not every server has both."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import numpy as np
import orjson

FLOAT32 = np.dtype("<f4")


def in_form(found: dict[str, Any], wanted: object) -> bytes | None:
    """A list of embeddings as JSON in the ``wanted`` form; None where it has that already. Changes ``found``.

    What is neither a list of numbers nor base64 stays as it is: several vectors for one text, for instance.

    Raises:
        ValueError: something is text that holds no 32-bit floats, or nests too deeply to be written again.
    """
    if wanted not in (None, "float", "base64"):
        return None
    changed = False
    for entry in found["data"]:
        given = entry.get("embedding") if isinstance(entry, dict) else None
        if isinstance(given, str) and wanted != "base64":
            entry["embedding"], changed = _numbers(given), True
        elif isinstance(given, list) and wanted == "base64" and (text := _text(given)) is not None:
            entry["embedding"], changed = text, True
    try:
        return orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY) if changed else None
    except TypeError as e:
        raise ValueError("nested too deeply") from e


def _numbers(text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), FLOAT32)
    except binascii.Error as e:
        raise ValueError("no base64") from e


def _text(numbers: list[Any]) -> str | None:
    try:
        vector = np.asarray(numbers, FLOAT32)
    except (ValueError, TypeError, OverflowError):
        return None
    return base64.b64encode(vector.tobytes()).decode() if vector.ndim == 1 else None
