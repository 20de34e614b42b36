"""A fuzzed proxy from its start to what it leaves behind."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from benchmarks.fuzz import requests, verdicts
from benchmarks.fuzz.answers import Answers, well
from benchmarks.fuzz.connection import Answer, asked
from benchmarks.fuzz.mutation import written
from benchmarks.fuzz.requests import KEYS, POSTED, Request, Seen
from benchmarks.harness import Row, Running, running
from benchmarks.scripted import ScriptedServer
from router.errors import StoreError
from router.store.access import open_readonly

CLIENTS, UPSTREAMS = SIDES = ("clients", "upstreams")
AT_ONCE = 16
PATIENCE_SECONDS = 60.0
SETTLING_SECONDS = 5.0
POLICIES = 16
"""Of the upstreams' side: each has a circuit of its own, so that some are always closed."""
MOST_FAULTS = 20
FORESEEN = frozenset({"backend_unusable"})
"""Errors in the log that are an alarm about somebody else."""
ALIASES = {"fuzzed": ["gpt-4o"], "claude": ["claude-sonnet-4-5"]}
_ID = re.compile(r'"(resp_[0-9a-z_]+)"')


@dataclass
class Found:
    """What a run brought. ``faults``: what was wrong, by the request's number; None: with the whole."""

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    left: int = 0
    faults: list[tuple[int | None, str]] = field(default_factory=list)
    served: set[str] = field(default_factory=set)
    records: int = 0
    slowest_seconds: float = 0.0

    @property
    def requests(self) -> int:
        return self.statuses.total() + self.left


def fuzz(side: str, seed: int, folder: Path, *, seconds: float = 0.0, numbers: Iterable[int] | None = None) -> Found:
    """Sends requests for so long, or those of these numbers, ``AT_ONCE`` at a time, to a proxy with its home in
    ``folder``."""
    names = [f"fuzzed-{n}" for n in range(POLICIES)] if side == UPSTREAMS else ["fuzzed", "claude"]
    found, models = Found(), ("student", "teacher")
    good = ScriptedServer(well, models)
    wrong = ScriptedServer(Answers(seed), models)
    with good, wrong:
        url = (good if side == CLIENTS else wrong).url
        env = {"LOCUM_API_KEYS": ",".join(KEYS), "TEACHER_KEY": verdicts.SECRET, "ANTHROPIC_BASE_URL": f"{url}/claude"}
        with running(folder, *(policy(name, url) for name in names), command="serve", env=env) as locum:
            asyncio.run(_drive(side, seed, locum, found, seconds=seconds, numbers=numbers))
            _after(locum, found)
    _logged(folder, found)
    return found


def policy(name: str, url: str) -> Row:
    """Half of the requests to either tier, some audited; some have Claude for a teacher. Waits for what may hang are
    short."""
    student = {
        "model": "student",
        "url": f"{url}/{name}-student/v1",
        "usd_per_million": {"input": 0.02, "output": 0.06},
    }
    teacher = {"model": "teacher", "url": f"{url}/{name}-teacher/v1", "usd_per_million": {"input": 1, "output": 3}}
    if claudes(name):
        teacher |= {"model": f"anthropic/{name}-sonnet-4-5"}
        del teacher["url"]
    waits = 60.0 if name in ALIASES else 1.0
    return {
        "name": name,
        "aliases": ALIASES.get(name, []),
        "student": student | {"timeout_seconds": waits, "unfit_for": {"images": False, "tools": False}},
        "teacher": teacher | {"timeout_seconds": waits, "api_key_env": "TEACHER_KEY", "training_rights": "allowed"},
        "embeddings": {
            "model": "teacher", "url": f"{url}/{name}-embeddings/v1", "usd_per_million": 1, "timeout_seconds": waits,
        },
        "objective": {"student_share": 0.5},
        "audit": {"rate": 0.1, "warmup_rate": 0.1, "explore": 0.1, "usd_per_day": 1000},
        "accept": {"hold_tokens": 2},
    }  # fmt: skip


def claudes(name: str) -> bool:
    """Whether the policy's teacher is Claude."""
    return name == "claude" or name.endswith(("3", "6"))


def plain(seed: int, number: int) -> Request:
    """A good request whose number its text tells, for whatever the model servers make of it."""
    rng, key = Random(f"{seed}:{number}:asked"), KEYS[number % 2]
    path, body = rng.choice(POSTED[:-1])(rng, Seen(), key)
    body["model"] = name = f"fuzzed-{number % POLICIES}"
    data = re.sub(rb'"(hi|1\+1=|What does the fox do\?|[^"]*fox jumps[^"]*)"', rb'"\1 #%d#"' % number, written(body))
    lines = [f"POST {path} HTTP/1.1", "host: locum", f"authorization: Bearer {key}", f"content-length: {len(data)}"]
    head = "".join(f"{line}\r\n" for line in lines).encode()
    leaves = rng.random() < 0.02
    native = path == "/v1/messages" and claudes(name)
    return Request(number, head + b"\r\n" + data, path, reads=rng.choice((0, 300)) if leaves else None, native=native)


