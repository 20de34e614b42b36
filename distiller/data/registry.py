"""Which datasets were built and exported where, so that somebody's rows are found again and taken out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from distiller.data import files
from distiller.data.dataset import DATASET, SPLITS, TRAIN, load, write_values
from distiller.data.rights import Ledger

LIST = "datasets.jsonl"


@dataclass(frozen=True, slots=True)
class KnownDataset:
    """A dataset's folder, and the files that were exported from it."""

    folder: Path
    exports: tuple[Path, ...] = ()


def remember(home: Path, folder: Path, export: Path | None = None) -> None:
    """Adds a dataset's folder, or a file exported from it, to the home's list."""
    home.mkdir(parents=True, exist_ok=True)
    line = {"folder": str(folder.resolve()), "export": str(export.resolve()) if export else None}
    with (home / LIST).open("a") as file:
        file.write(json.dumps(line) + "\n")


def datasets(home: Path) -> list[KnownDataset]:
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
        KnownDataset(folder, tuple(p for p in files if p.is_file()))
        for folder, files in exports.items()
        if (folder / DATASET).is_file() or any(p.is_file() for p in files)
    ]


def drop(folder: Path, request_ids: Collection[str]) -> dict[str, int]:
    """Writes the dataset anew without these requests' rows; returns how many there were in each split that had some.

    The dataset gets another hash, so that what was learnt from it is known to be from another one.

    Raises:
        DatasetError: the folder holds no dataset that this version reads.
    """
    found, dropped = load(folder), {}
    sha256, used = hashlib.sha256(), Ledger(refused=found.rights.refused)
    for split in SPLITS:
        rows = (row for row in files.scan(getattr(found, split)) if row.request_id not in request_ids)
        kept = files.write(folder / f"{split}.fresh", rows, sha256)
        if kept < found.counts[split]:
            dropped[split] = found.counts[split] - kept
    for split in SPLITS:
        (folder / f"{split}.fresh").replace(getattr(found, split))
    for row in files.scan(found.train):
        used.use(row.teacher, row.rights, source=row.source)
    values = json.loads((folder / DATASET).read_bytes())
    counts = {split: found.counts[split] - dropped.get(split, 0) for split in SPLITS}
    values |= {"sha256": sha256.hexdigest(), "counts": counts, "rights": used.as_dict()}
    values["new"] = min(found.new, counts[TRAIN])
    write_values(folder, values)
    return dropped
