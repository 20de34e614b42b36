"""Files that pass between processes: whoever reads one finds it whole, as it was or as it is. One of them is the run
file, which says whether a proxy serves a home, and where."""

from __future__ import annotations

import hashlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RUN_FILE = "proxy.json"


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces the file at once, by one that is its owner's alone; its folder is made where it is missing."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_bytes(content)
    fresh.chmod(0o600)
    fresh.replace(path)


def owners_alone(folder: Path) -> None:
    """Closes a folder and all in it to everybody but its owner. Files that were linked or copied there bring the
    modes of where they come from."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o700 if path.is_dir() else 0o600)


def weights_of(place: Path) -> list[Path]:
    """The files that hold the weights of a student: the file itself, or a folder's safetensors by their names."""
    return [place] if place.is_file() else sorted(place.glob("*.safetensors"))


def sha256_of(files: Iterable[Path]) -> str:
    """SHA-256 over the files' bytes, one after another."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as handle:
            while chunk := handle.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class RunFile:
    """What ``<home>/run/proxy.json`` says: which process serves the home, where, how often the home was lost under
    it, and when it was last (unix time)."""

    pid: int
    url: str
    times_lost: int = 0
    lost_at: float = 0.0


def read_run_file(run: Path) -> RunFile | None:
    """None where there is no such file, or not a whole one. The process that it names may have died since."""
    try:
        said = RunFile(**json.loads((run / RUN_FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return said if isinstance(said.pid, int) else None


def ready_state(proxy: RunFile, seconds: float = 2.0) -> dict[str, Any] | None:
    """What a proxy says of itself at ``/health/ready``, ready (200) or not (503); None where it says nothing within
    so many seconds."""
    try:
        try:
            with urllib.request.urlopen(f"{proxy.url}/health/ready", timeout=seconds) as answer:
                content = answer.read()
        except urllib.error.HTTPError as unready:
            content = unready.read()
        said = json.loads(content)
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) else None
