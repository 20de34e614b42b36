"""Load, verify and hot-swap a bundle {student, scorer, thresholds}.

Files are the only channel: the pointer says which bundle should serve, the student's server says
which versions are ready. Any number of proxies that watch both agree without talking to each other.
Requests under way keep the ``LiveBundle`` they began with.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import structlog
from pydantic import ValidationError

from router.bundles.students import Students, StudentTarget
from router.contracts.bundles import Manifest, Thresholds, read_active, read_manifest
from router.errors import BundleError, EngineError
from router.heads.heads import LabelHeads
from router.heads.shelf import load_scorer
from router.policy.engines import EncoderKind
from router.policy.policy import Policy
from router.scoring.scorer import Scorer
from router.scoring.text.encoder import Encoder
from router.scoring.text.features import FEATURES_VERSION
from router.settings import Settings

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LiveBundle:
    """What serves now, swapped as one. ``student`` is None while none is ready; ``bundle`` None is the
    base student alone, without scorer and thresholds. ``wary``: more is to be audited than usual; ``audit_rate``:
    at least that share, whatever is usual."""

    bundle: str | None = None
    scorer: Scorer | None = None
    thresholds: Thresholds | None = None
    student: StudentTarget | None = None
    wary: bool = False
    audit_rate: float = 0.0


class ServingSet(Protocol):
    """What serves one policy now."""

    @property
    def live(self) -> LiveBundle: ...

    @property
    def canary(self) -> LiveBundle | None:
        """What serves a share of the conversations beside it, None where nothing does."""
        ...

    def live_for(self, conversation_id: str) -> LiveBundle:
        """What serves this conversation: the same one for all its requests, as long as both serve."""
        ...


class BundleWatcher:
    """Follows the policy's pointer and the students that are ready; keeps ``live`` true to both.

    A bundle goes live only once its own student is ready, unless nothing answers for the student
    anyway. A bundle that does not load is refused: what was live stays, ``problem`` says why, and
    it is tried again every ``retry_seconds``. A student that goes away leaves scorer and thresholds
    in place.

    ``canary``: it follows the pointer's canary instead. While there is none, or its student is not ready, ``live``
    is empty.

    Args:
        encoders: loads the encoder that a scorer was fitted with; called off-thread whenever a scorer that needs
            one is loaded; an EngineError or OSError of it refuses the bundle for now.
        on_swap: called with (old, new) after every change of ``live``.
        students: where ready students are found (``students_of``).
        heads_at: reads label heads, where somebody keeps them.
    """

    def __init__(
        self,
        policy: Policy,
        settings: Settings,
        *,
        students: Students,
        heads_at: Callable[[Path], LabelHeads] | None = None,
        encoders: Callable[[EncoderKind], Encoder | None],
        on_swap: Callable[[LiveBundle, LiveBundle], None] = lambda old, new: None,
        poll_seconds: float = 0.2,
        retry_seconds: float = 5.0,
        canary: bool = False,
    ) -> None:
        self.live = LiveBundle()
        self.problem: str | None = None
        self._policy = policy
        self._folder = settings.bundles(policy.name)
        self._students = students
        self._encoders, self._heads_at = encoders, heads_at
        self._on_swap = on_swap
        self._poll_seconds = poll_seconds
        self._retry_seconds = retry_seconds
        self._canary = canary
        self._manifest: Manifest | None = None  # of the live bundle
        self._refused: tuple[str | None, float] | None = None  # (bundle, not again before)

    async def run(self) -> None:
        """Refreshes every ``poll_seconds`` until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(self._poll_seconds)

    async def refresh(self) -> None:
        """Looks once, and swaps if something changed. Call it once before serving."""
        student = await self._students.find(self._manifest) if self._manifest or not self._canary else None
        if student != self.live.student:
            self._swap(replace(self.live, student=student), self._manifest)
        bundle: str | None = None
        try:
            bundle = self._pointed()
            if bundle == self.live.bundle:
                self._settled()
            elif bundle is None and self._canary:
                self._swap(LiveBundle(), None)
                self._settled()
            elif self._refused is None or self._refused[0] != bundle or time.monotonic() >= self._refused[1]:
                await self._move_to(bundle)
        except (BundleError, EngineError, OSError) as e:
            self._refuse(bundle, str(e))

    async def _move_to(self, bundle: str | None) -> None:
        manifest = None if bundle is None else verify(self._folder, bundle, self._policy.name)
        student = await self._students.find(manifest)
        if student is None and (self._canary or self.live.student is not None):
            self.problem = f"waiting for the student of {bundle or 'the base'} to be ready"
            return
        if manifest is None or bundle is None:
            self._swap(LiveBundle(student=student), None)
        else:
            own = self._folder / bundle, manifest, self._encoders
            scorer = await asyncio.to_thread(load_scorer, *own, self._heads_at)
            trial = self._policy.distil.trial if self._canary else None
            rate = trial.audit_rate if trial else 0.0
            self._swap(LiveBundle(bundle, scorer, manifest.thresholds, student, audit_rate=rate), manifest)
        self._settled()

    def _pointed(self) -> str | None:
        try:
            active = read_active(self._folder)
        except ValidationError as e:
            raise BundleError(f"{self._folder} has a damaged pointer: {_first(e)}") from e
        if not self._canary:
            return active.bundle
        return active.canary.bundle if active.canary and self._policy.distil.trial else None

    def _swap(self, new: LiveBundle, manifest: Manifest | None) -> None:
        old, self.live, self._manifest = self.live, new, manifest
        if old.bundle != new.bundle:
            told = {"policy": self._policy.name, "canary": self._canary, "old": old.bundle, "new": new.bundle}
            log.info("bundle_swapped", **told)
        if old.student != new.student:
            log.info("student_changed", policy=self._policy.name, old=old.student, new=new.student)
        self._on_swap(old, new)

    def _settled(self) -> None:
        self.problem = self._refused = None

    def _refuse(self, bundle: str | None, why: str) -> None:
        if why != self.problem:
            log.warning("bundle_refused", policy=self._policy.name, bundle=bundle, live=self.live.bundle, why=why)
        self.problem, self._refused = why, (bundle, time.monotonic() + self._retry_seconds)


