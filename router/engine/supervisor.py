"""Keeps a policy's student versions served: follows the pointer, restarts what died, tells the proxies."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
from pydantic import ValidationError

from router.bundles.students import BASE, version_of
from router.contracts.bundles import ActivePointer, end_canary, read_active, read_manifest
from router.contracts.files import sha256_of, weights_of, write_atomically
from router.engine.base import Engine, Version
from router.engine.llama_server import LlamaServer, find_binary
from router.engine.torch_server import EmbeddedEngine
from router.engine.weights import is_ready
from router.errors import BundleError, EngineError
from router.policy.engines import EngineName
from router.policy.policy import Policy
from router.settings import Settings

POLL_SECONDS = 0.2
#: How long a version that nothing points at any more is kept for the requests that began with it.
GRACE_SECONDS = 10.0
STABLE_SECONDS = 60.0
#: From so many failures on, none of them long ago, a canary is rolled back.
FAILURES = 3


@dataclass(slots=True)
class Backoff:
    """Exponential: 0.5, 1, 2 … 30 seconds between attempts; forgotten once all was well for a while."""

    first_seconds: float = 0.5
    most_seconds: float = 30.0
    failures: int = 0
    _changed_at: float = float("-inf")

    def failed(self, now: float) -> None:
        self.failures, self._changed_at = self.failures + 1, now

    def may_try(self, now: float) -> bool:
        if not self.failures:
            return True
        wait = min(self.most_seconds, self.first_seconds * 2.0 ** min(self.failures - 1, 30))
        return now >= self._changed_at + wait

    def calm(self, now: float) -> None:
        """Call it while all is well."""
        if self.failures and now >= self._changed_at + STABLE_SECONDS:
            self.failures = 0


def engine_of(policy: Policy, settings: Settings) -> Engine:
    """The engine that the policy asks for.

    Raises:
        EngineError: llama-server is asked for and not there.
    """
    assert policy.student.engine is not None  # a student by URL is nobody's to start
    return STARTED[policy.student.engine](policy.student.model, settings, settings.logs / f"student-{policy.name}.log")


def _llama_server(model: str, settings: Settings, log: Path) -> Engine:
    find_binary(settings.cache)
    return LlamaServer(model, settings.cache, log)


STARTED: Mapping[EngineName, Callable[[str, Settings, Path], Engine]] = {
    "embedded": lambda model, _, log: EmbeddedEngine(model, log),
    "llama-server": _llama_server,
}
"""By engine, what runs its students; ``router.policy.engines`` has its other row."""


class Supervisor:
    """One policy's students.

    Args:
        report: called with one line for people whenever something changes.
    """

    def __init__(
        self,
        policy: Policy,
        settings: Settings,
        engine: Engine,
        report: Callable[[str], None],
        *,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self.ready = asyncio.Event()
        self._policy = policy
        self._settings = settings
        self._engine = engine
        self._report = report
        self._grace_seconds = grace_seconds
        self._folder = settings.bundles(policy.name)
        self._file = settings.run / f"{policy.name}.student.json"
        self._backoff: dict[str, Backoff] = {}
        self._unwanted: dict[str, float] = {}
        self._verified: set[str] = set()

    async def run(self) -> None:
        """Until cancelled; then the engine is stopped and the run file removed."""
        try:
            while True:
                await self.tick()
                await asyncio.sleep(POLL_SECONDS)
        finally:
            self._file.unlink(missing_ok=True)
            await self._engine.stop()

    async def tick(self) -> None:
        """Looks once, and mends what it finds."""
        now = time.monotonic()
        lost = await self._engine.lost()
        if self._engine.versions and not self._file.exists():  # deleted, perhaps with all of the home
            with suppress(OSError):  # tried again in a moment
                self._publish()
        if lost:
            self._publish()
            self._report(f"student {self._policy.name}: its process died; starting it again")
            for name in lost:
                self._failed(name, "its process died")
        wanted = self._wanted()
        for version in wanted:
            if version.name in self._engine.versions:
                self._backoff_of(version.name).calm(now)
            elif self._backoff_of(version.name).may_try(now):
                await self._load(version)
        await self._forget({v.name for v in wanted})

    def _wanted(self) -> list[Version]:
        """What the pointer asks for, the live one first; then the canary, else the one before it for an instant
        rollback: two at most."""
        try:
            active = read_active(self._folder)
        except ValidationError:
            active = ActivePointer(bundle=None)  # the proxies report a damaged pointer
        second = active.canary.bundle if active.canary else active.previous
        versions = dict.fromkeys(self._version(bundle) for bundle in (active.bundle, second))
        return [v for v in versions if v is not None]

    def _version(self, bundle: str | None) -> Version | None:
        if bundle is None:
            return Version(BASE)
        try:
            manifest = read_manifest(self._folder, bundle)
        except (OSError, ValidationError):
            return None  # the proxies report a bundle that cannot be read, and keep what they have
        home, student = self._folder / bundle, manifest.student
        if version_of(manifest) == BASE or student.path is None:
            return Version(BASE)
        return Version(bundle, home / (student.int8 or student.path), home / student.gguf if student.gguf else None)

    async def _load(self, version: Version) -> None:
        student, began = self._policy.student, time.monotonic()
        if version.name == BASE and not student.traits.gguf and not is_ready(student.model, self._settings.cache):
            self._report(f"student {self._policy.name}: preparing {student.model}, once")
        try:
            await asyncio.to_thread(self._verify, version)
            await self._engine.load(version)
        except (EngineError, BundleError) as e:
            if self._failed(version.name, f"it does not start: {e}") == 1:
                self._report(f"student {self._policy.name}: {version.name} does not start: {e}")
            return
        self._publish()
        self.ready.set()
        seconds = time.monotonic() - began
        self._report(f"student {self._policy.name}: {version.name} is ready after {seconds:.1f} s")

    def _verify(self, version: Version) -> None:
        """Checks a bundle's weights against its manifest, once. Raises BundleError where they differ."""
        if version.folder is None or version.name in self._verified:
            return
        student, home = read_manifest(self._folder, version.name).student, self._folder / version.name
        exported = student.gguf if self._policy.student.traits.gguf else student.int8
        if exported not in student.exports:
            exported = None  # not exported, or in a bundle older than their hashes
        said = student.exports[exported] if exported else student.sha256
        place = home / (exported or student.path or "")
        if said is not None and sha256_of(weights_of(place)) != said:
            raise BundleError(f"the weights of bundle {version.name} are not those its manifest names: {place}")
        self._verified.add(version.name)

    async def _forget(self, wanted: set[str]) -> None:
        """Unloads what nothing points at, once a grace period has passed; the proxies hear of it first."""
        now = time.monotonic()
        loaded = set(self._engine.versions)
        self._unwanted = {n: self._unwanted.get(n, now) for n in loaded - wanted}
        due = {n for n, since in self._unwanted.items() if now - since >= self._grace_seconds}
        # With nothing better loaded, an unwanted version is still an answer.
        if not due or not loaded & wanted:
            return
        self._publish(without=due)
        for name in due:
            with suppress(EngineError):  # a process that died has forgotten it too
                await self._engine.unload(name)

    def _failed(self, name: str, why: str) -> int:
        """How often this version failed by now. A canary that does so repeatedly is rolled back."""
        backoff = self._backoff_of(name)
        backoff.failed(time.monotonic())
        reasons = (f"its engine failed {backoff.failures} times: {why}",)
        if backoff.failures >= FAILURES and end_canary(self._folder, name, kept=False, reasons=reasons):
            self._report(f"student {self._policy.name}: the canary {name} is rolled back: {reasons[0]}")
        return backoff.failures

    def _backoff_of(self, name: str) -> Backoff:
        return self._backoff.setdefault(name, Backoff())

    def _publish(self, without: set[str] | None = None) -> None:
        """Tells the proxies what answers, atomically."""
        places = {n: asdict(p) for n, p in self._engine.versions.items() if n not in (without or ())}
        write_atomically(self._file, orjson.dumps({"pid": os.getpid(), "versions": places}))
