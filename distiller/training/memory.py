"""Running out of memory in a pass, and what to do then: compute fewer rows at once."""

from __future__ import annotations

from collections.abc import Sequence

from distiller.training.batches import Encoded
from router.errors import TrainingError

_CPU_SAYS = ("can't allocate memory", "not enough memory")
"""A CPU's allocator raises a plain RuntimeError. Where Linux promises more than it has, it kills instead."""


def out_of_memory(error: RuntimeError) -> bool:
    import torch  # noqa: PLC0415  (heavy)

    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _CPU_SAYS)


def halved(tokens_per_pass: int, rows: Sequence[Encoded]) -> int:
    """Half the tokens a pass, or of what these rows have, where that is less.

    Raises:
        TrainingError: each row was already computed alone.
    """
    if tokens_per_pass < 2 * min(len(r.tokens) for r in rows):
        raise TrainingError(
            "out of memory with a single row in a pass; activation checkpointing, shorter rows (max_tokens), "
            "frozen layers or adapters (tuning: lora) take less"
        )
    return min(tokens_per_pass, sum(len(r.tokens) for r in rows)) // 2


def forget_cached(device: str) -> None:
    """Gives back what the failed pass left with the allocator."""
    import torch  # noqa: PLC0415

    if device.startswith("cuda"):
        torch.cuda.empty_cache()
