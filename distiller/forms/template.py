"""A student's own chat template, by which it was trained and must be asked wherever it goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE, CONFIG, NAMED = "chat_template.jinja", "tokenizer_config.json", "chat_template"


def template_of(student: Path) -> str | None:
    """The chat template of a Hugging Face folder: of several the one named ``default``; None where it has none.

    Newer folders have it as a file, older ones in the tokenizer's configuration.
    """
    if (path := student / FILE).is_file():
        return path.read_text(encoding="utf-8")
    try:
        found: Any = json.loads((student / CONFIG).read_bytes()).get(NAMED)
    except (FileNotFoundError, ValueError):
        return None
    if isinstance(found, list):
        found = {named.get("name"): named.get("template") for named in found if isinstance(named, dict)}.get("default")
    return found if isinstance(found, str) and found else None
