"""Files that pass between processes: whoever reads one finds it whole, as it was or as it is."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path


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
