"""A bundle's scorer as it serves: where its student is label heads, their own word is the score."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from router.contracts.bundles import Manifest
from router.heads.files import load
from router.heads.heads import LabelHeads
from router.policy.engines import EncoderKind
from router.scoring.scorer import Scorer
from router.scoring.text.encoder import Encoder


def load_scorer(
    bundle: Path,
    manifest: Manifest,
    encoders: Callable[[EncoderKind], Encoder | None],
    heads_at: Callable[[Path], LabelHeads] | None = None,
) -> Scorer:
    """The scorer of the bundle in a folder. ``heads_at`` reads label heads, where somebody keeps them.

    Raises:
        BundleError: it, or the heads that it goes by, cannot be read, as where these were pruned.
        EngineError: an encoder cannot be had.
    """
    scorer, student = Scorer.load_whole(bundle / manifest.scorer, encoders), manifest.student
    if student.form != "f32" or student.path is None:
        return scorer
    folder = bundle / student.path
    return scorer.with_heads(load(folder, encoders) if heads_at is None else heads_at(folder))
