"""Bundles are activated and rolled back under load, and no client notices more than another model's name."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from openai import AsyncOpenAI

from router.contracts.bundles import StudentRef, Thresholds, activate, rollback
from router.contracts.records import AnswerKind
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.text.features import extract
from router.settings import Settings
from tests.fakes import World, until, world
from tests.manifests import complete

CLIENTS = 16
SWAPS = 8


def publish(folder: Path, bundle: str) -> None:
    """A whole bundle whose student is served by URL as ``tiny-<bundle>``; manifest last."""
    home = folder / bundle
    (home / "student").mkdir(parents=True)
    examples = [Example(extract(body(n)), None, acceptable=n % 3 > 0) for n in range(12)]
    Scorer.fit(examples, None).save(home / "scorer")
    student = StudentRef(model=f"tiny-{bundle}", path="student")
    complete(folder, bundle, student=student, thresholds=Thresholds(route=0.5, accept=0))


def body(n: int) -> dict[str, Any]:
    words = " ".join(f"word{n * k % 17}" for k in range(n % 12 + 1))
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": f"Question {n}: {words}?"}]}


async def send(client: AsyncOpenAI, n: int) -> tuple[str, str, str]:
    """(tier, bundle, model) of one exchange, every second one streamed; raises if anything is amiss."""
    create = client.chat.completions.with_raw_response.create
    if n % 2:
        raw: Any = await create(**body(n), stream=True)
        chunks = [chunk async for chunk in raw.parse()]
        text = "".join(c.choices[0].delta.content or "" for c in chunks)
        models = {c.model for c in chunks}
    else:
        raw = await create(**body(n))
        text, models = raw.parse().choices[0].message.content, {raw.parse().model}
    assert text == "hello there friend"
    assert len(models) == 1
    return raw.headers["x-locum-tier"], raw.headers["x-locum-bundle"], models.pop()


async def keep_sending(url: str, number: int, stop: asyncio.Event) -> list[tuple[str, str, str]]:
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
        got = []
        while not stop.is_set():
            got.append(await send(client, number + CLIENTS * len(got)))
        return got


def swap_about(found: World, folder: Path) -> None:
    """b2, back to b1, b1, back, ...: each until its own student has answered a few."""
    activate(folder, "b1")
    for n in range(SWAPS):
        active = rollback(folder) if n % 2 else activate(folder, ("b2", None, "b1")[n % 3])
        model, before = f"tiny-{active.bundle}" if active.bundle else "tiny", len(found.student.seen)
        until(lambda model=model, before=before: served_by(found, model, before) >= 4)


def served_by(found: World, model: str, since: int) -> int:
    return sum(seen.body["model"] == model for seen in found.student.seen[since:])


async def traffic(found: World, folder: Path) -> list[tuple[str, str, str]]:
    stop = asyncio.Event()
    clients = [asyncio.create_task(keep_sending(found.url, n, stop)) for n in range(CLIENTS)]
    await asyncio.to_thread(swap_about, found, folder)
    stop.set()
    return [answer for answers in await asyncio.gather(*clients) for answer in answers]


def test_a_swap_under_load_drops_no_request_and_mixes_no_versions(tmp_path: Path) -> None:
    folder = Settings(home=tmp_path / "home").bundles("default")
    for bundle in ("b1", "b2"):
        publish(folder, bundle)
    with world(tmp_path, objective={"student_share": 0.6}) as found:
        found.student.models = ["tiny", "tiny-b1", "tiny-b2"]
        until(lambda: httpx.get(f"{found.url}/health/ready", timeout=30).json()["policies"][0]["student"]["ready"])
        answers = asyncio.run(traffic(found, folder))
        seen = Counter(answers)
        student = {(bundle, model) for tier, bundle, model in seen if tier == "student"}
        assert student == {("base", "tiny"), ("b1", "tiny-b1"), ("b2", "tiny-b2")}
        assert {model for tier, _, model in seen if tier == "teacher"} == {"big"}
        until(lambda: len(found.records()) == len(answers))
        assert {r.status for r in found.records()} == {200}
        assert all(r.answers[0].kind is AnswerKind.SERVED for r in found.records())
