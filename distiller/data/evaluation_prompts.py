"""Prompts of evaluations, named by the user: what holds one of them, whole or nearly, is never trained on.

An evaluation's prompt is often bare ("Where is my card?") where traffic has it inside an application's template, so it
is looked for in a row's prompt by containment (Broder, "On the resemblance and containment of documents", 1997).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from distiller.data.copies import FEWEST, Frames, SketchFile
from distiller.data.shingles import U32, WHOLE, digest, limit, normalise, smallest
from distiller.data.spool import Slips
from router.errors import DatasetError

_NAMES = ("prompt", "question", "input", "instruction", "text")
_AT_ONCE = 256


class EvaluationPrompts:
    """``prompts``: the texts, bare or as the last user turn of messages."""

    def __init__(self, prompts: Iterable[str]) -> None:
        self._texts = [clean for clean in map(normalise, prompts) if clean]
        tagged = [f"user {text}" for text in self._texts]  # as a row's turn begins
        self._digests = np.array([digest(t) for t in [*self._texts, *tagged]], np.uint64)

    def found(self, slips: Slips, file: SketchFile, frames: Frames, share: float) -> NDArray[np.bool_]:
        """Which of these rows' prompts are one of the evaluations', or hold at least ``share`` of what tells one apart
        from what all prompts share."""
        if not self._texts:
            return np.zeros(len(slips), np.bool_)
        found = np.isin(slips["asked"], self._digests) | np.isin(slips["prompt"], self._digests)
        index = _Index([frames.uncommon(s) for s in self._sketches()])
        for i in np.flatnonzero(~found):
            found[i] = index.held_in(file.read(slips["sketch"][i]).whole, share)
        return found

    def _sketches(self) -> Iterator[U32]:
        for first in range(0, len(self._texts), _AT_ONCE):
            yield from smallest(self._texts[first : first + _AT_ONCE], WHOLE)


class _Index:
    """Which sets hold a shingle. Sets of too few are left out: only equality tells of those."""

    def __init__(self, sets: Sequence[U32]) -> None:
        self._sets = [s for s in sets if len(s) >= FEWEST]
        every = np.concatenate([*self._sets, np.zeros(0, np.uint32)])
        owners = np.repeat(np.arange(len(self._sets)), [len(s) for s in self._sets])
        order = np.argsort(every, kind="stable")
        self._owners = owners[order]
        self._shingles, starts = np.unique(every[order], return_index=True)
        self._ends = np.append(starts, len(order))
        self._sizes = np.array([len(s) for s in self._sets], np.int64)

    def held_in(self, prompt: U32, share: float) -> bool:
        """Whether at least ``share`` of one set is in the prompt's sketch, as far as that goes."""
        if not len(self._sets) or not len(prompt):
            return False
        at = np.searchsorted(self._shingles, prompt)
        at[at == len(self._shingles)] = 0
        at = at[self._shingles[at] == prompt]
        first, last = self._ends[at], self._ends[at + 1]
        sizes = last - first
        within = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        hits = np.bincount(self._owners[np.repeat(first, sizes) + within], minlength=len(self._sets))
        upto, wanted = limit(prompt, WHOLE), self._sizes
        near = np.flatnonzero(hits >= FEWEST)
        if len(prompt) >= WHOLE:
            wanted = self._sizes.copy()
            wanted[near] = [np.searchsorted(self._sets[i], upto, "right") for i in near]
        return bool((hits[near] >= share * wanted[near]).any())


def read_prompts(path: Path) -> list[str]:
    """The prompts in a file: a text a line (.txt), JSON values (.jsonl) or a table (.parquet).

    A JSON value is a text, or an object with ``messages`` (its last user turn counts) or one of ``prompt``,
    ``question``, ``input``, ``instruction``, ``text``; so are a table's rows.

    Raises:
        DatasetError: the file cannot be read, or holds something else.
    """
    try:
        if path.suffix == ".parquet":
            return [_text_of(value, path, n) for n, value in enumerate(_table(path), 1)]
        lines = [(n, line) for n, line in enumerate(path.read_text("utf-8").splitlines(), 1) if line.strip()]
        if path.suffix == ".jsonl":
            return [_text_of(orjson.loads(line), path, n) for n, line in lines]
    except (OSError, ValueError) as e:
        raise DatasetError(f"the evaluation prompts in {path} cannot be read: {e}") from e
    return [line for _, line in lines]


def _table(path: Path) -> Iterator[dict[str, Any]]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        names = [n for n in ("messages", *_NAMES) if n in file.schema_arrow.names]
        for batch in file.iter_batches(columns=names):
            yield from batch.to_pylist()


def _text_of(value: Any, path: Path, line: int) -> str:
    """Raises DatasetError where the value is no prompt."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        messages = value.get("messages", value.get("prompt"))
        if isinstance(messages, Sequence) and not isinstance(messages, str):
            asked = [m.get("content") for m in messages if isinstance(m, Mapping) and m.get("role") == "user"]
            if asked and isinstance(asked[-1], str):
                return asked[-1]
        for name in _NAMES:
            if isinstance(value.get(name), str):
                return str(value[name])
    raise DatasetError(
        f"{path}, row {line}: no evaluation prompt; a text, or an object with 'messages' or one of {', '.join(_NAMES)}"
    )
