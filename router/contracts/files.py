"""Files that pass between processes: whoever reads one finds it whole, as it was or as it is."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces the file at once; its folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_bytes(content)
    fresh.replace(path)


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
