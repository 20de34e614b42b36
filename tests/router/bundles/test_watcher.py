"""Bundles: what is pointed at goes live whole once its student is ready; what is damaged never does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from router.bundles.students import ServedByUrl, StudentTarget, students_of
from router.bundles.watcher import BundleWatcher, LiveBundle, verify
from router.contracts.bundles import MANIFEST, Evidence, Manifest, StudentRef, Thresholds, activate, rollback
from router.errors import BundleError, EngineError
from router.heads.shelf import HeadShelf
from router.policy.policy import Policy
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.text.encoder import Encoder
from router.scoring.text.features import extract
from router.settings import Settings
from tests.manifests import complete
from tests.tiny import tiny_transformer

HELLO = extract({"messages": [{"role": "user", "content": "hello"}]})


def policy(**student: Any) -> Policy:
    place = {} if "url" in student else {"engine": "embedded"}
    return Policy.model_validate(
        {
            "name": "p",
            "student": {"model": "small", "usd_per_million": {"input": 0, "output": 0}} | place | student,
            "teacher": {"model": "t"},
            "objective": {"parity": {}},
        }
    )


class Home:
    """One installation on disk, as the distiller and the supervisor write it."""

    def __init__(self, path: Path) -> None:
        self.settings = Settings(home=path)
        self.folder = self.settings.bundles("p")
        self.file = self.settings.run / "p.student.json"

    def bundle(self, id: str, *, own: bool = True, examples: int = 1, **changes: Any) -> Path:
        """Writes a bundle whose scorer's only score is (examples + 1) / (examples + 2)."""
        home = self.folder / id
        Scorer.fit([Example(HELLO, None, True)] * examples, None).save(home / "scorer")
        (home / "student").mkdir()
        values: dict[str, Any] = {
            "policy": "p",
            "student": StudentRef(model=id, path="student" if own else None),
            "thresholds": Thresholds(route=0.1 * examples, accept=0.5),
        }
        return complete(self.folder, id, **values | changes)

    def ready(self, *versions: str, port: int = 1) -> None:
        self.settings.run.mkdir(parents=True, exist_ok=True)
        places = {v: {"url": f"http://127.0.0.1:{port}/v1", "model": v} for v in versions}
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps({"pid": 1, "versions": places}))
        fresh.replace(self.file)

    def watcher(self, **options: Any) -> BundleWatcher:
        options = {"policy": policy(), "encoders": lambda kind: None, "retry_seconds": 0.0} | options
        options = {
            "students": students_of(options["policy"], self.settings, {}, HeadShelf(lambda kind: None))
        } | options
        return BundleWatcher(options.pop("policy"), self.settings, **options)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def version(live: LiveBundle) -> str | None:
    return live.student.version if live.student else None


async def test_before_anything_was_learned_the_base_student_is_live_alone(home: Home) -> None:
    watcher = home.watcher()
    await watcher.refresh()
    assert watcher.live == LiveBundle()
    home.ready("base", port=7)
    await watcher.refresh()
    assert watcher.live == LiveBundle(student=StudentTarget("http://127.0.0.1:7/v1", "base", "base"))
    assert watcher.problem is None


async def test_a_bundle_goes_live_whole_once_its_own_student_is_ready(home: Home) -> None:
    swaps: list[tuple[str | None, str | None]] = []
    watcher = home.watcher(on_swap=lambda old, new: swaps.append((version(old), version(new))))
    home.ready("base")
    await watcher.refresh()
    home.bundle("b1")
    activate(home.folder, "b1")
    await watcher.refresh()
    assert watcher.live.scorer is None
    assert watcher.problem == "waiting for the student of b1 to be ready"
    home.ready("base", "b1")
    await watcher.refresh()
    live = watcher.live
    assert (live.bundle, version(live), watcher.problem) == ("b1", "b1", None)
    assert live.thresholds == Thresholds(route=0.1, accept=0.5)
    assert live.scorer is not None
    assert live.scorer.score(HELLO) == pytest.approx(2 / 3)
    assert swaps == [(None, "base"), ("base", "b1")]


