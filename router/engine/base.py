"""What a kind of engine must do. Two do it: torch in a process of its own, and llama.cpp's server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

MOST_TOKENS = 1024
"""An answer's length where the request names none: a small model that rambles would never end."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a student: ``base``, or a bundle's id. ``folder`` and ``gguf`` are None for the base."""

    name: str
    folder: Path | None = None
    gguf: Path | None = None


@dataclass(frozen=True, slots=True)
class VersionPlace:
    """Where a version answers: ``url`` ends in ``/v1``, ``model`` is the name to ask for there."""

    url: str
    model: str


class Engine(Protocol):
    """Serves versions of one student beside each other. Used from one task."""

    @property
    def versions(self) -> Mapping[str, VersionPlace]:
        """What answers now, as far as is known."""
        ...

    @property
    def pids(self) -> Mapping[str, int]:
        """The process that each version runs in; several versions may share one."""
        ...

    async def load(self, version: Version) -> None:
        """Returns once the version answers. Raises EngineError where it cannot."""
        ...

    async def unload(self, name: str) -> None:
        """Forgets a version after the answers on their way; one that is not loaded is no error."""
        ...

    async def lost(self) -> frozenset[str]:
        """Forgets and names the versions whose process died or hangs; loading them again is up to the caller."""
        ...

    async def stop(self) -> None:
        """Ends every process; safe to call twice."""
        ...
