"""What is new in the traffic is found in the records, by the running proxy and by who only looks, alike."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from router.contracts.bundles import activate
from router.contracts.decision import Decision, Reason, Tier
from router.contracts.records import Audit, Record
from router.metrics.metrics import Metrics
from router.policy.policy import LogPart
from router.scoring.statistics.shift import BLOCK, Spread
from router.served.drift import Drift, DriftWatch, look
from router.settings import Settings
from router.store.base import ScoredRecord
from router.store.sqlite import SqliteStore
from tests.manifests import complete

MakeRecord = Callable[..., Record]
USUAL = [f"where is my {card} card number {n}" for n in range(12) for card in ("new", "lost", "virtual")]
PODS = [
    f"why does {whose} kubernetes pod {what}"
    for whose in ("my", "our", "the")
    for what in ("die", "wait", "spin", "hang")
]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def publish(settings: Settings, bundle: str = "b-1", scores: Spread | None = None) -> None:
    evaluation = {"scores": scores.as_dict()} if scores else {}
    complete(settings.bundles("default"), bundle, created_at=time.time(), evaluation=evaluation)
    activate(settings.bundles("default"), bundle)


class Home:
    """Records of one policy, in a store of its own."""

    def __init__(self, settings: Settings, make_record: MakeRecord, text: bool = True) -> None:
        self.store = SqliteStore(settings.records_db, {"default": LogPart(text=text)})
        self._make, self._count = make_record, 0

    def add(
        self,
        text: str,
        *,
        novelty: float | None,
        score: float = 0.4,
        audited: bool = False,
        bundle: str = "b-1",
        **changes: object,
    ) -> str:
        self._count += 1
        decision = Decision(
            tier=Tier.TEACHER, reason=Reason.SCORE, score=score, threshold=0.5, novelty=novelty, audited=audited
        )
        request = {"model": "m", "messages": [{"role": "user", "content": text}]}
        values = {
            "created_at": time.time(),
            "tier": Tier.TEACHER,
            "decision": decision,
            "bundle": bundle,
            "request": request,
        }
        record = self._make(f"r{self._count}", **(values | changes))
        self.store.append(record)
        return record.request_id

    def traffic(self) -> list[str]:
        """Usual requests, and a new kind among them; the new kind's ids."""
        for text in USUAL:
            self.add(text, novelty=0.01)
        return [self.add(text, novelty=0.9, user=f"u-{n}") for n, text in enumerate(PODS)]

    async def written(self) -> None:
        await self.store.flush()


@pytest.fixture
def home(settings: Settings, make_record: MakeRecord) -> Home:
    return Home(settings, make_record)


