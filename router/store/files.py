"""Files inside messages, such as images, sound and documents: kept once, however many turns of a conversation say them.

A record holds ``sha256:`` and the hash of the text that stood there. A client can write that too, so what is put back
into a record is only what the record itself was found to hold.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Literal

Rule = Literal["keep", "hash", "none"]
LEAST_CHARS = 1024
"""What is shorter stays where it stands."""
MOST_CHARS = 16 * 2**20
"""What is longer (12 MiB before base64) is not kept; its hash is."""
MARK = "sha256:"
LEFT_OUT = "[file]"
NAMES = frozenset({"data", "file_data"})
"""Under these keys stands what a file holds, in base64 alone."""
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]*+=*\s*")
_DATA_URL = re.compile(r"data:[\w.+/-]*(?:;[\w.+-]+=[\w.+-]*)*;base64,")


def may_hold_files(body: str) -> bool:
    """Whether the JSON of a record is worth looking through."""
    return len(body) > LEAST_CHARS and ('"data:' in body or 'data":"' in body)


def is_file(key: object, text: str) -> bool:
    return len(text) >= LEAST_CHARS and is_base64(key, text)


def is_base64(key: object, text: str) -> bool:
    """Whether it is a file and nothing else, under this key: what anybody can read in it is no file."""
    if text.startswith("data:"):
        begun = _DATA_URL.match(text)
        return begun is not None and _BASE64.fullmatch(text, begun.end()) is not None
    return key in NAMES and len(text) >= LEAST_CHARS and text.isascii() and _BASE64.fullmatch(text) is not None


def without_files(value: Any, rule: Rule, found: dict[str, str], key: object = None) -> Any:
    """A copy with each file's mark in its place. ``found`` gathers what is to be kept, by its mark."""
    if isinstance(value, str):
        return _marked(value, rule, found) if is_file(key, value) else value
    if isinstance(value, dict):
        return {name: without_files(item, rule, found, name) for name, item in value.items()}
    if isinstance(value, list):
        return [without_files(item, rule, found, key) for item in value]
    return value


def _marked(text: str, rule: Rule, found: dict[str, str]) -> str:
    if rule == "none":
        return LEFT_OUT
    mark = MARK + hashlib.sha256(text.encode()).hexdigest()
    if rule == "keep" and len(text) <= MOST_CHARS:
        found[mark] = text
    return mark


def with_files(value: Any, files: Mapping[str, str]) -> Any:
    """The other way round, as far as ``files`` holds them."""
    if isinstance(value, str):
        return files.get(value, value) if value.startswith(MARK) else value
    if isinstance(value, dict):
        return {name: with_files(item, files) for name, item in value.items()}
    if isinstance(value, list):
        return [with_files(item, files) for item in value]
    return value
