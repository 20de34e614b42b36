"""How fast a dataset is built from a log, and how much memory that takes.

    python benchmarks/dataset.py --records 1000000 --out benchmarks/results/dataset.json

Records are synthetic: words drawn by Zipf's law, in three applications (a system prompt; a long frame around a short
message; free chat of several turns), a tenth exact copies of earlier requests, a twentieth copies but for one word,
2% audited, 2,000 users, a third with the student's answer beside the teacher's. They are written to a real store
first, which is not counted; then `locum distill dataset build` reads that store in a process of its own, once with
the round's budget of rows to train on and once without one. The rate is records of the store over the whole time of
the command; the peak is that process's resident memory at most.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from harness import conditions, write_result

from router.contracts.decision import Decision, Reason, Tier
from router.contracts.records import Answer, AnswerKind, Audit, Record, Rights, Usage
from router.policy.policy import Policy
from router.settings import Settings
from router.store.access import open_store
from router.store.record_json import kept_record
from router.store.tables import ADD_RECORDS

POLICY = {
    "name": "p",
    "student": {"model": "s", "url": "http://s", "usd_per_million": {"input": 0, "output": 0}},
    "teacher": {"model": "t", "training_rights": "allowed"},
    "objective": {"parity": {}},
}
VOCABULARY = 30_000
AT_ONCE = 1000


class Words:
    """Words by Zipf's law, drawn many at once."""

    def __init__(self, seed: int) -> None:
        drawn, letters = random.Random(seed), "etaoinshrdlucmfwypvbgkqjxz"
        self._words = [
            "".join(drawn.choices(letters, range(26, 0, -1), k=drawn.randint(2, 10))) for _ in range(VOCABULARY)
        ]
        weights = 1 / np.arange(1, VOCABULARY + 1)
        self._share, self._random = np.cumsum(weights / weights.sum()), np.random.default_rng(seed)
        self._waiting: list[int] = []

    def say(self, n: int) -> str:
        if len(self._waiting) < n:
            self._waiting = np.searchsorted(self._share, self._random.random(100_000)).tolist()
        said, self._waiting = self._waiting[:n], self._waiting[n:]
        return " ".join(self._words[min(i, VOCABULARY - 1)] for i in said)


def synthetic(count: int, seed: int) -> Iterator[Record]:
    """So many records, in the order of their time."""
    drawn, words = random.Random(seed), Words(seed)
    system, frame = f"You help the customers of a shop. {words.say(80)}.", f"Name the intent, one of: {words.say(90)}."
    asked: list[list[dict[str, str]]] = []
    for i in range(count):
        kind, luck = drawn.random(), drawn.random()
        if asked and luck < 0.15:
            messages = drawn.choice(asked)
            if luck < 0.05:
                text = messages[-1]["content"].split(" ")
                text[drawn.randrange(len(text))] = words.say(1)
                messages = [*messages[:-1], {"role": "user", "content": " ".join(text)}]
        elif kind < 0.4:
            said = words.say(drawn.randint(10, 60))
            messages = [{"role": "system", "content": system}, {"role": "user", "content": f"{said}? Order {i}."}]
        elif kind < 0.7:
            messages = [{"role": "user", "content": f"{frame} Message: {words.say(drawn.randint(5, 20))}"}]
        else:
            turns = [words.say(drawn.randint(5, 80)) for _ in range(drawn.choice((1, 1, 3, 5)))]
            messages = [{"role": ("user", "assistant")[j % 2], "content": t} for j, t in enumerate(turns)]
        if len(asked) < 20_000:
            asked.append(messages)
        yield record(i, messages, words.say(drawn.randint(3, 60)), drawn)


