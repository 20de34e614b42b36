"""Environment and secrets, read once, frozen."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from router.errors import SettingsError

ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s,]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one worker takes at most: bytes of a body (unpacked, where it is compressed) and of all headers of a
    request, streams under way, bytes of records that wait to be written, connections that have shown no key yet
    (``strangers``). And how many seconds it waits: for a whole head, for a body (``router.api.asgi.SLOWEST`` says how
    much longer for a long one), for the next request of a connection, for a client that takes nothing of its answer,
    and at its end for answers under way."""

    body_bytes: int = 32 * 2**20
    header_bytes: int = 64 * 2**10
    streams: int = 1000
    queue_bytes: int = 64 * 2**20
    strangers: int = 256
    head_seconds: int = 10
    body_seconds: int = 30
    idle_seconds: int = 75
    stall_seconds: int = 60
    drain_seconds: int = 15

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Limits:
        """Reads LOCUM_MAX_BODY_BYTES, LOCUM_MAX_HEADER_BYTES, and so on for each.

        Raises:
            SettingsError: one of them is no positive whole number.
        """
        names = {f.name: f"LOCUM_MAX_{f.name.upper()}" for f in fields(cls)}
        if wrong := [n for n in names.values() if n in env and not (env[n].isdecimal() and int(env[n]))]:
            raise SettingsError(f"{', '.join(wrong)} must be a positive whole number")
        return cls(**{field: int(env[name]) for field, name in names.items() if name in env})


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says. Secrets never show in ``repr``.

    ``home`` holds what one installation owns: ``records.db``, ``bundles/``, ``run/``, ``logs/``.
    ``origins`` are those of web pages that may ask from within a browser; ``*`` is all there are.
    ``cache`` holds what can be made again: the dequantised base student, the static encoder, built engines.
    """

    home: Path = Path(".locum")
    cache: Path = Path.home() / ".cache" / "locum"
    client_keys: frozenset[str] = field(default=frozenset(), repr=False)
    limits: Limits = Limits()
    origins: tuple[str, ...] = ()

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Reads LOCUM_HOME, LOCUM_CACHE, LOCUM_API_KEYS (comma-separated; none: no key is asked for), LOCUM_ORIGINS
        (comma-separated; none: browsers keep other sites' pages out), and what ``Limits.from_env`` reads.

        Raises:
            SettingsError: what is there cannot be.
        """
        keys, origins = (_listed(env.get(name, "")) for name in ("LOCUM_API_KEYS", "LOCUM_ORIGINS"))
        _check_keys(env.get("LOCUM_API_KEYS", ""), keys)
        if wrong := [o for o in origins if o != "*" and not ORIGIN.fullmatch(o)]:
            raise SettingsError(
                f"LOCUM_ORIGINS: {', '.join(wrong)} is no origin, which is like https://app.example.com"
            )
        return cls(
            home=Path(env.get("LOCUM_HOME", ".locum")),
            cache=Path(env.get("LOCUM_CACHE", str(Path.home() / ".cache" / "locum"))),
            client_keys=frozenset(keys),
            limits=Limits.from_env(env),
            origins=tuple(origins),
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


def _check_keys(given: str, keys: list[str]) -> None:
    """What was meant to ask for keys never asks for none. The message holds no key."""
    if given and not keys:
        raise SettingsError(
            "LOCUM_API_KEYS is set and holds no key: write keys, separated by commas, or leave it unset to ask for none"
        )
    if wrong := [str(n) for n, key in enumerate(keys, 1) if not (key.isascii() and key.isprintable())]:
        raise SettingsError(
            f"LOCUM_API_KEYS: no client can send key {', '.join(wrong)} of the list in a header: use ASCII letters, "
            "digits and signs"
        )


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