async def _drive(
    side: str, seed: int, locum: Running, found: Found, *, seconds: float, numbers: Iterable[int] | None
) -> None:
    seen = Seen()
    port = int(locum.url.split(":")[2].split("/")[0])
    judge = verdicts.of_client if side == CLIENTS else verdicts.of_upstream
    began = time.monotonic()
    left = iter(numbers) if numbers is not None else itertools.count()

    async def client() -> None:
        for number in _until(left, began + seconds if numbers is None else None, found):
            request = requests.request(seed, number, seen) if side == CLIENTS else plain(seed, number)
            sent = time.monotonic()
            answer = await _asked(port, request)
            found.slowest_seconds = max(found.slowest_seconds, time.monotonic() - sent)
            _note(request, answer, seen, found)
            if fault := judge(request, answer):
                found.faults.append((number, f"{request.path}: {fault}: {answer.body[:300]!r}"))

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    found.seconds = time.monotonic() - began


def _until(numbers: Iterator[int], end: float | None, found: Found) -> Iterator[int]:
    for number in numbers:
        if (end is not None and time.monotonic() >= end) or len(found.faults) >= MOST_FAULTS:
            return
        yield number


async def _asked(port: int, request: Request) -> Answer:
    try:
        return await asked(
            port, request.data, pieces=request.pieces, leaves_after=request.leaves_after, reads=request.reads,
            seconds=PATIENCE_SECONDS,
        )  # fmt: skip
    except OSError:  # nobody listens, or not enough of them
        return Answer()


def _note(request: Request, answer: Answer, seen: Seen, found: Found) -> None:
    """Counts the answer, and keeps the ids that it brought."""
    if not answer.status:
        found.left += 1
        return
    found.statuses[answer.status] += 1
    key = KEYS[1] if KEYS[1].encode() in request.data[:4000] else KEYS[0]
    if (request_id := answer.headers.get("x-locum-request-id")) and answer.status == 200:
        seen.add("req", key, request_id)
        if answer.whole and answer.headers.get("x-locum-tier"):
            found.served.add(request_id)
    if request.path.startswith("/v1/responses") and (ids := _ID.findall(answer.body[:400].decode("latin-1"))):
        seen.add("resp", key, ids[0])


def _after(locum: Running, found: Found) -> None:
    """It still lives, and everything that it served is on record and can be read."""
    if locum.process.poll() is not None:
        found.faults.append((None, f"the proxy ended with {locum.process.returncode}"))
        return
    ended, known = time.monotonic() + SETTLING_SECONDS, set[str]()
    try:
        while found.served - (known := _on_record(locum)) and time.monotonic() < ended:
            time.sleep(0.2)
    except StoreError as e:
        found.faults.append((None, f"the records cannot be read: {e}"))
    found.records = len(known)
    if lost := found.served - known:
        found.faults.append((None, f"{len(lost)} of {len(found.served)} answers are not on record: {sorted(lost)[:3]}"))
    told = subprocess.run(
        [sys.executable, "-m", "router.cli", "status", "--policy", str(locum.policy_file)],
        env=locum.env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if told.returncode:
        found.faults.append((None, f"`locum status` ended with {told.returncode}: {told.stderr[-500:]}"))


def _on_record(locum: Running) -> set[str]:
    """Raises StoreError where a record cannot be read."""
    with closing(open_readonly(locum.settings)) as records:
        found = {record.request_id for _, record in records.records()}
        if said := records.unread.said():
            raise StoreError(said)
    return found


def _logged(folder: Path, found: Found) -> None:
    """No line of the log tells of something that nobody foresaw, nor the teacher's key."""
    for line in (folder / "locum.log").read_text(errors="replace").split("\n"):
        try:
            told = json.loads(line)
        except ValueError:
            told = {"level": "error" if "Traceback" in line else "", "event": line}
        if told.get("event") not in FORESEEN and (told.get("level") in ("error", "critical") or "exception" in told):
            found.faults.append((None, f"in the log: {_brief(told)}"))
        if verdicts.SECRET in line:
            found.faults.append((None, "the teacher's key is in the log"))


def _brief(told: Row) -> str:
    """A line of the log, of its traceback what was raised and where."""
    raised = [
        f"{e.get('exc_type')}: {str(e.get('exc_value'))[:200]} at "
        + " < ".join(f"{Path(f['filename']).name}:{f['lineno']}" for f in reversed(e.get("frames", [])[-4:]))
        for e in told.get("exception") or []
    ]
    rest = {name: value for name, value in told.items() if name not in ("exception", "level", "timestamp")}
    return f"{json.dumps(rest)[:500]} {'; '.join(raised)}"


__all__ = ["CLIENTS", "SIDES", "UPSTREAMS", "Found", "fuzz"]
