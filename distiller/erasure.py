"""Erasing what a user or a conversation left: records, kept answers, rows of the round under way, what a label teacher
answered to them, and what a teacher wrote like them. What was learnt from them stays learnt, so every bundle and every
dataset that they went into is named.

Whose a row is, is told by its request's id and by the aliases in a dataset: so rows are found too whose records were
dropped before, at the end of their retention. Of a bundle only ids are known; those of such records are found as long
as a dataset with their rows is there. A synthetic row is theirs too if the teacher was shown one of their requests to
write it.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.table import Column, Table
from rich.text import Text

from distiller.bundles import ANSWERS, DATASET, LEARNT, has_weights, manifests
from distiller.data import files, registry
from distiller.data.dataset import DATASET as DATASET_FILE
from distiller.data.dataset import SPLITS, TRAIN
from distiller.data.registry import drop
from distiller.data.rows import alias
from distiller.evaluation.answers import keep_answers, read_answers
from distiller.home import ROUND, one_round_at_a_time
from distiller.labels.run import BATCHES, CALLS, LABELLED
from distiller.payments import forget
from distiller.synthesis import shelf
from distiller.synthesis.run import FOLDER as SYNTHESIS
from distiller.synthesis.run import give_up
from router.contracts.rounds import CURRENT
from router.errors import DatasetError
from router.settings import Settings
from router.store.access import open_eraser
from router.store.base import Traces

BUILT = "stage-dataset.json"
INCUMBENT = "incumbent.jsonl"
UNLABELLED, LABELS_ASKED = "unlabelled", "stage-labels.json"
FATES = {
    None: "stay: build it again, or delete it",
    CURRENT: "taken out of the round",
    SYNTHESIS: "go with the killed run",
}


@dataclass(frozen=True, slots=True)
class BundleUse:
    """How many of the requests went into a bundle: into the student's training, into the scorer's, and how many
    answers to them are kept with it. ``serves``: its weights are still there."""

    policy: str
    bundle: str
    trained: int
    scorer: int
    answers: int
    serves: bool


@dataclass(frozen=True, slots=True)
class DatasetUse:
    """Rows of the requests in a dataset, by split, and what was exported from it. ``work``: it is that of a round
    under way (``CURRENT``), from which they are taken out, or of a killed run of synthesis (``SYNTHESIS``), which is
    given up; None: of neither."""

    folder: Path
    rows: dict[str, int]
    exports: tuple[Path, ...]
    work: str | None


@dataclass(frozen=True, slots=True)
class Remains:
    """All that there is of somebody. ``requests`` are those of ``traces``, those that only datasets know of, and
    ``synthetic``: the ids of rows that a teacher wrote like one of these."""

    traces: Traces
    requests: frozenset[str]
    synthetic: frozenset[str]
    bundles: tuple[BundleUse, ...]
    datasets: tuple[DatasetUse, ...]

    @property
    def nothing(self) -> bool:
        return not (self.requests or self.traces.conversations)


def left_of(settings: Settings, *, user: str | None = None, conversation: str | None = None) -> Remains:
    """What a user, by the client's word for them, or else a conversation left. Changes nothing.

    Raises:
        StoreError: the records cannot be read.
        DatasetError: a dataset cannot be read.
    """
    traces = open_eraser(settings).find(user=user, conversation=conversation)
    names = {alias(name) for name in traces.names}
    requests, shown = set(traces.request_ids), dict[str, Sequence[str]]()
    there = registry.datasets(settings.home)
    for at in there:
        for path in _splits(at.folder):
            for row in files.owners(path):
                if (row.conversation if user is None else row.user) in names:
                    requests.add(row.request_id)
                if row.shown:
                    shown[row.request_id] = row.shown
    for policy in _policies(settings, "work"):
        shown |= {row.request_id: row.shown for row in shelf.everything(settings, policy)}
    synthetic = frozenset(name for name, like in shown.items() if not requests.isdisjoint(like))
    requests |= synthetic
    uses = [_use(at, requests, settings) for at in there]
    return Remains(
        traces,
        frozenset(requests),
        synthetic,
        tuple(use for policy in _policies(settings, "bundles") for use in _bundles(settings, policy, requests)),
        tuple(use for use in uses if use.rows),
    )


def erase(settings: Settings, left: Remains, *, user: str | None = None, conversation: str | None = None) -> int:
    """Erases the records, the answers kept with bundles, the rows of rounds under way and the synthetic ones; returns
    how many records. A killed run of synthesis that had looked at some is given up, its money booked. A proxy that
    runs goes on; what it had not written yet is erased too.

    Raises:
        RoundRunning: a round is under way just now, and reads what is to be erased.
        StoreError: the records cannot be written.
    """
    with one_round_at_a_time(settings):
        store = open_eraser(settings)
        erased = store.erase(left.traces)
        late = store.find(user=user, conversation=conversation)
        erased += store.erase(late)
        requests = left.requests.union(late.request_ids)
        for policy in _policies(settings, "bundles"):
            for manifest in manifests(settings.bundles(policy)):
                _drop_answers(settings.bundles(policy) / manifest.bundle_id / ANSWERS, requests)
        for folder in sorted(settings.home.glob(f"work/*/{CURRENT}")):
            _clear_round(folder, requests)
        for policy in _policies(settings, "work"):
            shelf.drop(settings, policy, requests)
            forget(settings.work(policy) / CALLS, requests)
            _clear_synthesis(settings, policy, requests)
    return erased


def _policies(settings: Settings, kind: Literal["bundles", "work"]) -> list[str]:
    return sorted(p.name for p in (settings.home / kind).glob("*/"))


def _splits(folder: Path) -> Iterator[Path]:
    for split in SPLITS:
        yield from (p for p in (folder / f"{split}.parquet", folder / f"{split}.jsonl") if p.is_file())


def _use(at: registry.KnownDataset, requests: Collection[str], settings: Settings) -> DatasetUse:
    counts = {path.stem: sum(i in requests for i in files.request_ids(path)) for path in _splits(at.folder)}
    parent = at.folder.parent.name
    ours = parent in (CURRENT, SYNTHESIS) and at.folder.is_relative_to(settings.home.resolve())
    return DatasetUse(at.folder, {split: n for split, n in counts.items() if n}, at.exports, parent if ours else None)


def _bundles(settings: Settings, policy: str, requests: Collection[str]) -> Iterator[BundleUse]:
    bundles = settings.bundles(policy)
    for manifest in manifests(bundles):
        folder = bundles / manifest.bundle_id
        lists = (folder / DATASET / f"{TRAIN}.jsonl", folder / LEARNT)
        trained, scorer = (sum(i in requests for i in files.request_ids(p)) if p.is_file() else 0 for p in lists)
        answers = sum(i in requests for i in read_answers(folder / ANSWERS))
        if trained or scorer or answers:
            yield BundleUse(policy, manifest.bundle_id, trained, scorer, answers, has_weights(bundles, manifest))


def _drop_answers(path: Path, requests: Collection[str]) -> None:
    answers = read_answers(path)
    if not answers.keys() & requests:
        return
    fresh = path.with_name(f"{path.name}.fresh")
    fresh.unlink(missing_ok=True)
    keep_answers(fresh, (a for name, a in answers.items() if name not in requests))
    fresh.replace(path)


def _clear_round(folder: Path, requests: Collection[str]) -> None:
    """Takes the rows out of an unfinished round; where its student has learnt from some, training begins anew. What a
    label teacher is asked is put together again, from what is left; what it answered is known."""
    for left in (folder / UNLABELLED, folder.parent / BATCHES):
        shutil.rmtree(left, ignore_errors=True)
    for name in (LABELLED, LABELS_ASKED):
        (folder / name).unlink(missing_ok=True)
    if not (folder / BUILT).is_file() or not (folder / DATASET / DATASET_FILE).is_file():
        shutil.rmtree(folder / DATASET, ignore_errors=True)  # half built, and built again from what is left
        (folder / BUILT).unlink(missing_ok=True)
        return
    for answers in (folder / ANSWERS, folder / INCUMBENT):
        _drop_answers(answers, requests)
    if not any(i in requests for path in _splits(folder / DATASET) for i in files.request_ids(path)):
        return
    try:
        learnt = TRAIN in drop(folder / DATASET, requests)
    except DatasetError:  # an older Locum's, of whose round nothing can be used
        shutil.rmtree(folder)
        return
    for path in folder.iterdir() if learnt else ():
        if path.name not in (ROUND, BUILT, DATASET, INCUMBENT):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _clear_synthesis(settings: Settings, policy: str, requests: Collection[str]) -> None:
    """Gives up a killed run of synthesis that had looked at some of the requests: the teacher's words may echo them."""
    data = settings.work(policy) / SYNTHESIS / DATASET
    whole = (data / DATASET_FILE).is_file()  # half built nothing was asked yet
    if not whole or any(i in requests for path in _splits(data) for i in files.request_ids(path)):
        give_up(settings, policy, "it was killed, and some of what it had looked at was forgotten since")


