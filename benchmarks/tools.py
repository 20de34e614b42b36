"""Right calls of tools: label heads, a 135M student before and after training, and who copies the nearest message.

    OMP_WAIT_POLICY=passive python benchmarks/tools.py --out benchmarks/results/tools.json [--work FOLDER]

The workload is synthetic (``benchmarks/six_tools.py``): six tools and messages that call none. The teacher is simulated
by the written truth, so its answers are right by construction. Heads and student learn from the same messages; an
answer is right where name and arguments are the truth's as JSON values, or where no tool is called and the text is the
truth's. The student (SmolLM2-135M-Instruct, whose template shows no tools) is trained by the product's own code and
answers through the embedded engine, held to the tools' schemas.

Shares: a threshold is certified on half of the messages for a parity of .95 at a confidence of .95 (exact bound), and
put to the other half: what share of the requests with tools is then carried, and how many of all are right. Without
tools (``unfit_for: {tools: true}``) that share is 0. What is under way is kept in ``--work``, and goes on.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import intents
import numpy as np
import numpy.typing as npt
from harness import Row, conditions, write_result
from rich.console import Console
from rich.table import Table
from six_tools import KINDS, TOOLS, WrittenMessage, apart, written

from distiller.bundles import StudentFiles
from distiller.config import TrainConfig
from distiller.data.dataset import build
from distiller.data.rows import DatasetRow, row_of
from distiller.evaluation.answers import Asker
from distiller.evaluation.engine import NAME, serving
from distiller.evaluation.grading import question
from distiller.training.loop import read_report
from distiller.training.run import trained
from router.contracts.records import Record
from router.engine.weights import base_student
from router.heads.answers import TOOL, Fields, fields_of
from router.heads.fit import fit_heads
from router.heads.head import LabelHead
from router.judges.equality import normalised, tool_calls
from router.judges.judge import Judges
from router.judges.pair import Pair, calls
from router.scoring.statistics.thresholds import for_parity
from router.scoring.text.encoder import Encoder, load_encoder
from router.scoring.text.features import Features, extract
from router.settings import Settings

LEARNT, LOOKED_AT = 240, 60
MOST_TOKENS = 96
"""Of an answer: twice what the longest takes. A student before training says much more."""
FLOOR, CONFIDENCE = 0.95, 0.95
Floats = npt.NDArray[np.float64]
SETS = {"seen": 2, "unseen": 3}
"""Phrasings that were learnt from, and others; with the seed of each."""
NOTHING_SAID = {"role": "assistant", "content": ""}


@dataclass(frozen=True, slots=True)
class Said:
    """What one answerer says to each message, and how sure it is of it."""

    messages: list[Mapping[str, Any]]
    scores: Floats


def body_of(message: WrittenMessage) -> dict[str, Any]:
    asked = [{"role": "user", "content": message.text}]
    return {"model": "tools", "messages": asked, "tools": TOOLS, "max_tokens": MOST_TOKENS}


def record(message: WrittenMessage, at: int, *, audited: bool) -> Record:
    """The message as the log would have it, answered by the written truth."""
    plain = intents.record(message.text, "", at, audited=audited, system=None)
    finish = "tool_calls" if message.call else "stop"
    answer = replace(plain.answers[0], message=message.answer, finish_reason=finish)
    return replace(plain, request=body_of(message), answers=[answer])


def is_right(said: Mapping[str, Any], message: WrittenMessage) -> bool:
    pair = Pair(said, message.answer)
    compared = tool_calls if calls(said) or message.call else normalised
    return bool(compared(pair).acceptable)


def by_nearest(learnt: Sequence[WrittenMessage], asked: Sequence[WrittenMessage], encoder: Encoder) -> Said:
    """The call of the nearest message that was learnt from."""
    known, new = (np.array([encoder.encode(m.text) for m in part]) for part in (learnt, asked))
    near = _unit(new) @ _unit(known).T
    best = near.argmax(axis=1)
    return Said([learnt[i].answer for i in best], near.max(axis=1).astype(np.float64))


def _unit(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def by_served_heads(learnt: Sequence[WrittenMessage], asked: Sequence[WrittenMessage], encoder: Encoder) -> Said:
    """What ``engine: head`` serves: one head for each kind of requests, which all of these are one of."""
    heads, _ = fit_heads([body_of(m) for m in learnt], [m.answer for m in learnt], encoder)
    replies = [heads.reply(body_of(m)) for m in asked]
    answers = [reply.message if reply else NOTHING_SAID for reply in replies]
    return Said(answers, np.array([reply.score if reply else 0.0 for reply in replies]))


def by_head(learnt: Sequence[WrittenMessage], asked: Sequence[WrittenMessage], encoder: Encoder) -> Said:
    """A head for the tool's name (or the text that calls none), and one for each tool's arguments; their scores
    multiplied, since all must be right."""
    fields = [fields_of(m.answer) for m in learnt]
    features = [extract(body_of(m)) for m in learnt]
    names = [_named(one) for one in fields]
    first = LabelHead.fit(features, names, encoder)
    inner: dict[str, LabelHead | None] = {}
    for name in sorted({dict(one).get(TOOL, "") for one in fields if one}):
        mine = [i for i, one in enumerate(fields) if one and dict(one).get(TOOL, "") == name and len(one) > 1]
        inner[name] = LabelHead.fit([features[i] for i in mine], [fields[i] for i in mine], encoder) if mine else None
    new: list[Features] = [extract(body_of(m)) for m in asked]
    answers, scores = [], []
    assert first is not None
    for one, request in zip(first.answers(new, first.inputs.reader(encoder)), new, strict=True):
        told = dict(one.fields)
        head = inner.get(told.get("", ""))
        if head is not None:
            found = head.answers([request], head.inputs.reader(encoder))[0]
            answers.append(_message(found.fields))
            scores.append(one.score * found.score)
        else:
            answers.append({"role": "assistant", "content": told.get("", "")})
            scores.append(one.score)
    return Said(answers, np.array(scores))


def _named(fields: Fields | None) -> Fields | None:
    return None if fields is None else (("", dict(fields).get(TOOL) or dict(fields)[""]),)


def _message(fields: Fields) -> Mapping[str, Any]:
    """A call of which each field is known."""
    told = dict(fields)
    inner = ", ".join(f'"{k.removeprefix("arguments.")}": {v}' for k, v in told.items() if k != TOOL)
    function = {"name": told[TOOL], "arguments": f"{{{inner}}}"}
    call = {"id": "c", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def by_student(folder: Path, asked: Sequence[WrittenMessage], kept: Path) -> Said:
    """A student's answers, through the engine that serves; its score is the mean probability of its tokens."""
    kept.mkdir(parents=True, exist_ok=True)
    rows = rows_of([record(m, n, audited=True) for n, m in enumerate(asked)])
    with serving(StudentFiles(folder), "embedded", kept / "engine.log") as url:
        found = Asker(url, NAME, in_flight=32).ask([question(row) for row in rows], kept / "answers.jsonl")
    answers = [found[row.request_id] for row in rows]
    sure = [np.exp(a.signals.min_logprob) if a.signals else 0.0 for a in answers]
    return Said([a.message for a in answers], np.array(sure))


