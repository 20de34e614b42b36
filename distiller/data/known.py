"""Which datasets were built and exported where: a list in the home, so that somebody's rows are found again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from distiller.data.dataset import DATASET

LIST = "datasets.jsonl"


@dataclass(frozen=True, slots=True)
class Known:
    """A dataset's folder, and the files that were exported from it."""

    folder: Path
    exports: tuple[Path, ...] = ()


def remember(home: Path, folder: Path, export: Path | None = None) -> None:
    """Adds a dataset's folder, or a file exported from it, to the home's list."""
    home.mkdir(parents=True, exist_ok=True)
    line = {"folder": str(folder.resolve()), "export": str(export.resolve()) if export else None}
    with (home / LIST).open("a") as file:
        file.write(json.dumps(line) + "\n")


def datasets(home: Path) -> list[Known]:
    """The datasets that are still there: those of the list, and those under the home that no list names (a round's)."""
    exports: dict[Path, list[Path]] = {}
    try:
        lines = (home / LIST).read_text().splitlines()
    except FileNotFoundError:
        lines = []
    for line in map(json.loads, lines):
        found = exports.setdefault(Path(line["folder"]), [])
        if line["export"] and (path := Path(line["export"])) not in found:
            found.append(path)
    for path in sorted(home.resolve().glob(f"work/**/{DATASET}")):
        exports.setdefault(path.parent, [])
    return [
        Known(folder, tuple(p for p in files if p.is_file()))
        for folder, files in exports.items()
        if (folder / DATASET).is_file() or any(p.is_file() for p in files)
    ]
