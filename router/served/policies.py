"""The policies being served: their cascades and bundle watchers, kept true to the policy files."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from router.backends.roster import PolicyBackends, lacking
from router.bundles.students import Students, students_of
from router.bundles.watcher import BundleWatcher, LiveBundle
from router.cascade.cascade import Cascade
from router.cascade.exchange import Services
from router.contracts.rounds import HISTORY, training_costs
from router.errors import PolicyError
from router.heads.shelf import HeadShelf
from router.judges.models import check_judges, judges_of
from router.policy.engines import EncoderKind
from router.policy.policy import Policy, load_policy
from router.routing.policy_state import RoutingState
from router.routing.state.base import SharedState
from router.scoring.text.encoder import Encoder
from router.served.audits import BEFORE_SECONDS, AuditReader
from router.served.canary_split import CanarySplit
from router.served.catalog import Catalog
from router.served.expenses import count_before
from router.served.guard import Guard
from router.settings import Settings
from router.store.base import Records

log = structlog.get_logger(__name__)

Stamp = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ServedPolicy:
    """One policy as it is served: edits of its file replace all of it but ``routing`` and ``audits``."""

    cascade: Cascade
    watcher: BundleWatcher
    split: CanarySplit
    following: tuple[asyncio.Task[None], ...]
    routing: RoutingState
    audits: AuditReader

    async def stop(self) -> None:
        for task in self.following:
            task.cancel()
        await asyncio.wait(self.following)
        await self.cascade.close()


class Policies:
    """Serves the policies in some files. ``catalog`` is what there is to ask for, at any moment; ``shared`` what
    all of them use. Both are there once ``start`` returned.

    Raises:
        PolicyError: a file is wrong, or two policies claim one name. Later a wrong file changes
            nothing: what it said before stays, and the log says why.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        settings: Settings,
        env: Mapping[str, str],
        encoders: Callable[[EncoderKind], Encoder | None],
        state: SharedState,
        *,
        shelf: HeadShelf,
    ) -> None:
        if not paths:
            raise PolicyError("no policy file given")
        self._settings, self._env, self._encoders, self._state = settings, env, encoders, state
        self._shelf = shelf
        self._stamps = {path: _stamp(path) for path in paths}
        self._policies = {path: load_policy(path) for path in paths}
        self._served: dict[str, ServedPolicy] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._wrong: dict[Path, str] = {}
        self._histories: dict[str, Stamp] = {}
        self._check(self._policies)
        self.catalog: Catalog
        self.shared: Services

    @property
    def policies(self) -> list[Policy]:
        return list(self._policies.values())

    def live_bundles(self) -> dict[str, str | None]:
        """Which bundle serves each policy now; None is the base student alone."""
        return {name: served.watcher.live.bundle for name, served in self._served.items()}

    def problems(self) -> dict[str, list[str]]:
        """By policy, what an operator should know: a file that was not taken over, a bundle that was refused, a key
        that is not there."""
        found: dict[str, list[str]] = {name: [] for name in self._served}
        for path, why in self._wrong.items():
            found[self._policies[path].name].append(f"its file was not taken over, what it said before stays: {why}")
        for name, served in self._served.items():
            found[name] += [p for p in (served.watcher.problem, served.split.problem) if p is not None]
            found[name] += lacking(served.cascade.backends)
        return found

    def store_problems(self) -> list[str]:
        """What became of the records of all policies; of several workers each knows its own."""
        whose = "" if self._state.alone else f"worker {os.getpid()}: "
        return [whose + said for said in self.shared.store.problems]

    async def start(self, shared: Services) -> None:
        """Serves the policies as they were read. Call it once, before the first request."""
        self.shared = shared
        if self._state.alone:
            self._state.know_spending(False)
        for policy in self.policies:
            self._served[policy.name] = await self._serve(policy, *await self._begun(policy))
        self._publish()

    async def stop(self) -> None:
        for served in self._served.values():
            await served.stop()
        if self._closing:
            await asyncio.wait(self._closing)

    async def follow(self, poll_seconds: float = 1.0) -> None:
        """Takes over edits of the policy files, and what new rounds cost, until cancelled."""
        while True:
            await asyncio.sleep(poll_seconds)
            await self.reload()
            self.tell_budgets()
            for policy in self._served:
                if self._histories.get(policy) != _stamp(self._settings.work(policy) / HISTORY):
                    self._tell_training(policy)

    async def reload(self) -> None:
        """Looks at the files once. A file that is wrong or gone changes nothing."""
        for path, before in list(self._stamps.items()):
            if (now := _stamp(path)) == before:
                continue
            self._stamps[path] = now
            self._wrong.pop(path, None)
            try:
                await self._replace(path, load_policy(path))
            except PolicyError as e:
                self._wrong[path] = str(e)
                log.error("policy_not_reloaded", file=str(path), why=str(e))

    async def _replace(self, path: Path, policy: Policy) -> None:
        old = self._policies[path]
        if policy == old:
            return
        wanted = self._policies | {path: policy}
        self._check(wanted)
        kept = self._served.get(policy.name)
        routing, audits = (kept.routing, kept.audits) if kept else await self._begun(policy)
        fresh = await self._serve(policy, routing, audits)
        routing.follow(policy)
        gone = self._served.pop(old.name)
        self._policies, self._served[policy.name] = wanted, fresh
        self._publish()
        self.shared.store.follow(self.policies)
        task = asyncio.create_task(gone.stop())  # its last audits end beside the new one's first requests
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        log.info("policy_reloaded", file=str(path), policy=policy.name, version=policy.version)

    def _check(self, policies: Mapping[Path, Policy]) -> None:
        """Raises PolicyError where the files cannot be served together, before anything of them is."""
        names = [p.name for p in policies.values()]
        if doubled := {n for n in names if names.count(n) > 1}:
            raise PolicyError(f"two files describe the policy {', '.join(sorted(doubled))}")
        Catalog.check(policies.values())
        for policy in policies.values():
            PolicyBackends(policy, self._env)
            check_judges(policy, self._env)

    async def _begun(self, policy: Policy) -> tuple[RoutingState, AuditReader]:
        """What a policy knows as long as it is served, however its file changes."""
        routing, audits = RoutingState(policy, self._state), AuditReader(policy.name, self.shared.store)
        await audits.follow(routing.lengths, time.time() - BEFORE_SECONDS)
        return routing, audits

    async def _serve(self, policy: Policy, routing: RoutingState, audits: AuditReader) -> ServedPolicy:
        metrics, students = self.shared.metrics, students_of(policy, self._settings, self._env, self._shelf)
        watcher = BundleWatcher(
            policy,
            self._settings,
            students=students,
            heads_at=self._shelf.at,
            encoders=self._encoders,
            on_swap=lambda *_: self._swapped(policy, guard.live),
        )
        guard = Guard(
            policy,
            self._settings,
            base=lambda: watcher.live,
            audits=audits,
            metrics=metrics,
            changed=lambda live: self._swapped(policy, live),
        )
        goal = policy.objective
        metrics.observe_policy(policy.name, objective=goal.kind, target=goal.target)
        self._swapped(policy, watcher.live)
        backends = PolicyBackends(policy, self._env)
        split = self._split(policy, guard, students, backends, audits)
        await watcher.refresh()
        await guard.refresh()
        await split.refresh()
        judges = judges_of(policy, self._env, self.shared.tiers, partial(self._encoders, "static"))
        await audits.follow(judges, time.time() - BEFORE_SECONDS)
        for said in lacking(backends):
            log.warning("key_missing", policy=policy.name, why=said)
        cascade = Cascade(policy, backends, split, routing, self.shared, judges=judges)
        following = (
            background(watcher.run(), f"bundles of {policy.name}"),
            background(guard.run(), f"guard over {policy.name}"),
            background(split.run(), f"canaries of {policy.name}"),
            background(audits.run(), f"audits of {policy.name}"),
        )
        return ServedPolicy(cascade, watcher, split, following, routing, audits)

    def _split(
        self, policy: Policy, guard: Guard, students: Students, backends: PolicyBackends, audits: AuditReader
    ) -> CanarySplit:
        """What serves: the live bundle, and canaries."""
        canary = BundleWatcher(
            policy,
            self._settings,
            students=students,
            heads_at=self._shelf.at,
            encoders=self._encoders,
            canary=True,
        )
        metrics, tiers = self.shared.metrics, self.shared.tiers
        trial = Guard(policy, self._settings, base=lambda: canary.live, audits=audits, metrics=metrics, canary=True)
        declared = policy.distil.trial

        def changed(bundle: str | None) -> None:
            metrics.observe_canary(policy.name, bundle, declared.share if declared and bundle else 0.0)

        return CanarySplit(
            policy,
            self._settings,
            guard=guard,
            watcher=canary,
            trial=trial,
            is_failing=lambda student: tiers.is_open(backends.student(student)),
            answered=lambda student: tiers.successes(backends.student(student)),
            changed=changed,
        )

    def _swapped(self, policy: Policy, live: LiveBundle) -> None:
        thresholds, metrics = live.thresholds, self.shared.metrics
        metrics.observe_live(
            policy.name,
            bundle=live.bundle,
            route=thresholds.route if thresholds else None,
            accept=thresholds.accept if thresholds else None,
            student_up=live.student is not None,
        )
        self._tell_training(policy.name)

    def _tell_training(self, policy: str) -> None:
        """What all rounds cost together; those that were rejected swap nothing, so their history is followed."""
        work = self._settings.work(policy)
        self._histories[policy] = _stamp(work / HISTORY)
        spent = sum((usd for _, usd in training_costs(self._settings.bundles(policy), work)), Decimal(0))
        self.shared.metrics.observe_trained(policy, float(spent))

    def _publish(self) -> None:
        """In the files' order: the first policy is what ``locum/student`` and ``locum/teacher`` mean."""
        self.catalog = Catalog([self._served[p.name].cascade for p in self.policies], int(time.time()))

    async def count_spending(self, records: Records) -> None:
        """Counts what the teacher cost today before this start; until it has, no budget gives anything."""
        await count_before(records, self._state, lambda: {name: s.routing for name, s in self._served.items()})

    def tell_budgets(self) -> None:
        """To the metrics: what all workers have spent, and hold; and whether there is a teacher to ask."""
        for name, served in self._served.items():
            cascade = served.cascade
            self.shared.metrics.observe_teacher(name, any(map(cascade.reachable, cascade.backends.teachers)))
            budget = served.routing.till.budget
            self.shared.metrics.observe_budget(name, budget.cap_usd, budget.spent_usd, budget.reserved_usd)


def background(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """A task that goes on until cancelled. If it dies all the same, the log says so at once."""

    def told(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background_task_died", task=name, exc_info=error)

    task = asyncio.create_task(work, name=name)
    task.add_done_callback(told)
    return task


def _stamp(path: Path) -> Stamp:
    """Changes with every edit; zeros where there is no file."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)