def rows_of(records: Sequence[Record]) -> list[DatasetRow]:
    asked = intents.policy()
    judges = Judges(asked.judge)
    found = [row_of(r, asked, judges) for r in records]
    assert all(isinstance(row, DatasetRow) for row in found)
    return [row for row in found if isinstance(row, DatasetRow)]


def trained_student(learnt: Sequence[WrittenMessage], work: Path, epochs: float) -> tuple[Path, float]:
    records = [record(m, n, audited=False) for n, m in enumerate(learnt)]
    dataset = build(records, intents.policy(), work / "dataset", replace(intents.DATASET, near_duplicate=1.0))
    config = TrainConfig(epochs=epochs, learning_rate=4e-4, batch_size=8, evaluations=1, checkpoint_seconds=240.0)
    base = base_student(intents.STUDENT, Settings.from_env().cache)
    out = work / "student"
    report = read_report(out) if out.exists() else trained(config, base, dataset, out)
    return report.folder, report.seconds


def carried(said: Said, right: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """(share carried of every second request, how many of all these are right), by a threshold of the others."""
    found = for_parity(said.scores[::2], None, right[::2], FLOOR, CONFIDENCE)
    served = said.scores[1::2] >= found.route
    return float(served.mean()), 1 - float((served & ~right[1::2]).mean())


def told(name: str, phrasings: str, said: Said, asked: Sequence[WrittenMessage]) -> Row:
    right = np.array([is_right(a, m) for a, m in zip(said.messages, asked, strict=True)])
    share, parity = carried(said, right)
    kinds = {k.name: float(right[[m.kind == k.name for m in asked]].mean()) for k in KINDS}
    return {
        "answerer": name, "phrasings": phrasings, "messages": len(asked), "right": float(right.mean()),
        "right_by_kind": {k: round(v, 4) for k, v in kinds.items()},
        "share_with_tools": share, "right_of_all": parity, "share_without_tools": 0.0,
    }  # fmt: skip


def measured(work: Path, epochs: float, learnt_rows: int, looked_at: int) -> tuple[list[Row], Row]:
    learnt = written(learnt_rows, seed=1)
    encoder = load_encoder(Settings.from_env().cache)
    folder, seconds = trained_student(learnt, work, epochs)
    found: dict[str, list[tuple[Said, list[WrittenMessage]]]] = {}
    for phrasings, seed in SETS.items():
        asked = apart(written(2 * looked_at, seed, unseen=phrasings == "unseen"), learnt)[:looked_at]
        truth = Said([m.answer for m in asked], np.ones(len(asked)))
        base = base_student(intents.STUDENT, Settings.from_env().cache)
        answerers = {
            "teacher (simulated: the truth)": truth,
            "nearest message": by_nearest(learnt, asked, encoder),
            "label head, as served": by_served_heads(learnt, asked, encoder),
            "label heads, one a tool": by_head(learnt, asked, encoder),
            "135M student, trained": by_student(folder, asked, work / f"trained-{phrasings}"),
        }
        if phrasings == "seen":  # unseen ones are to show what was learnt
            answerers["135M student, untrained"] = by_student(base, asked, work / "base-seen")
        for name, said in answerers.items():
            found.setdefault(name, []).append((said, asked))
    sets = [*SETS]
    rows = [told(name, sets[n], *part) for name, parts in found.items() for n, part in enumerate(parts)]
    rows += [told(name, "both", *together(parts)) for name, parts in found.items() if len(parts) > 1]
    return rows, {"learnt_from": len(learnt), "epochs": epochs, "train_seconds": round(seconds)}


def together(parts: Sequence[tuple[Said, list[WrittenMessage]]]) -> tuple[Said, list[WrittenMessage]]:
    """The sets as one, in an order drawn once."""
    messages = [m for said, _ in parts for m in said.messages]
    scores, asked = np.concatenate([said.scores for said, _ in parts]), [m for _, some in parts for m in some]
    order = np.random.default_rng(0).permutation(len(asked)).tolist()
    return Said([messages[i] for i in order], scores[order]), [asked[i] for i in order]


def table(rows: Sequence[Row]) -> Table:
    heads = ("answerer", "phrasings", "right", *(k.name for k in KINDS), "share, floor .95", "right of all")
    shown = Table(*heads, title="right calls of six tools (synthetic workload, simulated teacher)")
    for row in rows:
        kinds = (f"{row['right_by_kind'][k.name]:.0%}" for k in KINDS)
        shares = (f"{row['share_with_tools']:.0%}", f"{row['right_of_all']:.1%}")
        shown.add_row(row["answerer"], row["phrasings"], f"{row['right']:.1%}", *kinds, *shares)
    return shown


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path)
    options.add_argument("--work", type=Path, help="kept, so that what was cut off goes on; without it, a fresh one")
    options.add_argument("--epochs", type=float, default=1.0)
    options.add_argument("--learnt", type=int, default=LEARNT)
    options.add_argument("--messages", type=int, default=LOOKED_AT)
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as fresh:
        rows, more = measured(args.work or Path(fresh), args.epochs, args.learnt, args.messages)
    Console(width=150).print(table(rows))
    if args.out:
        write_result(args.out, "tools", conditions(**more, floor=FLOOR, confidence=CONFIDENCE), rows)


if __name__ == "__main__":
    main()
