"""What a dataset holds, in numbers, and what it looks like in a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from rich.console import Group
from rich.panel import Panel
from rich.table import Column, Table
from rich.text import Text

from distiller.data.dataset import SPLITS, Dataset, scan
from distiller.data.failures import FailingKind
from distiller.data.rows import DatasetRow
from distiller.data.turns import spoken

QUANTILES = (0.1, 0.5, 0.9, 0.99, 1.0)
NONE = "–"
MOST_SLICES = 20
"""Slices of a kind that are shown, largest first."""


@dataclass(slots=True)
class Profile:
    """``slices``: by what they are of (task, language, failing kind), rows by split and name. ``lengths``: quantiles
    (``QUANTILES``) in characters of prompts and answers, by split and part; of answers also the teacher's tokens."""

    slices: dict[str, dict[str, Counter[str]]] = field(default_factory=dict)
    lengths: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)


def profile(dataset: Dataset) -> Profile:
    """Reads the dataset once, a few rows at a time."""
    found = Profile({what: {s: Counter() for s in SPLITS} for what in ("task", "language", "failing kind")})
    for split in SPLITS:
        prompts, answers, tokens = [], [], []
        for row in scan(getattr(dataset, split)):
            for what, name in (("task", row.task), ("language", row.language), ("failing kind", row.cluster)):
                found.slices[what][split][name or NONE] += 1
            prompts.append(sum(len(spoken(m)) for m in row.messages))
            answers.append(len(spoken(row.said)))
            if row.teacher_tokens:
                tokens.append(row.teacher_tokens)
        parts = {"prompt, characters": prompts, "answer, characters": answers, "answer, tokens": tokens}
        for part, sizes in parts.items():
            if sizes:
                at = np.quantile(np.array(sizes), QUANTILES, method="inverted_cdf")
                found.lengths[split, part] = tuple(int(size) for size in at)
    return found


def dataset_table(dataset: Dataset) -> Table:
    """What is in the dataset, by which right, and what was left out and why."""
    table = Table("records", Column("count", justify="right"), title="dataset", title_justify="left")
    for split, rows in dataset.counts.items():
        table.add_row(split + (f" ({dataset.new} new)" if split == "train" else ""), str(rows))
    for who, rows in sorted(dataset.rights.used.items()):
        table.add_row(f"  trained on by right: {who}", str(rows))
    for who, rows in sorted(dataset.rights.refused.items()):
        table.add_row(Text(f"  refused: {who}", style="yellow"), str(rows))
    for reason, rows in sorted(dataset.skipped.items()):
        table.add_row(Text(f"left out: {reason}", style="dim"), str(rows))
    return table


def profile_tables(profile: Profile, failing: Sequence[FailingKind]) -> Iterator[Table]:
    """Slices with more than one name, lengths, and the kinds that the student fails at."""
    for what, by_split in profile.slices.items():
        total = sum(by_split.values(), start=type(by_split["train"])())
        if set(total) <= {NONE}:
            continue
        table = Table(what, *(Column(s, justify="right") for s in SPLITS), title=f"by {what}", title_justify="left")
        for name, _ in total.most_common(MOST_SLICES):
            table.add_row(Text(name), *(str(by_split[s][name]) for s in SPLITS))
        if len(total) > MOST_SLICES:
            table.caption = f"and {len(total) - MOST_SLICES} smaller ones"
        yield table
    names = ["least" if q == 0 else "most" if q == 1 else f"{q:.0%}" for q in QUANTILES]
    table = Table("length", *(Column(n, justify="right") for n in names), title="lengths", title_justify="left")
    for (split, part), sizes in profile.lengths.items():
        table.add_row(f"{split}: {part}", *(f"{size:,}" for size in sizes))
    yield table
    if failing:
        yield failing_table(failing)


def failing_table(failing: Sequence[FailingKind]) -> Table:
    """Kinds of requests that the student fails at, with what their rows count in training."""
    heads = ("verdicts", "failed", "weight")
    table = Table("failing kind", *(Column(h, justify="right") for h in heads), title="failing", title_justify="left")
    for kind in failing:
        table.add_row(Text(kind.name), str(kind.judged), f"{kind.rate:.1%}", f"{kind.weight:.2f}")
    return table


def row_panel(row: DatasetRow) -> Panel:
    """One row as it would be learnt."""
    said = [Text(f"{m['role']}: {spoken(m)}") for m in row.conversation]
    facts = [row.teacher, row.rights, *(f"{k} {v}" for k, v in _facts(row).items() if v)]
    return Panel(Group(*said), title=Text(" · ".join(facts)), title_align="left")


def _facts(row: DatasetRow) -> dict[str, str | None]:
    weight = f"{row.weight:.2f}" if row.weight != 1 else None
    return {"task": row.task, "language": row.language, "kind": row.cluster, "weight": weight}
