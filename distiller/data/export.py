"""Rows that may be trained on, as other trainers want them: JSON lines.

``trl``: conversational prompt and completion, of which TRL's SFTTrainer learns the completion alone. ``axolotl``:
``messages`` for its chat_template datasets. ``openai``: ``messages`` for fine-tuning jobs, and nothing else. Earlier
answers within a prompt are marked as not to be learnt where the format can say so, since only the last is the
teacher's as recorded. Tools stand beside the messages where a row has some. What a row counts (its weight) none of
them can say. A student's chat template goes with them,
for trainers of open models: what was trained by another answers worse by its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from distiller.data.dataset import DEV, TRAIN, Dataset, scan
from distiller.data.rows import DatasetRow
from router.errors import DatasetError

HINTS: Mapping[str, str] = {
    "trl": 'load_dataset("json", data_files=...) and SFTTrainer learn the completion alone.',
    "axolotl": (
        "datasets: [{path: ..., type: chat_template, field_messages: messages, message_field_training: training}]"
    ),
    "openai": "Upload it with the purpose fine-tune; OpenAI asks for ten rows at least.",
}


def write(dataset: Dataset, split: str, form: str, out: Path) -> int:
    """Writes the split's rows that may be trained on; returns how many. The holdout is never exported: what measures a
    student must not be learnt, wherever that is.

    Raises:
        DatasetError: the split is none that may be trained on.
    """
    if split not in (TRAIN, DEV):
        raise DatasetError(f"only {TRAIN} and {DEV} can be exported, not {split!r}: the holdout is never trained on")
    as_wanted, count = FORMS[form], 0
    fresh = out.with_name(f"{out.name}.fresh")
    with fresh.open("wb") as file:
        for row in scan(getattr(dataset, split)):
            if row.trainable:
                file.write(orjson.dumps(as_wanted(row), option=orjson.OPT_APPEND_NEWLINE))
                count += 1
    fresh.replace(out)
    return count


def _trl(row: DatasetRow) -> dict[str, Any]:
    return {"prompt": row.messages, "completion": [row.said], **_tools(row)}


def _axolotl(row: DatasetRow) -> dict[str, Any]:
    return {"messages": [*_marked(row, "training", False), row.said], **_tools(row)}


def _openai(row: DatasetRow) -> dict[str, Any]:
    return {"messages": [*_marked(row, "weight", 0), row.said], **_tools(row)}


def _tools(row: DatasetRow) -> dict[str, Any]:
    return {"tools": tools} if (tools := row.tools) else {}


def _marked(row: DatasetRow, key: str, value: object) -> list[dict[str, Any]]:
    """The prompt's messages, the answers among them marked as not to be learnt."""
    return [{**m, key: value} if m["role"] == "assistant" else dict(m) for m in row.messages]


FORMS: Mapping[str, Callable[[DatasetRow], dict[str, Any]]] = {"trl": _trl, "axolotl": _axolotl, "openai": _openai}
