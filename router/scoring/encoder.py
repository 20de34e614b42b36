"""Text to vector in microseconds: a static embedding distilled from all-MiniLM-L6-v2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt


class Encoder:
    dim: int

    def encode(self, text: str) -> npt.NDArray[np.float32]:
        """The text's vector: float32, (dim,), of length one; zeros for a text without tokens."""
        raise NotImplementedError


def load_encoder(cache: Path) -> Encoder:
    """Loads the static encoder from ``cache/encoder``; distils it there first where it is not."""
    raise NotImplementedError
