"""A scorer that reads with the transformer: looks take milliseconds, and the event loop goes on meanwhile."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from router.backends.breakers import ProcessBreakers, ProcessRests
from router.backends.client import BackendClient, Wires
from router.backends.roster import PolicyBackends
from router.bundles.watcher import LiveBundle
from router.cascade.cascade import Cascade
from router.cascade.drain import Drain
from router.cascade.exchange import CLIENT_LEFT, Services
from router.contracts.bundles import Thresholds, activate
from router.judges.judge import Judges
from router.metrics.metrics import Metrics
from router.policy.policy import Policy
from router.routing.policy_state import RoutingState
from router.routing.state.machine import MachineState
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.text.features import extract
from router.scoring.text.transformer import TransformerEncoder
from router.settings import Settings
from router.store.access import open_store
from router.wire.chat import ChatRequest
from tests.fakes import DEADLINE_SECONDS, FakeUpstream, policy_of, until, world
from tests.manifests import complete
from tests.tiny import tiny_transformer

EASY, HARD = "what is my balance", "prove the theorem"


class Watched(TransformerEncoder):
    """Tells where it is asked, and waits there for ``may_go``."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.may_go, self.asked = threading.Event(), threading.Event()
        self.on_a_loop = False
        self.may_go.set()

    def total(self, text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        try:
            asyncio.get_running_loop()
            self.on_a_loop = True
        except RuntimeError:
            pass
        self.asked.set()
        assert self.may_go.wait(DEADLINE_SECONDS)
        return super().total(text)


class Only:
    """One that serves all."""

    canary = None

    def __init__(self, live: LiveBundle) -> None:
        self.live = live

    def live_for(self, conversation_id: str) -> LiveBundle:
        return self.live


def body(text: str) -> dict[str, Any]:
    return {"model": "default", "messages": [{"role": "user", "content": text}]}


@pytest.fixture
def encoder() -> TransformerEncoder:
    return tiny_transformer(Watched)


@pytest.fixture
def scorer(encoder: Watched) -> Scorer:
    texts = [f"{HARD if n % 2 else EASY} {n}" for n in range(120)]
    found = Scorer.fit([Example(extract(body(text)), None, EASY in text) for text in texts], encoder)
    encoder.asked.clear()
    return found


def publish(settings: Settings, scorer: Scorer) -> None:
    folder = settings.bundles("default")
    scorer.save(folder / "b1" / "scorer")
    complete(folder, "b1", thresholds=Thresholds(route=0.5, accept=0))
    activate(folder, "b1")


def test_the_proxy_decides_by_it_beside_its_event_loop(tmp_path: Path, encoder: Watched, scorer: Scorer) -> None:
    changes = {"objective": {"threshold": 0.5}, "scorer": {"encoder": "transformer"}}
    publish(Settings(home=tmp_path / "home"), scorer)
    with world(tmp_path, encoders={"transformer": encoder}.__getitem__, **changes) as proxy, httpx.Client() as client:
        encoder.asked.clear()
        encoder.may_go.clear()
        answers: dict[str, httpx.Response] = {}

        def ask(text: str) -> None:
            url = f"{proxy.url}/v1/chat/completions"
            answers[text] = httpx.post(url, json=body(text), timeout=DEADLINE_SECONDS)

        asking = [threading.Thread(target=ask, args=(f"{kind} 7",)) for kind in (EASY, HARD)]
        for thread in asking:
            thread.start()
        assert encoder.asked.wait(DEADLINE_SECONDS)
        assert client.get(f"{proxy.url}/v1/models", timeout=DEADLINE_SECONDS).status_code == 200  # meanwhile
        assert not answers
        encoder.may_go.set()
        for thread in asking:
            thread.join(DEADLINE_SECONDS)
        tiers = {text: answer.headers["x-locum-tier"] for text, answer in answers.items()}
        assert tiers == {f"{EASY} 7": "student", f"{HARD} 7": "teacher"}
        assert {a.headers["x-locum-bundle"] for a in answers.values()} == {"b1"}
        assert not encoder.on_a_loop
        record = proxy.record(answers[f"{EASY} 7"].headers["x-locum-request-id"])
        assert record.decision.score == pytest.approx(scorer.score(extract(body(f"{EASY} 7"))))
        assert record.overhead_seconds > 0


class Nowhere:
    """Nobody is there to be answered."""

    started = False

    async def whole(self, *_: Any) -> None:
        raise AssertionError("an answer for nobody")

    start = send = end = whole


async def test_a_client_that_leaves_while_its_request_is_looked_at_is_recorded(
    tmp_path: Path, encoder: Watched, scorer: Scorer
) -> None:
    upstream = FakeUpstream("none")
    upstream.url = "http://127.0.0.1:9"
    policy = Policy.model_validate(policy_of(upstream, upstream) | {"objective": {"threshold": 0.5}})
    settings = Settings(home=tmp_path)
    store, tiers = open_store(settings, [policy]), BackendClient(Wires(), ProcessBreakers(), ProcessRests())
    live = LiveBundle("b1", scorer, Thresholds(route=0.5, accept=0))
    cascade = Cascade(
        policy,
        PolicyBackends(policy, {"TEACHER_KEY": "k"}),
        Only(live),
        RoutingState(policy, MachineState()),
        Services(tiers, store, Metrics(), Drain()),
        judges=Judges(policy.judge),
    )
    encoder.may_go.clear()
    serving = asyncio.create_task(cascade.serve(ChatRequest("r-1", "c-1", body(HARD)), Nowhere()))
    assert await asyncio.to_thread(encoder.asked.wait, DEADLINE_SECONDS)
    serving.cancel()
    await asyncio.sleep(0)  # it is told, and goes on
    assert not serving.done()
    encoder.may_go.set()
    with pytest.raises(asyncio.CancelledError):
        await serving
    await cascade.close()
    await tiers.close()
    await store.flush()
    record = until(lambda: store.get("r-1"))
    store.close()
    assert (record.status, record.answers) == (CLIENT_LEFT, [])
    assert record.decision.score == pytest.approx(scorer.score(extract(body(HARD))))