def told(metrics: Metrics) -> Mapping[str, float]:
    lines = (line.rpartition(" ") for line in metrics.expose().decode().splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


async def test_a_new_kind_shows_up_by_name_in_metrics_and_to_who_only_looks(settings: Settings, home: Home) -> None:
    publish(settings)
    home.traffic()
    await home.written()
    metrics = Metrics()
    watch = DriftWatch(home.store, metrics, settings, lambda: {"default": "b-1", "idle": None}, lambda: None)
    await watch.look()
    found = look(home.store, settings, "default", "b-1", encoder=lambda: None, now=time.time())
    (cluster,) = found.clusters
    assert "kubernetes" in cluster.name and cluster.requests == len(PODS) and cluster.to_teacher == 1
    assert found.strange == len(PODS) and found.requests == len(PODS) + len(USUAL)
    got = told(metrics)
    assert got[f'locum_new_cluster_requests{{cluster="{cluster.name}",policy="default"}}'] == len(PODS)
    assert got['locum_strange_share{policy="default"}'] == pytest.approx(0.25)


async def test_verdicts_that_come_later_are_joined_in(settings: Settings, home: Home) -> None:
    publish(settings)
    ids = [*home.traffic(), home.add("why is one kubernetes pod late", novelty=0.8, audited=True)]
    await home.written()
    drift = Drift("b-1", None)
    for request in home.store.scored("default"):
        drift.count(request)
    now = time.time()
    assert drift.report(home.store.get, lambda: None, now).clusters[0].audited == 0
    home.store.amend(ids[-1], audit=Audit(acceptable=True, judge="exact"))
    await home.written()
    (cluster,) = drift.report(home.store.get, lambda: None, now).clusters
    assert (cluster.audited, cluster.acceptable) == (1, 1)


async def test_a_kind_that_ends_leaves_the_metrics(settings: Settings, home: Home) -> None:
    publish(settings)
    home.traffic()
    await home.written()
    metrics, live = Metrics(), {"default": "b-1"}
    watch = DriftWatch(home.store, metrics, settings, lambda: live, lambda: None)
    await watch.look()
    assert any("new_cluster" in name for name in told(metrics))
    publish(settings, "b-2")
    live["default"] = "b-2"  # fitted on their labels: the same requests are nothing new to it
    for text in PODS:
        home.add(text, novelty=0.0, bundle="b-2")
    await home.written()
    await watch.look()
    assert not any("new_cluster" in name for name in told(metrics))
    assert told(metrics)['locum_strange_share{policy="default"}'] == 0


async def test_where_no_text_is_kept_nothing_is_named(settings: Settings, make_record: MakeRecord) -> None:
    publish(settings)
    home = Home(settings, make_record, text=False)
    home.traffic()
    await home.written()
    found = look(home.store, settings, "default", "b-1", encoder=lambda: None, now=time.time())
    assert found.strange == len(PODS) and found.clusters == ()


async def test_names_hold_no_personal_data_for_text_is_redacted_before(settings: Settings, home: Home) -> None:
    publish(settings)
    for text in USUAL:
        home.add(text, novelty=0.0)
    for n, text in enumerate(PODS):
        home.add(f"{text} tell jane.roe@example.com", novelty=1.0, user=f"u-{n}")
    await home.written()
    (cluster,) = look(home.store, settings, "default", "b-1", encoder=lambda: None, now=time.time()).clusters
    assert "jane" not in cluster.name and "example" not in cluster.name


async def test_a_shift_of_the_scores_is_told(settings: Settings, home: Home) -> None:
    r = random.Random(0)
    publish(settings, scores=Spread.of(r.random() for _ in range(800)))
    for n in range(BLOCK):
        home.add(f"hello {n}", novelty=0.0, score=r.random() ** 2)
    await home.written()
    metrics = Metrics()
    await DriftWatch(home.store, metrics, settings, lambda: {"default": "b-1"}, lambda: None).look()
    got = told(metrics)
    assert got['locum_score_shift{policy="default"}'] > got['locum_score_shift_bound{policy="default"}'] > 0.05


async def test_of_several_workers_one_looks(settings: Settings, home: Home) -> None:
    publish(settings)
    home.traffic()
    await home.written()
    seen = [Metrics(), Metrics()]
    watches = [DriftWatch(home.store, m, settings, lambda: {"default": "b-1"}, lambda: None) for m in seen]
    await watches[0].look()
    await watches[1].look()
    assert "locum_strange_share{" in seen[0].expose().decode()
    assert "locum_strange_share{" not in seen[1].expose().decode()
    first = asyncio.create_task(watches[0].run())
    await asyncio.sleep(0)
    first.cancel()  # it ends: another takes over
    await asyncio.wait({first})
    await watches[1].look()
    assert "locum_strange_share{" in seen[1].expose().decode()


def test_only_what_the_bundle_scored_in_the_last_day_counts() -> None:
    drift, now = Drift("b-1", None), 10 * 86_400.0
    for n, (bundle, score, at) in enumerate(
        [("b-1", 0.5, now), ("b-0", 0.5, now), ("b-1", None, now), ("b-1", 0.5, now - 2 * 86_400)]
    ):
        drift.count(ScoredRecord(n, f"r{n}", at, bundle, score, 0.9))
    found = drift.report(lambda _: None, lambda: None, now)
    assert (found.requests, found.strange, found.comparable, found.shift) == (1, 1, False, None)


def test_memory_stays_bounded_and_records_are_read_once() -> None:
    drift = Drift("b-1", None)
    reads: list[str] = []
    for n in range(50_000):
        drift.count(ScoredRecord(n, f"r{n}", 1000.0, "b-1", 0.5, 0.9 if n % 2 else 0.0))
    for _ in range(2):
        drift.report(reads.append, lambda: None, 1000.0)
    assert len(reads) == len(set(reads)) <= 2000


async def test_scored_is_read_in_pages_from_where_it_was_left(settings: Settings, home: Home) -> None:
    for n in range(1201):
        home.add(f"hello {n}", novelty=None if n == 1200 else 0.5, score=n / 2000)
    home.add("other", novelty=0.5, policy="other")
    await home.written()
    all_of_them = list(home.store.scored("default"))
    assert [s.score for s in all_of_them] == [n / 2000 for n in range(1201)]
    assert all_of_them[-1].novelty is None and all_of_them[0].bundle == "b-1"
    assert list(home.store.scored("default", after=all_of_them[-2].seq)) == all_of_them[-1:]
    assert list(home.store.scored("default", since=time.time() + 60)) == []
