"""Takes rows out of a finished dataset."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path

from distiller.data import files
from distiller.data.dataset import DATASET, SPLITS, TRAIN, load, write_values
from distiller.data.rights import Ledger


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
        used.use(row.teacher, row.rights)
    values = json.loads((folder / DATASET).read_bytes())
    counts = {split: found.counts[split] - dropped.get(split, 0) for split in SPLITS}
    values |= {"sha256": sha256.hexdigest(), "counts": counts, "rights": used.as_dict()}
    values["new"] = min(found.new, counts[TRAIN])
    write_values(folder, values)
    return dropped
