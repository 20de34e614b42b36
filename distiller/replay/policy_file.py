"""Writing a threshold into a policy file, and nothing else: every other byte stays as the user wrote it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from router.errors import PolicyError
from router.policy.policy import Policy

MARK = "# locum tune, "
"""How the first line of a reason begins: the next tuning replaces as many lines as it writes."""


def with_threshold(path: Path, threshold: float, reason: Sequence[str]) -> str:
    """The file's text with ``objective: threshold`` in place of the objective it had, the reason above it.

    Raises:
        PolicyError: the file cannot be read, or is written in a way that cannot be edited in place.
    """
    try:
        text = path.read_bytes().decode()
    except OSError as e:
        raise PolicyError(f"cannot read policy {path}: {e.strerror}") from e
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    key, objective = next(((k, v) for k, v in pairs if k.value == "objective"), (None, None))
    if key is None or not isinstance(objective, yaml.MappingNode) or len(objective.value) != 1:
        raise PolicyError(f"{path}: objective must be a mapping of one key to be tuned in place")
    aim, value = objective.value[0]
    start, end = aim.start_mark.index, _end(value)
    if start < key.end_mark.index:
        raise PolicyError(f"{path}: objective is an alias; write it out to have it tuned")
    edited = f"{text[:start]}threshold: {threshold:g}{text[end:]}"
    above = start if not objective.flow_style else key.start_mark.index
    edited = _commented(edited, edited.rfind("\n", 0, above) + 1, reason)
    _must_say(path, text, edited, threshold)
    return edited


def write(path: Path, text: str) -> None:
    """Replaces the file's content at once, so that a proxy that watches it never reads half; its mode stays."""
    mode = path.stat().st_mode
    handle, fresh = tempfile.mkstemp(dir=path.resolve().parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
        Path(fresh).chmod(mode & 0o7777)
        Path(fresh).replace(path.resolve())
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise


def _end(node: yaml.Node) -> int:
    """Where a node's own text ends: a block mapping's end mark lies beyond the comments that follow it."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style and node.value:
        return _end(node.value[-1][1])
    return int(node.end_mark.index)


def _commented(text: str, at: int, reason: Sequence[str]) -> str:
    """The reason as comment lines before the line at ``at``, in place of an earlier reason there."""
    line = text[at:]
    indent = line[: len(line) - len(line.lstrip(" "))]
    newline = "\r\n" if "\r\n" in text else "\n"
    before = text[:at].splitlines(keepends=True)
    above = next((n for n in range(len(before) - 1, -1, -1) if not before[n].startswith(f"{indent}#")), -1)
    old = next((n for n in range(above + 1, len(before)) if before[n].startswith(indent + MARK)), None)
    if old is not None:
        del before[old : old + len(reason)]
    said = "".join(f"{indent}# {line}{newline}" for line in reason)
    return "".join(before) + said + line


def _must_say(path: Path, before: str, after: str, threshold: float) -> None:
    """The edited text must be the same policy but for its objective. Raises PolicyError."""
    said, wanted = _policy(path, after), _policy(path, before).model_dump(exclude={"objective"})
    if said.objective.fixed != float(f"{threshold:g}") or said.model_dump(exclude={"objective"}) != wanted:
        raise PolicyError(
            f"{path} is written in a way that cannot be edited in place; set objective: threshold by hand"
        )


def _policy(path: Path, text: str) -> Policy:
    try:
        found: Any = yaml.safe_load(text)
        return Policy.model_validate(found)
    except (yaml.YAMLError, ValidationError) as e:
        raise PolicyError(f"{path} cannot be edited in place: {e}") from e
