"""Four bits a weight as GGUF's Q4_0 has them, each block's scale chosen by the error that it leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BLOCK = 32
"""Weights that share a scale."""
LEVELS = (8.0, 8.6, 7.4, 7.7, 8.3, 7.1, 8.9, 6.8)
"""At which level the largest weight of a block is tried to lie. The first is the one that llama.cpp's own conversion
takes; levels end at -8 and 7, so beyond 8 the largest is clipped for the good of the others, and below it all are
spread over less."""
ROWS = 1 << 16
"""Blocks at a time: the tries of that many take some tens of megabytes."""


def q4_0(weight: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The matrix in Q4_0: (rows, columns) -> (rows, columns / 32 * 18) bytes; columns are a multiple of 32.

    A block is its scale d in half precision, then 16 bytes: byte i holds level i in its low and level i + 16 in its
    high half, each raised by 8 (llama.cpp, ``ggml-common.h``, ``block_q4_0``). A weight is level * d. Of several
    scales that one is kept whose least-squares fit leaves the smallest squared error, as llama.cpp's
    ``make_qx_quants`` does for K-quants; the plain rounding is among them, so that none is left worse.
    """
    import numpy as np  # noqa: PLC0415

    blocks = weight.reshape(-1, BLOCK)
    packed = [_packed(blocks[i : i + ROWS]) for i in range(0, len(blocks), ROWS)]
    return np.concatenate(packed).reshape(weight.shape[0], -1)


def _packed(blocks: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(blocks, 32) weights -> (blocks, 18) bytes."""
    import numpy as np  # noqa: PLC0415

    scale = _best_scale(blocks)
    levels = (_levels(blocks, scale.astype(np.float32)) + 8).astype(np.uint8)
    halves = levels[:, : BLOCK // 2] | (levels[:, BLOCK // 2 :] << 4)
    return np.concatenate([scale.view(np.uint8), halves], axis=1)


def _best_scale(blocks: NDArray[np.float32]) -> NDArray[np.float16]:
    """(blocks, 1) scales, as they are stored."""
    import numpy as np  # noqa: PLC0415

    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1, keepdims=True), axis=1)
    tries = [largest / -LEVELS[0], *(_fitted(blocks, _levels(blocks, largest / -level)) for level in LEVELS)]
    best = np.zeros(largest.shape, np.float16)
    least = np.full(largest.shape, np.inf, np.float32)
    for scale in tries:
        stored = scale.astype(np.float16)
        left = blocks - _levels(blocks, stored.astype(np.float32)) * stored.astype(np.float32)
        error = np.einsum("bi,bi->b", left, left)[:, None]
        better = error < least
        best, least = np.where(better, stored, best), np.where(better, error, least)
    return best


def _levels(blocks: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each weight's level, -8 to 7."""
    import numpy as np  # noqa: PLC0415

    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale != 0)
    levels: NDArray[np.float32] = np.clip(np.rint(blocks * inverse), -8, 7)
    return levels


def _fitted(blocks: NDArray[np.float32], levels: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scales by which these levels come nearest to the weights."""
    import numpy as np  # noqa: PLC0415

    along = np.einsum("bi,bi->b", blocks, levels)[:, None]
    power: NDArray[np.float32] = np.einsum("bi,bi->b", levels, levels)[:, None]
    scale: NDArray[np.float32] = np.divide(along, power, out=np.zeros_like(power), where=power > 0)
    return scale
