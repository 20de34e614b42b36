"""Which student versions are ready to answer, and where."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog
from pydantic import BaseModel, ValidationError

from router.contracts.bundles import Manifest
from router.heads.shelf import SCHEME, HeadShelf
from router.policy.policy import Policy, StudentPart
from router.settings import Settings

log = structlog.get_logger(__name__)

BASE = "base"


@dataclass(frozen=True, slots=True)
class StudentTarget:
    """Where one student version answers: an OpenAI base URL (ending in /v1), or ``head:`` and the folder of label
    heads; the model name to ask for there, and the version: "base" or the bundle's id."""

    url: str
    model: str
    version: str


class Students(Protocol):
    async def find(self, manifest: Manifest | None) -> StudentTarget | None:
        """Where the bundle's student answers now (None: the base student), None where it does not."""
        ...


def version_of(manifest: Manifest | None) -> str:
    """The student version a bundle asks for: its own weights, or the base where it brought none."""
    return BASE if manifest is None or manifest.student.path is None else manifest.bundle_id


def students_of(policy: Policy, settings: Settings, env: Mapping[str, str], shelf: HeadShelf) -> Students:
    """Where the policy's students are found. A key comes from ``env``, by the name that the policy gives; label heads
    are read onto ``shelf``."""
    student = policy.student
    if student.engine == "head":
        return LabelHeadsHere(settings.bundles(policy.name), student.model, shelf)
    if student.url is not None:
        return ServedByUrl(student, student.url, env.get(student.api_key_env) if student.api_key_env else None)
    return StartedHere(settings.run / f"{policy.name}.student.json")


class LabelHeadsHere:
    """Students that are label heads: ready once this process has read their bundle's. There is no base student."""

    def __init__(self, bundles: Path, model: str, shelf: HeadShelf) -> None:
        self._bundles, self._model, self._shelf = bundles, model, shelf

    async def find(self, manifest: Manifest | None) -> StudentTarget | None:
        """Raises BundleError and EngineError where the heads cannot be read."""
        if manifest is None or manifest.student.path is None:
            return None
        folder = self._bundles / manifest.bundle_id / manifest.student.path
        if not self._shelf.has(folder):
            await asyncio.to_thread(self._shelf.at, folder)
        return StudentTarget(f"{SCHEME}{folder}", self._model, manifest.bundle_id)


class Ready(BaseModel):
    """``run/<policy>.student.json``: what the student's supervisor says is loaded and answers."""

    class Place(BaseModel):
        url: str
        model: str

    pid: int
    versions: dict[str, Place]


class StartedHere:
    """Students that a supervisor started beside the proxy; it keeps a file of the ready ones."""

    def __init__(self, file: Path) -> None:
        self._file = file

    async def find(self, manifest: Manifest | None) -> StudentTarget | None:
        version = version_of(manifest)
        place = self._read().get(version)
        return StudentTarget(place.url, place.model, version) if place else None

    def _read(self) -> dict[str, Ready.Place]:
        try:
            return Ready.model_validate_json(self._file.read_bytes()).versions
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError) as e:
            log.warning("student_file_unreadable", file=str(self._file), why=str(e))
            return {}


class ServedByUrl:
    """A student by URL (vLLM, SGLang, Ollama): ready is what ``GET {url}/models`` lists.

    The list is asked for every ``every_seconds``, and believed for three failures in a row: a busy
    server that answers late is not gone, and one that is gone is noticed by the requests themselves.
    """

    def __init__(
        self,
        student: StudentPart,
        url: str,
        key: str | None = None,
        *,
        every_seconds: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._student = student
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._every_seconds = every_seconds
        self._clock = clock
        self._listed: frozenset[str] = frozenset()
        self._failures = 0
        self._ask_at = clock()

    async def find(self, manifest: Manifest | None) -> StudentTarget | None:
        if self._clock() >= self._ask_at:
            await self._ask()
            self._ask_at = self._clock() + self._every_seconds
        version = version_of(manifest)
        own = manifest is not None and version != BASE
        model = manifest.student.model if manifest is not None and own else self._student.model
        return StudentTarget(self._url, model, version) if model in self._listed else None

    async def _ask(self) -> None:
        import aiohttp

        limit = aiohttp.ClientTimeout(total=5)
        try:
            async with (
                aiohttp.ClientSession(headers=self._headers, timeout=limit, raise_for_status=True) as session,
                session.get(f"{self._url}/models") as response,
            ):
                listed = ModelList.model_validate_json(await response.read())
        except (aiohttp.ClientError, TimeoutError, ValidationError) as e:
            self._failures += 1
            if self._failures == 3:
                log.warning("student_models_unlisted", url=self._url, why=str(e) or type(e).__name__)
                self._listed = frozenset()
            return
        self._failures, self._listed = 0, frozenset(m.id for m in listed.data)


class ModelList(BaseModel):
    """The body of ``GET /v1/models``."""

    class Model(BaseModel):
        id: str

    data: list[Model]