def left_tables(left: Remains) -> Iterator[Table]:
    """The records, the bundles that they went into, and the datasets that hold rows of theirs."""
    table = Table(show_header=False, title="records", title_justify="left")
    table.add_row("records to erase", str(len(left.traces.request_ids)))
    if gone := len(left.requests) - len(left.synthetic) - len(left.traces.request_ids):
        table.add_row("only datasets know of, their records being gone", str(gone))
    if left.synthetic:
        table.add_row("synthetic rows written like them, to erase", str(len(left.synthetic)))
    yield table
    if left.bundles:
        heads = ("trained on", "scorer learnt from", "kept answers, erased")
        columns = (Column(h, justify="right") for h in heads)
        table = Table("policy", Column("bundle", no_wrap=True), *columns, title="bundles", title_justify="left")
        for use in left.bundles:
            name = use.bundle if use.serves else f"{use.bundle} (weights pruned)"
            table.add_row(use.policy, name, str(use.trained), str(use.scorer), str(use.answers))
        yield table
    if left.datasets:
        table = Table("dataset", "rows", "what becomes of them", title="datasets", title_justify="left")
        for data in left.datasets:
            rows = ", ".join(f"{split} {n}" for split, n in data.rows.items())
            fate = FATES[data.work]
            exports = "".join(f"\nand of {path}" for path in data.exports)
            table.add_row(Text(str(data.folder), overflow="fold"), rows, Text(fate + exports, overflow="fold"))
        yield table
