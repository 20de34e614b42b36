"""Environment and secrets, read once, frozen."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says. Secrets never show in ``repr``.

    ``home`` holds what one installation owns: ``records.db``, ``bundles/``, ``run/``, ``logs/``.
    ``cache`` holds what can be made again: the dequantised base student, the static encoder, built engines.
    """

    home: Path = Path(".locum")
    cache: Path = Path.home() / ".cache" / "locum"
    client_keys: frozenset[str] = field(default=frozenset(), repr=False)

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Reads LOCUM_HOME, LOCUM_CACHE and LOCUM_API_KEYS (comma-separated; none: no key is asked for)."""
        keys = (k.strip() for k in env.get("LOCUM_API_KEYS", "").split(","))
        return cls(
            home=Path(env.get("LOCUM_HOME", ".locum")),
            cache=Path(env.get("LOCUM_CACHE", str(Path.home() / ".cache" / "locum"))),
            client_keys=frozenset(k for k in keys if k),
        )

    @property
    def records_db(self) -> Path:
        return self.home / "records.db"

    @property
    def run(self) -> Path:
        """Where running processes find each other: ``student.json`` says which students are ready, and where."""
        return self.home / "run"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    def bundles(self, policy: str) -> Path:
        return self.home / "bundles" / policy

    def work(self, policy: str) -> Path:
        """Where a distillation round keeps its finished stages, and the history of all rounds."""
        return self.home / "work" / policy