async def test_rollback_brings_back_student_scorer_and_thresholds_together(home: Home) -> None:
    home.bundle("b1")
    home.bundle("b2", examples=8)
    home.ready("base", "b1", "b2")
    watcher = home.watcher()
    seen = []
    for move in (
        lambda: activate(home.folder, "b1"),
        lambda: activate(home.folder, "b2"),
        lambda: rollback(home.folder),
    ):
        move()
        await watcher.refresh()
        live = watcher.live
        assert live.scorer is not None
        assert live.thresholds is not None
        seen.append((live.bundle, version(live), round(live.thresholds.route, 1), round(live.scorer.score(HELLO), 2)))
    assert seen == [("b1", "b1", 0.1, 0.67), ("b2", "b2", 0.8, 0.9), ("b1", "b1", 0.1, 0.67)]
    activate(home.folder, None)
    await watcher.refresh()
    assert (watcher.live.bundle, watcher.live.scorer, version(watcher.live)) == (None, None, "base")


async def test_a_bundle_without_weights_of_its_own_keeps_the_base_student(home: Home) -> None:
    home.bundle("b1", own=False)
    home.ready("base")
    activate(home.folder, "b1")
    watcher = home.watcher()
    await watcher.refresh()
    assert (watcher.live.bundle, version(watcher.live)) == ("b1", "base")


def cut_manifest(home: Path) -> None:
    whole = (home / MANIFEST).read_bytes()
    (home / MANIFEST).write_bytes(whole[: len(whole) // 2])


def flip_scorer(home: Path) -> None:
    weights = next((home / "scorer").glob("*.safetensors"))
    weights.write_bytes(b"\xff" * 16 + weights.read_bytes()[16:])


def lose_scorer(home: Path) -> None:
    for file in (home / "scorer").iterdir():
        file.unlink()
    (home / "scorer").rmdir()


def edit(**changes: Any) -> Callable[[Path], None]:
    def damage(home: Path) -> None:
        manifest = json.loads((home / MANIFEST).read_text())
        (home / MANIFEST).write_text(json.dumps(manifest | changes))

    return damage


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (cut_manifest, "damaged manifest"),
        (flip_scorer, "cannot be read"),
        (lose_scorer, "lacks scorer"),
        (lambda home: (home / MANIFEST).unlink(), "not complete"),
        (lambda home: (home / "student").rmdir(), "lacks student"),
        (edit(features_version="other"), "fitted on features other"),
        (edit(policy="q"), "manifest of b2 of q"),
        (edit(bundle_id="b1"), "manifest of b1 of p"),
        (edit(scorer="../b1/scorer"), "lacks ../b1/scorer"),
        (edit(schema_version=2), "damaged manifest: schema_version"),
    ],
)
async def test_a_damaged_bundle_leaves_live_what_was(home: Home, damage: Callable[[Path], None], why: str) -> None:
    home.bundle("b1")
    home.ready("base", "b1", "b2")
    activate(home.folder, "b1")
    watcher = home.watcher()
    await watcher.refresh()
    before = watcher.live
    path = home.bundle("b2")
    activate(home.folder, "b2")
    damage(path)
    await watcher.refresh()
    assert watcher.live is before
    assert watcher.problem is not None
    assert why in watcher.problem


async def test_a_damaged_pointer_leaves_live_what_was(home: Home) -> None:
    home.bundle("b1")
    home.ready("base", "b1")
    activate(home.folder, "b1")
    watcher = home.watcher()
    await watcher.refresh()
    (home.folder / "active.json").write_text("{")
    await watcher.refresh()
    assert watcher.live.bundle == "b1"
    assert watcher.problem is not None
    assert "damaged pointer" in watcher.problem
    activate_again = home.folder / "active.json"
    activate_again.write_text('{"bundle": "b1"}')
    await watcher.refresh()
    assert watcher.problem is None


