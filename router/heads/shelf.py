"""Heads, and scorers that go by them, from disk: whoever finds them ready and whoever asks them have the same ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Lock

from router.contracts.bundles import Manifest
from router.heads import files
from router.heads.heads import LabelHeads
from router.policy.engines import EncoderKind
from router.scoring.scorer import Scorer
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


def load_scorer(
    bundle: Path,
    manifest: Manifest,
    encoders: Callable[[EncoderKind], Encoder | None],
    heads_at: Callable[[Path], LabelHeads] | None = None,
) -> Scorer:
    """The scorer of the bundle in a folder; where its student is label heads, their own word is the score. ``heads_at``
    reads these, where somebody keeps them.

    Raises:
        BundleError: it, or the heads that it goes by, cannot be read, as where these were pruned.
        EngineError: an encoder cannot be had.
    """
    scorer, student = Scorer.load_whole(bundle / manifest.scorer, encoders), manifest.student
    if student.form != "f32" or student.path is None:
        return scorer
    folder = bundle / student.path
    return scorer.with_heads(files.load(folder, encoders) if heads_at is None else heads_at(folder))