def record(i: int, messages: list[dict[str, str]], answer: str, drawn: random.Random) -> Record:
    audited, both = drawn.random() < 0.02, drawn.random() < 0.33
    said = Answer(
        tier=Tier.TEACHER,
        kind=AnswerKind.SERVED,
        model="t",
        message={"role": "assistant", "content": answer},
        finish_reason="stop",
        usage=Usage(input_tokens=200, output_tokens=len(answer) // 4),
        training_rights=Rights.ALLOWED if drawn.random() < 0.95 else Rights.FORBIDDEN,
    )
    students = replace(said, tier=Tier.STUDENT, kind=AnswerKind.DISCARDED, model="s", student_version="base")
    return Record(
        request_id=f"r{i:09d}",
        conversation_id=f"c{i // 3}",
        created_at=1_900_000_000.0 + i,
        policy="p",
        policy_version="1",
        features_version="2",
        user=f"u{drawn.randrange(2000)}",
        task=("chat", "intent", None)[i % 3],
        decision=Decision(tier=Tier.TEACHER, reason=Reason.SCORE, score=0.4, propensity=0.02, audited=audited),
        tier=Tier.TEACHER,
        reason=Reason.SCORE,
        request={"model": "p", "messages": messages},
        answers=[said, students] if both else [said],
        audit=Audit(acceptable=drawn.random() < 0.8, judge="normalised") if audited else None,
    )


def fill(settings: Settings, count: int, seed: int) -> None:
    """Writes the records straight into the store's tables: the queue before them is not what is measured."""
    policy = Policy.model_validate(POLICY)
    open_store(settings, [policy]).close()  # type: ignore[attr-defined]
    with closing(sqlite3.connect(settings.records_db, isolation_level=None)) as db:
        db.execute("BEGIN")
        for r in synthetic(count, seed):
            db.execute(f"{ADD_RECORDS}(?, ?, ?, ?)", (r.request_id, r.policy, r.created_at, kept_record(r, policy.log)))
        db.execute("COMMIT")


def measured(home: Path, out: Path, max_rows: int) -> dict[str, Any]:
    """Builds in this process, fresh for it, and tells what that took."""
    from distiller.cli import app

    start = time.monotonic()
    app(
        ["dataset", "build", "--policy", str(home / "p.yaml"), "--out", str(out), "--max-rows", str(max_rows)],
        standalone_mode=False,
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": time.monotonic() - start, "cpu_seconds": time.process_time(), "peak_mb": peak / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/dataset.json"))
    parser.add_argument("--measure", nargs=3, metavar=("HOME", "FOLDER", "MAX_ROWS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        home, folder, most = given.measure
        print(json.dumps(measured(Path(home), Path(folder), int(most))))
        return
    with tempfile.TemporaryDirectory(prefix="locum-dataset-") as place:
        rows = run(Path(place), given.records, given.seed)
    write_result(given.out, "dataset", conditions(records=given.records, seed=given.seed, synthetic=True), rows)


def run(home: Path, count: int, seed: int) -> list[dict[str, Any]]:
    start = time.monotonic()
    fill(Settings(home=home), count, seed)
    (home / "p.yaml").write_text(json.dumps(POLICY))
    size = sum(p.stat().st_size for p in home.glob("records.db*"))
    print(f"{count:,} records, {size / 1e6:,.0f} MB, written in {time.monotonic() - start:.0f} s", flush=True)
    rows = []
    for name, most in (("locum", 20_000), ("locum, every row", 0)):
        out = home / "dataset"
        command = [sys.executable, __file__, "--measure", str(home), str(out), str(most)]
        env = {"LOCUM_HOME": str(home)}
        ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **env})
        took = json.loads(ran.stdout.splitlines()[-1])
        found = json.loads((out / "dataset.json").read_text())
        rate = count / took["seconds"]
        row = {"name": name, "records_per_second": round(rate), **{k: round(v, 1) for k, v in took.items()}}
        written = sum(p.stat().st_size for p in out.glob("*.parquet"))
        row |= {"counts": found["counts"], "skipped": found["skipped"], "parquet_mb": round(written / 1e6, 1)}
        print(row, flush=True)
        rows.append(row)
        shutil.rmtree(out)
    return rows


if __name__ == "__main__":
    main()
