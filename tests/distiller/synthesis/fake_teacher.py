"""A log of two kinds of requests, and a teacher that writes and answers as a test says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from router.contracts.decision import Decision, Reason, Tier
from router.contracts.records import Answer, AnswerKind, Audit, Record, Rights, Usage
from router.policy.policy import Policy, load_policy
from router.settings import Settings
from router.store.access import open_store
from tests.fakes import FakeUpstream, Script

SYSTEM = "You are the helpdesk. Say which team takes it."
CARDS = [
    f"{ask} {thing} {when}"
    for ask in ("where is my", "please block my", "what does it cost to replace the", "how do i activate a")
    for thing in ("bank card", "virtual bank card", "old bank card")
    for when in ("today", "quickly", "while abroad", "for my mother", "by post")
]
PODS = [
    f"{start} {end}"
    for start in ("why does my kubernetes pod", "my kubernetes pod in staging will", "a pod on the kubernetes cluster")
    for end in ("restart all night", "crash at start", "stay pending", "lose its volume", "miss a secret")
]
PLACES = ("berlin", "osaka", "lima", "quebec", "nairobi", "perth", "tallinn", "malta", "hanoi", "bogota")
THINGS = ("ingress", "sidecar", "daemonset", "operator", "taint", "eviction", "probe", "registry", "quota", "affinity")
INPUT, OUTPUT = 1, 3
"""USD per million tokens of the teacher."""


def request(text: str) -> dict[str, Any]:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
    return {"model": "default", "messages": messages, "temperature": 0, "max_tokens": 50}


def record(n: int, text: str, answer: str, *, right: bool | None = None, at: float = 1_000_000.0) -> Record:
    """One request that the teacher answered; ``right`` is the audit's word on the student's answer."""
    served = Answer(
        tier=Tier.TEACHER,
        kind=AnswerKind.SERVED,
        model="big",
        message={"role": "assistant", "content": answer},
        finish_reason="stop",
        usage=Usage(input_tokens=20, output_tokens=2),
        training_rights=Rights.ALLOWED,
    )
    student = Answer(tier=Tier.STUDENT, kind=AnswerKind.AUDITED, model="s", message={"content": "no idea"})
    return Record(
        request_id=f"req-{n}",
        conversation_id=f"conv-{n}",
        created_at=at + n,
        policy="p",
        policy_version="1",
        features_version="1",
        decision=Decision(tier=Tier.TEACHER, reason=Reason.SCORE, audited=right is not None, propensity=0.2),
        tier=Tier.TEACHER,
        reason=Reason.SCORE,
        request=request(text),
        answers=[served],
        audit=None if right is None else Audit(answer=student, acceptable=right, judge="normalised"),
    )


def log(settings: Settings, policy: Policy) -> None:
    """60 requests on cards, which the student answers well, and 15 on pods, at which it fails: each third of them
    was audited."""
    made = [record(n, text, "cards", right=True if n % 3 == 0 else None) for n, text in enumerate(CARDS)]
    made += [record(100 + n, text, "ops", right=False if n % 3 == 0 else None) for n, text in enumerate(PODS)]
    store = open_store(settings, [policy])

    async def write() -> None:
        for one in made:
            store.append(one)
        await store.flush()

    asyncio.run(write())
    store.close()


class Teacher(FakeUpstream):
    """Writes five requests at once, each of its own, and answers them by their words."""

    def __init__(self) -> None:
        super().__init__("big")
        self.turn = 0
        self.says: Callable[[str], str] = lambda text: "ops" if "kubernetes" in text else "cards"
        self.writes: Callable[[int, str], str] = one_of_a_kind
        self.answer = self.scripted

    @property
    def written(self) -> list[dict[str, Any]]:
        return [s.body for s in self.seen if is_writing(s.body)]

    @property
    def answered(self) -> list[dict[str, Any]]:
        return [s.body for s in self.seen if not is_writing(s.body)]

    def scripted(self, body: dict[str, Any]) -> Script:
        usage = {"prompt_tokens": 100, "completion_tokens": 10}
        last = body["messages"][-1]["content"]
        if not is_writing(body):
            return Script(text=self.says(last), usage=usage)
        self.turn += 1
        shown = "".join(f"<request>{self.writes(5 * self.turn + i, last)}</request>\n" for i in range(5))
        return Script(text=f"Here they are.\n{shown}", usage=usage)


def one_of_a_kind(n: int, shown: str) -> str:
    """The ``n``-th request of the kind that is shown: no two are near copies of each other."""
    place, thing = PLACES[n % 10], THINGS[(n // 10 + n) % 10]
    if "kubernetes" in shown:
        return f"{place} engineers see {thing} errors whenever kubernetes schedules workload {word(n)}"
    return f"i lost the {word(n)} card in {place}, what now with the {thing}"


def word(n: int) -> str:
    return "".join("bdfgklmnprstvz"[(n * k) % 14] + "aeiou"[(n + k) % 5] for k in (3, 5, 9, 11, 13))


def is_writing(body: dict[str, Any]) -> bool:
    return bool(re.search(r"Write \d+ new requests", str(body["messages"][-1]["content"])))


def policy_file(folder: Path, teacher: FakeUpstream, **changes: Any) -> Path:
    values: dict[str, Any] = {
        "name": "p",
        "student": {"model": "s", "engine": "embedded", "usd_per_million": {"input": 0, "output": 0}},
        "teacher": {
            "model": "big",
            "url": f"{teacher.url}/v1",
            "usd_per_million": {"input": INPUT, "output": OUTPUT},
            "training_rights": "allowed",
        },
        "objective": {"parity": {}},
    }
    file = folder / "policy.yaml"
    file.write_text(yaml.safe_dump(values | changes))
    return file


def home(folder: Path, teacher: FakeUpstream, **changes: Any) -> tuple[Policy, Settings, Path]:
    file = policy_file(folder, teacher, **changes)
    policy, settings = load_policy(file), Settings(home=folder / "home", cache=folder / "cache")
    log(settings, policy)
    return policy, settings, file
