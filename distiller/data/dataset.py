"""Log to dataset: deduplicated, redacted, rights-checked, split by conversation, capped, hashed.

Audited records are a uniform sample of the traffic: they are the holdout and are never trained on,
nor is any prompt, near copy or conversation of theirs. The teacher's other answers are split by a
hash of the conversation into train and dev, so that a row never changes its split.

On disk: ``train.jsonl``, ``dev.jsonl``, ``holdout.jsonl`` and, last, ``dataset.json``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from typing import IO, Any

from distiller.config import DatasetConfig
from distiller.data.duplicates import NearCopies, digest
from distiller.data.rights import ALLOWED, Ledger, right_to
from distiller.data.rows import NO_RIGHT, Row, Skip, row_of
from router.contracts.decision import Tier
from router.contracts.records import Answer, Kind, Record, Rights
from router.policy import Policy

TRAIN, DEV, HOLDOUT = "train", "dev", "holdout"
SPLITS = (TRAIN, DEV, HOLDOUT)
DATASET = "dataset.json"


@dataclass(frozen=True, slots=True)
class Dataset:
    """A finished dataset. ``sha256`` is over the three files' bytes; ``counts`` are rows by split.

    ``new`` counts the training rows that the parent's dataset did not have. ``skipped`` counts by
    reason the records that are in no split.
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


def read(path: Path) -> list[Row]:
    """The rows of one split's file."""
    with path.open(encoding="utf-8") as f:
        return [Row.from_json(line) for line in f]


def load(folder: Path) -> Dataset:
    """Opens a dataset that ``build`` finished. Raises FileNotFoundError where it never did."""
    values = json.loads((folder / DATASET).read_bytes())
    return Dataset(
        folder=folder,
        sha256=values["sha256"],
        **{s: folder / f"{s}.jsonl" for s in SPLITS},
        counts=values["counts"],
        skipped=values["skipped"],
        new=values["new"],
        rights=Ledger.from_dict(values["rights"]),
    )


def build(
    records: Iterable[Record],
    policy: Policy,
    out: Path,
    config: DatasetConfig | None = None,
    parent: Path | None = None,
    *,
    synthetic: Iterable[Row] = (),
) -> Dataset:
    """Writes the dataset of these records to the folder ``out``; the same records give the same bytes.

    Records may come in any order and are read once; texts wait on disk, not in memory.

    Args:
        parent: folder of the dataset that the live student was trained on, which tells what is new.
        synthetic: rows that a teacher wrote; they are trained on or left out, by the same rules as any.
    """
    config = config or DatasetConfig.from_policy(policy)
    out.mkdir(parents=True, exist_ok=True)
    ledger, skipped = Ledger(), Counter[str]()
    with (out / "spool.jsonl").open("w+b") as spool:
        sifting = _Sifting(spool, policy, config, ledger, skipped)
        sifting.take(records)
        sifting.add(synthetic)
        train, dev, holdout = sifting.split()
        known = ids(parent / "train.jsonl") if parent else frozenset()
        train = _cap_users(train, config.user_cap, skipped)
        train = _fit_budget(train, known, config, skipped)
        for slip in train:
            ledger.use(slip.teacher, slip.rights)
        sha256 = hashlib.sha256()
        for name, slips in zip(SPLITS, (train, dev, holdout), strict=True):
            _write(out / f"{name}.jsonl", sifting.rows(slips, name), sha256)
    (out / "spool.jsonl").unlink()
    values = {
        "sha256": sha256.hexdigest(),
        "counts": {TRAIN: len(train), DEV: len(dev), HOLDOUT: len(holdout)},
        "new": sum(s.request_id not in known for s in train),
        "rights": ledger.as_dict(),
        "skipped": dict(sorted(skipped.items())),
        "config": asdict(config),
        "policy": policy.name,
    }
    fresh = out / f"{DATASET}.{os.getpid()}"
    fresh.write_text(json.dumps(values, indent=2))
    fresh.replace(out / DATASET)
    return load(out)


@dataclass(frozen=True, slots=True)
class _Slip:
    """What is kept in memory of a row whose text waits in the spool at ``offset``."""

    created_at: float
    request_id: str
    offset: int
    prompt: bytes
    conversation: bytes
    user: str | None
    teacher: str
    rights: str
    trainable: bool
    audited: bool
    synthetic: bool

    @property
    def age(self) -> tuple[float, str]:
        return (self.created_at, self.request_id)


