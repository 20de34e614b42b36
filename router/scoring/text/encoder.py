"""What scorers read text with: the static embedding, or the whole transformer that it was distilled from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from router.policy.engines import EncoderKind
from router.scoring.text import static_encoder, transformer

KINDS: dict[str, EncoderKind] = {static_encoder.NAME: "static", transformer.NAME: "transformer"}
"""By the name that a scorer's file gives."""

F32 = npt.NDArray[np.float32]


class Encoder(Protocol):
    """Text to vector. ``name`` tells scorers which encoder they were fitted on; ``slow``: a text takes
    milliseconds, which an event loop does not have."""

    name: str
    dim: int
    slow: bool

    def encode(self, text: str) -> F32:
        """The text's vector: float32, (dim,), of length one; zeros for a text without tokens."""
        ...

    def total(self, text: str) -> F32:
        """The vector before it is scaled: float32, (dim,). Not to be written to."""
        ...

    def read_ahead(self, texts: Iterable[str]) -> None:
        """Says which texts will be asked for soon, so that one that reads many together faster can."""
        ...


def load_encoder(cache: Path, kind: EncoderKind = "static", *, threads: int | None = None) -> Encoder:
    """Loads an encoder; the static one is kept under ``cache``, and distilled there first where it is not.

    ``threads``: how many a transformer may compute on, for the whole process; by default all cores.

    Raises:
        EngineError: the transformer is needed, and its package or torch is not installed.
    """
    return static_encoder.load_static(cache) if kind == "static" else transformer.load_transformer(threads)


def kept_encoder(cache: Path) -> Encoder | None:
    """The static encoder, if it was distilled before: who only looks does not want to wait for that."""
    return static_encoder.load_static(cache) if static_encoder.is_distilled(cache) else None