async def test_a_mended_bundle_goes_live_by_itself(home: Home) -> None:
    path = home.bundle("b1")
    whole = (path / MANIFEST).read_bytes()
    home.ready("base", "b1")
    activate(home.folder, "b1")
    cut_manifest(path)
    watcher = home.watcher()
    await watcher.refresh()
    assert watcher.live.bundle is None
    (path / MANIFEST).write_bytes(whole)
    await watcher.refresh()
    assert (watcher.live.bundle, watcher.problem) == ("b1", None)


async def test_an_encoder_that_cannot_be_made_refuses_the_bundle_until_it_can(home: Home) -> None:
    missing, encoder = [EngineError("torch is not installed")], tiny_transformer()

    def encoders(kind: str) -> Encoder:
        assert kind == "transformer"
        if missing:
            raise missing.pop()
        return encoder

    Scorer.fit([Example(HELLO, None, True)], encoder).save(home.bundle("b1") / "scorer")
    home.ready("base", "b1")
    activate(home.folder, "b1")
    watcher = home.watcher(encoders=encoders)
    await watcher.refresh()
    assert (watcher.live.bundle, watcher.problem) == (None, "torch is not installed")
    await watcher.refresh()
    assert (watcher.live.bundle, watcher.problem) == ("b1", None)
    assert watcher.live.scorer is not None and watcher.live.scorer.slow


async def test_a_scorer_for_an_encoder_that_nobody_knows_is_refused(home: Home) -> None:
    scorer = home.bundle("b1") / "scorer" / "scorer.json"
    scorer.write_text(json.dumps(json.loads(scorer.read_text()) | {"encoder": "of next year"}))
    home.ready("base", "b1")
    activate(home.folder, "b1")
    watcher = home.watcher()
    await watcher.refresh()
    assert watcher.live.bundle is None and "of next year" in (watcher.problem or "")


async def test_a_refused_bundle_is_not_tried_again_at_once(home: Home) -> None:
    path = home.bundle("b1")
    whole = (path / MANIFEST).read_bytes()
    home.ready("base", "b1")
    activate(home.folder, "b1")
    cut_manifest(path)
    watcher = home.watcher(retry_seconds=3600.0)
    await watcher.refresh()
    (path / MANIFEST).write_bytes(whole)
    await watcher.refresh()
    assert watcher.live.bundle is None
    home.bundle("b2")
    home.ready("b2")
    activate(home.folder, "b2")
    await watcher.refresh()
    assert watcher.live.bundle == "b2"


async def test_a_student_that_goes_away_leaves_scorer_and_thresholds_and_comes_back_elsewhere(home: Home) -> None:
    home.bundle("b1")
    home.ready("base", "b1")
    activate(home.folder, "b1")
    watcher = home.watcher()
    await watcher.refresh()
    scorer = watcher.live.scorer
    home.file.unlink()
    await watcher.refresh()
    assert (watcher.live.bundle, watcher.live.student) == ("b1", None)
    assert watcher.live.scorer is scorer
    home.file.write_text("{")
    await watcher.refresh()
    assert watcher.live.student is None
    home.ready("b1", port=9)
    await watcher.refresh()
    assert watcher.live.student == StudentTarget("http://127.0.0.1:9/v1", "b1", "b1")
    assert watcher.live.scorer is scorer


async def test_a_start_without_any_student_takes_the_pointed_bundle_anyway(home: Home) -> None:
    home.bundle("b1")
    activate(home.folder, "b1")
    watcher = home.watcher()
    await watcher.refresh()
    assert (watcher.live.bundle, watcher.live.student) == ("b1", None)
    assert watcher.live.thresholds is not None