def verify(folder: Path, bundle: str, policy: str) -> Manifest:
    """The manifest of a bundle that is whole and fits this policy and this code.

    The student's weights are not read here: who loads them checks them.

    Raises:
        BundleError: it is not; the message says what is wrong.
    """
    home = (folder / bundle).resolve()
    if Path(bundle).name != bundle or bundle == "..":
        raise BundleError(f"bundle id {bundle!r} is not a folder's name")
    try:
        manifest = read_manifest(folder, bundle)
    except FileNotFoundError as e:
        raise BundleError(f"bundle {bundle} has no manifest: it is not complete") from e
    except ValidationError as e:
        raise BundleError(f"bundle {bundle} has a damaged manifest: {_first(e)}") from e
    if (manifest.bundle_id, manifest.policy) != (bundle, policy):
        raise BundleError(
            f"bundle {bundle} of policy {policy} holds the manifest of {manifest.bundle_id} of {manifest.policy}"
        )
    if manifest.features_version != FEATURES_VERSION:
        raise BundleError(
            f"bundle {bundle} was fitted on features {manifest.features_version}, this is {FEATURES_VERSION}"
        )
    student = manifest.student
    for name in filter(None, (manifest.scorer, student.path, student.int8, student.gguf)):
        part = (home / name).resolve()
        if not part.is_relative_to(home) or not part.exists():
            raise BundleError(f"bundle {bundle} lacks {name}")
    return manifest


def _first(error: ValidationError) -> str:
    what = error.errors()[0]
    return f"{'.'.join(map(str, what['loc'])) or 'file'}: {what['msg']}"
