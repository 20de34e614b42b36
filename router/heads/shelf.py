"""Heads that were read from disk, so that whoever finds them ready and whoever asks them have the same ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Lock

from router.heads import files
from router.heads.heads import LabelHeads
from router.policy.engines import EncoderKind
from router.scoring.text.encoder import Encoder

SCHEME = "head:"
"""How the ``url`` of a backend begins that is a folder of heads."""
KEPT = 8
"""Bundles whose heads are kept, those that were asked for last: what is live and a canary, of a few policies."""


class HeadShelf:
    """Reads each folder once. Safe from any thread. ``encoders`` loads what heads read text with."""

    def __init__(self, encoders: Callable[[EncoderKind], Encoder | None]) -> None:
        self._encoders, self._lock = encoders, Lock()
        self._kept: dict[Path, LabelHeads] = {}

    def has(self, folder: Path) -> bool:
        """Whether ``at`` has nothing to read."""
        return folder in self._kept

    def at(self, folder: Path) -> LabelHeads:
        """The heads in a folder. Raises BundleError and EngineError as ``files.load`` does."""
        with self._lock:
            found = self._kept.pop(folder, None) or files.load(folder, self._encoders)
            self._kept = dict([*self._kept.items(), (folder, found)][-KEPT:])
        return found
