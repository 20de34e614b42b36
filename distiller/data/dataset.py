"""Log to dataset: redacted, rights-checked, deduplicated, split by conversation, capped, weighted, hashed.

Audited records are a uniform sample of the traffic: they are the holdout and are never trained on,
nor is any prompt, near copy or conversation of theirs. The teacher's other answers are split by a
hash of the conversation into train and dev, so that a row never changes its split.

On disk: ``train.parquet``, ``dev.parquet``, ``holdout.parquet`` and, last, ``dataset.json``. Records are read once and
their texts wait on disk: memory grows by some hundred bytes a record.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distiller.config import DatasetConfig
from distiller.data import files
from distiller.data.copies import Ints
from distiller.data.evaluation_prompts import EvaluationPrompts
from distiller.data.failures import MOST_JUDGED, FailingKind, Failures, asked
from distiller.data.files import read, scan
from distiller.data.rights import Ledger
from distiller.data.rows import DatasetRow, Skip, alias, row_of
from distiller.data.selection import Sifter, choose, fault
from distiller.data.shingles import digest
from distiller.data.spool import Slips, Spool
from distiller.data.votes import Votes
from distiller.progress import Progress, SilentProgress
from router.contracts.decision import Tier
from router.contracts.files import write_atomically
from router.contracts.records import Record
from router.engine.template import PromptTemplate
from router.errors import DatasetError
from router.judges.judge import Judges
from router.policy.policy import Policy
from router.scoring.text.encoder import Encoder
from router.scoring.text.features import extract

__all__ = ["Dataset", "build", "load", "read", "scan"]

TRAIN, DEV, HOLDOUT = "train", "dev", "holdout"
SPLITS = (TRAIN, DEV, HOLDOUT)
DATASET = "dataset.json"
VERSION = 2
"""Of the files' layout. 1 was JSON lines."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A finished dataset. ``sha256`` is over what the rows of the three splits say; ``counts`` are rows by split.

    ``new`` counts the training rows that the parent's dataset did not have. ``skipped`` counts by
    reason the records that are in no split. ``failing`` are the kinds of requests whose rows count more;
    ``parent`` is the hash of the dataset that the live student was trained on, where that is known.
    """

    folder: Path
    sha256: str
    train: Path
    dev: Path
    holdout: Path
    counts: dict[str, int]
    skipped: dict[str, int]
    new: int
    rights: Ledger
    failing: tuple[FailingKind, ...] = ()
    parent: str | None = None


def load(folder: Path) -> Dataset:
    """Opens a dataset that ``build`` finished.

    Raises:
        DatasetError: there is none, or another version of Locum wrote it.
    """
    try:
        values = json.loads((folder / DATASET).read_bytes())
    except FileNotFoundError:
        raise DatasetError(f"{folder} holds no finished dataset; `locum distill dataset build` makes one") from None
    if (version := values.get("version", 1)) != VERSION:
        raise DatasetError(f"the dataset in {folder} has version {version}, this Locum reads {VERSION}; build it again")
    return Dataset(
        folder=folder,
        sha256=values["sha256"],
        **{s: folder / f"{s}.parquet" for s in SPLITS},
        counts=values["counts"],
        skipped=values["skipped"],
        new=values["new"],
        rights=Ledger.from_dict(values["rights"]),
        failing=tuple(FailingKind(**f) for f in values["failing"]),
        parent=values["parent"],
    )


def build(
    records: Iterable[Record],
    policy: Policy,
    out: Path,
    config: DatasetConfig | None = None,
    parent: Path | None = None,
    *,
    written: Iterable[DatasetRow] = (),
    labelled: Callable[[DatasetRow], DatasetRow] = lambda row: row,
    against: Iterable[str] = (),
    encoder: Callable[[], Encoder | None] = lambda: None,
    template: Callable[[], PromptTemplate | None] = lambda: None,
    tell: Progress | None = None,
) -> Dataset:
    """Writes the dataset of these records to the folder ``out``; the same records give the same hash.

    Records may come in any order and are read once.

    Args:
        parent: folder that lists what the live student was trained on (a bundle's, or a dataset's).
        written: rows that a teacher wrote (``DatasetRow.synthetic``), to be trained on beside the records'.
        labelled: puts another's answer, which may be trained on, in the place of one that may not; the row itself
            where there is none. No audited row is shown to it.
        against: prompts of evaluations, beside the holdout, that must not be trained on.
        encoder: loads what kinds of requests are told apart with; without one, their words do.
        template: loads the student's chat template: what it refuses is not trained on.
    """
    config = config or DatasetConfig.from_policy(policy)
    out.mkdir(parents=True, exist_ok=True)
    (out / DATASET).unlink(missing_ok=True)
    with Spool(out) as spool:
        building = _Building(spool, policy, config, tell or SilentProgress(), template())
        building.take(records, written, labelled)
        building.sift(EvaluationPrompts(against), known_requests(parent))
        values = building.write(out, encoder)
    values |= {"config": asdict(config), "policy": policy.name, "parent": _parent_sha256(parent)}
    write_values(out, values)
    return load(out)


class _Building:
    """One dataset under way: its methods are called once each, in their order."""

    def __init__(
        self, spool: Spool, policy: Policy, config: DatasetConfig, tell: Progress, template: PromptTemplate | None
    ) -> None:
        self._spool, self._policy, self._config, self._tell = spool, policy, config, tell
        self._template = template
        self._ledger, self._skipped = Ledger(), Counter[str]()
        self._judges = Judges(policy.judge)
        self._conversations: set[int] = set()
        self._slips: Slips
        self._new = 0

    def take(
        self,
        records: Iterable[Record],
        written: Iterable[DatasetRow],
        labelled: Callable[[DatasetRow], DatasetRow],
    ) -> None:
        """Spools each usable record's row, and those that a teacher wrote."""
        self._tell.stage("reading records")
        for n, record in enumerate(records, 1):
            if n % 1000 == 0:
                self._tell.step(n, 0)
            audited = record.decision.audited
            row = row_of(record, self._policy, self._judges)
            if isinstance(row, Skip):
                self._skipped[row] += 1
                if audited:
                    self._conversations.add(digest(alias(record.conversation_id)))
                continue
            if audited:
                self._conversations.add(digest(row.conversation_id))
            teacher = record.answer_of(Tier.TEACHER)
            if not row.trainable and not audited and teacher is not None:
                self._ledger.refuse(teacher)
            faulty = None if audited else fault(record, self._judges)
            if not audited and not row.trainable and (other := labelled(row)) is not row:
                row, faulty = other, None  # what is wrong with the teacher's own answer is not wrong with another's
            self._spool.add(row, None if audited else faulty or self._refused(row), audited)
        for row in written:
            self._spool.add(row, self._refused(row), audited=False)
        self._slips = self._spool.finish()

    def _refused(self, row: DatasetRow) -> Skip | None:
        return row.refused_by(self._template) if self._template is not None else None

    def sift(self, against: EvaluationPrompts, known: NDArray[np.uint64]) -> None:
        slips = self._slips
        votes = Votes(self._judges, self._spool.row)
        sifter = Sifter(self._spool, self._config, against, votes, self._skipped)
        sifter.tell = self._tell.step
        self._tell.stage("comparing prompts")
        splits = sifter.part(slips, self._conversations)
        train = choose(splits.train, slips, known, self._config, self._skipped)
        self._new = int(np.count_nonzero(~np.isin(slips["request"][train], known)))
        self._places: dict[str, Ints] = {TRAIN: train, DEV: splits.dev, HOLDOUT: splits.holdout}
        names = list(self._spool.sources)
        for number, count in zip(*np.unique(slips["source"][train], return_counts=True), strict=True):
            model, right, source = names[int(number)]
            self._ledger.use(model, right, int(count), source=source)

    def write(self, out: Path, encoder: Callable[[], Encoder | None]) -> dict[str, Any]:
        """Writes the splits; returns what is known of them, as plain values."""
        failures = Failures.of(self._judged(), self._config.most_weight, encoder)
        sha256 = hashlib.sha256()
        counts = {split: files.write(out / f"{split}.parquet", self._rows(split, failures), sha256) for split in SPLITS}
        return {
            "sha256": sha256.hexdigest(),
            "counts": counts,
            "new": self._new,
            "rights": self._ledger.as_dict(),
            "skipped": dict(sorted(self._skipped.items())),
            "failing": [asdict(f) for f in failures.failing],
        }

    def _judged(self) -> list[DatasetRow]:
        """The newest rows with a verdict on the student."""
        places = np.sort(np.concatenate(list(self._places.values())))
        known = places[self._slips["student_ok"][places] >= 0]
        return [self._spool.row(slip) for slip in self._slips[known[-MOST_JUDGED:]]]

    def _rows(self, split: str, failures: Failures) -> Iterator[DatasetRow]:
        places = self._places[split]
        self._tell.stage(f"writing {split}")
        for first in range(0, len(places), files.ROWS_AT_ONCE):
            self._tell.step(first, len(places))
            rows = [self._spool.row(slip) for slip in self._slips[places[first : first + files.ROWS_AT_ONCE]]]
            placed = failures.place(rows)
            for row, failing in zip(rows, placed, strict=True):
                weight = failing.weight if failing and split == TRAIN else 1.0
                name = failing.name if failing else None
                yield replace(row, split=split, language=_language(row), cluster=name, weight=weight)


def _language(row: DatasetRow) -> str | None:
    return extract({"messages": [{"role": "user", "content": asked(row)}]}).language or None


def known_requests(parent: Path | None) -> NDArray[np.uint64]:
    """Digests of the requests that the live student was trained on."""
    found = [f for f in (parent / "train.parquet", parent / "train.jsonl") if f.is_file()] if parent else []
    ids = files.request_ids(found[0]) if found else iter(())
    return np.fromiter((digest(i) for i in ids), np.uint64)


def _parent_sha256(parent: Path | None) -> str | None:
    try:
        return load(parent).sha256 if parent else None
    except DatasetError:  # a bundle keeps the ids alone
        return None


def write_values(folder: Path, values: Mapping[str, Any]) -> None:
    """Writes ``dataset.json``, whole and last: its existence means that the dataset is complete."""
    write_atomically(folder / DATASET, json.dumps({"version": VERSION, **values}, indent=2).encode())
