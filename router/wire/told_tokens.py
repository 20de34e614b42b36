"""What a student's answer or chunk tells of its tokens, as its client gets it: of none that ended it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from router.contracts.logprobs import without_end
from router.wire.assembly import Assembly
from router.wire.sse import entries_of, is_usage_only, logprobs_of


def cut_answer(found: dict[str, Any], beyond: Sequence[int]) -> None:
    """Takes what ended them out of a whole answer's choices, and out of its usage: ``beyond`` tokens of each."""
    for choice, extra in zip(found["choices"], beyond, strict=True):
        if extra:
            del entries_of(choice)[-extra:]
    choices = found["choices"]
    own, ends = sum(len(logprobs_of(c)) for c in choices), sum(c.get("finish_reason") == "stop" for c in choices)
    _cut_usage(found, own, sum(beyond), ends)


def cut_chunk(chunk: dict[str, Any], so_far: Assembly, several: bool) -> None:
    """The same of a stream's chunk, after what came ``so_far``: of its last tokens, or of its usage where it tells no
    more. Of ``several`` choices nobody keeps count."""
    if several or so_far.finish_reason is None:
        return
    beyond = so_far.beyond
    if is_usage_only(chunk):
        _cut_usage(chunk, len(so_far.logprobs) - beyond, beyond, int(so_far.finish_reason == "stop"))
    elif beyond:
        for choice in chunk.get("choices") or ():
            del entries_of(choice)[-beyond:]


def _cut_usage(found: dict[str, Any], own: int, beyond: int, ends: int) -> None:
    usage = found.get("usage")
    counted = usage.get("completion_tokens") if isinstance(usage, dict) else None
    if not isinstance(usage, dict) or type(counted) is not int:
        return
    usage["completion_tokens"] = without_end(counted, own, beyond, ends)
    if type(total := usage.get("total_tokens")) is int:
        usage["total_tokens"] = total - counted + usage["completion_tokens"]