async def test_a_running_watcher_follows_by_itself_and_a_request_keeps_what_it_began_with(home: Home) -> None:
    swapped = asyncio.Event()
    home.bundle("b1")
    home.ready("base", "b1")
    watcher = home.watcher(poll_seconds=0.01, on_swap=lambda old, new: swapped.set() if new.bundle else None)
    await watcher.refresh()
    begun = watcher.live
    task = asyncio.create_task(watcher.run())
    activate(home.folder, "b1")
    await asyncio.wait_for(swapped.wait(), 10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert watcher.live.bundle == "b1"
    assert (begun.bundle, version(begun)) == (None, "base")


def test_a_bundle_id_cannot_lead_out_of_its_folder(home: Home) -> None:
    home.bundle("b1")
    for id in ("../p/b1", "../q/b1", "..", "b1/student", "."):
        with pytest.raises(BundleError, match="not a folder's name"):
            verify(home.folder, id, "p")


EVIDENCE = Evidence(
    target=0.95, confidence=0.95, examples=800, served=600, unacceptable=9, risk_bound=0.02, method="exact", over=1000,
    share=0.75,
)  # fmt: skip
BROKEN: list[Any] = ["0.5", True, None, [0.5], {"a": 1}, float("nan"), float("inf"), float("-inf"), -0.1, -1]
HIGH = {
    "thresholds.route": 1.02, "thresholds.accept": 2, "thresholds.evidence.target": 1.1, "created_at": 1e400,
    "thresholds.evidence.confidence": 95, "thresholds.evidence.risk_bound": 1.5, "thresholds.evidence.share": 75,
    "thresholds.evidence.examples": 599, "thresholds.evidence.served": 801, "thresholds.evidence.unacceptable": 601,
    "thresholds.evidence.over": 0, "dataset.train": 1.5, "dataset.dev": "1", "dataset.holdout": -1,
    "train_seconds": -1, "cost_usd": "NaN",
}  # fmt: skip
FINE = {"thresholds.evidence.over": None, "thresholds.evidence.share": None}
POSSIBLE = {
    "thresholds.route": 0.1, "thresholds.accept": 0, "thresholds.evidence.target": 0.9, "created_at": 1.0,
    "thresholds.evidence.confidence": 0.9, "thresholds.evidence.risk_bound": 0.01, "thresholds.evidence.share": 0.8,
    "thresholds.evidence.examples": 900, "thresholds.evidence.served": 700, "thresholds.evidence.unacceptable": 8,
    "thresholds.evidence.over": None, "dataset.train": 2, "dataset.dev": 2, "dataset.holdout": 2,
    "train_seconds": 1.0, "cost_usd": "1",
}  # fmt: skip


def altered(said: dict[str, Any], path: str, value: Any) -> str:
    *way, last = path.split(".")
    part = fresh = json.loads(json.dumps(said))
    for step in way:
        part = part[step]
    assert last in part
    part[last] = value
    return json.dumps(fresh)


@pytest.mark.parametrize("path", HIGH)
async def test_a_number_that_cannot_be_is_refused_and_the_old_bundle_stays(home: Home, path: str) -> None:
    watcher = home.watcher()
    home.ready("base", "b1", "b2")
    for name in ("b1", "b2"):
        home.bundle(name, thresholds=Thresholds(route=0.5, accept=0.5, evidence=EVIDENCE))
    activate(home.folder, "b1")
    await watcher.refresh()
    file = home.folder / "b2" / MANIFEST
    said = json.loads(file.read_bytes())
    activate(home.folder, "b2")
    strict = path.startswith("thresholds.")
    wrong = (
        [v for v in BROKEN if (path, v) not in FINE.items()]
        if strict
        else [float("nan"), None, [1], {}, True, -1, "-1"]
    )
    for value in [*wrong, HIGH[path]]:
        file.write_text(altered(said, path, value))
        await watcher.refresh()
        assert watcher.live.bundle == "b1", value
        assert watcher.problem is not None and "b2 has a damaged manifest" in watcher.problem
    file.write_text(json.dumps(said))
    await watcher.refresh()
    assert (watcher.live.bundle, watcher.problem) == ("b2", None)


async def test_no_number_of_a_sealed_manifest_changes_unseen(home: Home) -> None:
    home.bundle("b1", thresholds=Thresholds(route=0.5, accept=0.5, evidence=EVIDENCE), evaluation={"share": 0.5})
    file = home.folder / "b1" / MANIFEST
    file.write_text(Manifest.model_validate_json(file.read_bytes()).sealed().model_dump_json(indent=1))
    said = json.loads(file.read_bytes())
    assert verify(home.folder, "b1", "p").thresholds.evidence == EVIDENCE
    for path, value in {**POSSIBLE, "evaluation.share": 0.6, "features_version": "1", "seal": "0" * 64}.items():
        file.write_text(altered(said, path, value))
        with pytest.raises(BundleError, match="damaged manifest"):
            verify(home.folder, "b1", "p")
    file.write_text(json.dumps(said | {"of_tomorrow": 1}))
    with pytest.raises(BundleError, match="seal is broken"):
        verify(home.folder, "b1", "p")


class ModelServer:
    """An OpenAI-compatible server, as far as listing goes."""

    def __init__(self) -> None:
        self.models: list[str] = []
        self.up = True
        self.asked = 0
        self.key: str | None = None
        self.url = ""

    async def listed(self, request: web.Request) -> web.Response:
        self.asked += 1
        self.key = request.headers.get("Authorization")
        if not self.up:
            raise web.HTTPServiceUnavailable
        return web.json_response({"object": "list", "data": [{"id": m, "object": "model"} for m in self.models]})

    async def start(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_get("/v1/models", self.listed)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        return runner


async def test_a_student_by_url_is_ready_when_its_server_lists_it(home: Home) -> None:
    server = ModelServer()
    runner = await server.start()
    away = policy(url=server.url)
    students = ServedByUrl(away.student, server.url, "k", every_seconds=0.0)
    watcher = home.watcher(policy=away, students=students)
    try:
        await watcher.refresh()
        assert watcher.live.student is None
        server.models = ["small"]
        await watcher.refresh()
        assert watcher.live.student == StudentTarget(server.url, "small", "base")
        home.bundle("b1")
        activate(home.folder, "b1")
        await watcher.refresh()
        assert watcher.live.bundle is None
        server.models = ["small", "b1"]
        await watcher.refresh()
        assert watcher.live.student == StudentTarget(server.url, "b1", "b1")
        assert server.key == "Bearer k"
        server.up = False
        await watcher.refresh()
        assert watcher.live.student is not None
        for _ in range(3):
            await watcher.refresh()
        assert watcher.live.student is None
    finally:
        await runner.cleanup()


async def test_a_student_by_url_is_asked_now_and_then_only(home: Home) -> None:
    server = ModelServer()
    server.models = ["small"]
    runner = await server.start()
    now = 0.0
    students = ServedByUrl(policy(url=server.url).student, server.url, every_seconds=2.0, clock=lambda: now)
    try:
        for _ in range(5):
            assert await students.find(None) == StudentTarget(server.url, "small", "base")
        assert server.asked == 1
        now = 2.0
        await students.find(None)
        assert server.asked == 2
    finally:
        await runner.cleanup()


async def test_a_students_key_comes_from_the_proxys_environment_by_the_policys_name_for_it(home: Home) -> None:
    server = ModelServer()
    runner = await server.start()
    try:
        away = policy(url=server.url, api_key_env="STUDENT_KEY")
        await students_of(away, home.settings, {"STUDENT_KEY": "k"}, HeadShelf(lambda kind: None)).find(None)
        assert server.key == "Bearer k"
    finally:
        await runner.cleanup()