class _Sifting:
    """One pass over the records, then the split."""

    def __init__(
        self, spool: IO[bytes], policy: Policy, config: DatasetConfig, ledger: Ledger, skipped: Counter[str]
    ) -> None:
        self.spool, self.policy, self.config = spool, policy, config
        self.ledger, self.skipped = ledger, skipped
        self.near = NearCopies(config.near_duplicate)
        self.slips: list[_Slip] = []
        self.audited_conversations: set[bytes] = set()

    def take(self, records: Iterable[Record]) -> None:
        """Spools each usable record's row."""
        for record in records:
            if record.decision.audited:
                self.audited_conversations.add(_key(record.conversation_id))
            row = row_of(record, self.policy)
            if isinstance(row, Skip):
                self.skipped[row] += 1
                continue
            teacher = record.answer_of(Tier.TEACHER)
            if not row.trainable and not record.decision.audited and teacher is not None:
                self.ledger.refuse(teacher)
            self.slips.append(self._spool(row, record.decision.audited))
            self.near.count(row.prompt)

    def add(self, synthetic: Iterable[Row]) -> None:
        """Spools rows that no client asked for; the right to train on their answers is the policy's of today."""
        for row in synthetic:
            rights = Rights.ALLOWED if row.rights == ALLOWED else Rights.UNKNOWN
            answer = Answer(tier=Tier.TEACHER, kind=Kind.TRAINED, model=row.teacher, training_rights=rights)
            right = right_to(answer, self.policy)
            if right is None:
                self.ledger.refuse(answer)
            self.slips.append(self._spool(replace(row, rights=right or NO_RIGHT), audited=False))
            self.near.count(row.prompt)

    def _spool(self, row: Row, audited: bool) -> _Slip:
        offset = self.spool.tell()
        self.spool.write(row.to_json().encode() + b"\n")
        return _Slip(
            created_at=row.created_at,
            request_id=row.request_id,
            offset=offset,
            prompt=digest(row.prompt),
            conversation=_key(row.conversation_id),
            user=row.user,
            teacher=row.teacher,
            rights=row.rights,
            trainable=row.trainable,
            audited=audited,
            synthetic=row.synthetic,
        )

    def split(self) -> tuple[list[_Slip], list[_Slip], list[_Slip]]:
        """Train, dev and holdout, oldest first."""
        self.slips.sort(key=lambda s: s.age)
        holdout = [s for s in self.slips if s.audited]
        for slip in holdout:
            self.near.keep(self._row(slip).prompt)
        prompts = {s.prompt for s in holdout}
        others = [s for s in self.slips if not s.audited]
        latest = {s.prompt: s for s in sorted(others, key=lambda s: (s.trainable, not s.synthetic, s.age))}
        train: list[_Slip] = []
        dev: list[_Slip] = []
        for slip in others:
            reason = self._leak(slip, prompts) or (Skip.DUPLICATE if latest[slip.prompt] is not slip else None)
            to_dev = not slip.synthetic and _fraction(slip.conversation) < self.config.dev_share
            if reason is None and not slip.trainable and not to_dev:
                reason = Skip.NO_RIGHT
            if reason is None:
                (dev if to_dev else train).append(slip)
            else:
                self.skipped[reason] += 1
        return train, dev, holdout

    def _leak(self, slip: _Slip, holdout_prompts: set[bytes]) -> Skip | None:
        if slip.prompt in holdout_prompts:
            return Skip.HOLDOUT_PROMPT
        if slip.conversation in self.audited_conversations:
            return Skip.HOLDOUT_CONVERSATION
        return Skip.HOLDOUT_NEAR_COPY if self.near.has(self._row(slip).prompt) else None

    def rows(self, slips: Sequence[_Slip], split: str) -> Iterator[Row]:
        return (replace(self._row(s), split=split) for s in slips)

    def _row(self, slip: _Slip) -> Row:
        self.spool.seek(slip.offset)
        return Row.from_json(self.spool.readline().decode())


def _cap_users(train: list[_Slip], cap: float, skipped: Counter[str]) -> list[_Slip]:
    """Holds each user to ``cap`` of the rows, or an equal share where users are too few for that."""
    users = Counter(s.user for s in train)
    if len(users) < 2:
        return train
    most = ceil(max(cap, 1 / len(users)) * len(train))
    kept = {s.request_id for user in users for s in _sample([s for s in train if s.user == user], most)}
    return _keep(train, lambda s: s.request_id in kept, Skip.USER_CAP, skipped)


def _fit_budget(train: list[_Slip], known: frozenset[str], config: DatasetConfig, skipped: Counter[str]) -> list[_Slip]:
    """At most ``max_rows``: new rows first, but ``replay`` of the budget stays with old ones."""
    budget = config.max_rows
    if budget is None or len(train) <= budget:
        return train
    old = [s for s in train if s.request_id in known]
    new = [s for s in train if s.request_id not in known]
    old_rows = min(len(old), max(budget - len(new), ceil(config.replay * budget)))
    kept = {s.request_id for s in [*_sample(old, old_rows), *_sample(new, budget - old_rows)]}
    return _keep(train, lambda s: s.request_id in kept, Skip.BUDGET, skipped)


def _keep(slips: list[_Slip], wanted: Callable[[_Slip], bool], reason: Skip, skipped: Counter[str]) -> list[_Slip]:
    kept = [s for s in slips if wanted(s)]
    if len(kept) < len(slips):
        skipped[reason] += len(slips) - len(kept)
    return kept


def _sample(slips: list[_Slip], n: int) -> list[_Slip]:
    """``n`` rows drawn by a hash of their ids: the same ones each time."""
    return sorted(slips, key=lambda s: _key(s.request_id))[:n]


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _fraction(key: bytes) -> float:
    """A uniform number in [0, 1) from a hash."""
    return int.from_bytes(key[:8], "big") / 2**64


def ids(path: Path) -> frozenset[str]:
    """The request ids in a file of rows, or of ids alone."""
    with path.open(encoding="utf-8") as f:
        return frozenset(str(json.loads(line)["request_id"]) for line in f)


def _write(path: Path, rows: Iterable[Row], sha256: Any) -> None:
    with path.open("wb") as f:
        for row in rows:
            line = row.to_json().encode() + b"\n"
            sha256.update(line)
            f.write(line)
