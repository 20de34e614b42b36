"""What an answer or a chunk tells of its tokens, as its client gets it: none that ended it, or nothing at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from router.contracts.logprobs import without_end
from router.wire.assembly import Assembly
from router.wire.sse import entries_of, is_usage_only


class ToldTokens(NamedTuple):
    """Of one choice: how many tokens it tells that are its own, how many that ended it, and whether it ended by
    itself."""

    own: int
    beyond: int
    ended: bool


def without_logprobs(found: dict[str, Any]) -> bool:
    """Takes token probabilities out of an answer or a chunk. Whether there were any."""
    choices, there = found.get("choices"), False
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            there |= choice.pop("logprobs", None) is not None
    return there


def cut_answer(found: dict[str, Any], told: Sequence[ToldTokens]) -> None:
    """Takes what ended them out of a whole answer's choices, and out of its usage."""
    for choice, tokens in zip(found["choices"], told, strict=True):
        if tokens.beyond:
            del entries_of(choice)[-tokens.beyond :]
    _cut_usage(found, [tokens for tokens in told if tokens.own])


def cut_chunk(chunk: dict[str, Any], so_far: Assembly, several: bool) -> None:
    """The same of a stream's chunk, after what came ``so_far``: of its last tokens, or of its usage where it tells no
    more. Of ``several`` choices nobody keeps count."""
    if several or so_far.finish_reason is None:
        return
    beyond = so_far.beyond
    if is_usage_only(chunk):
        _cut_usage(chunk, [ToldTokens(len(so_far.logprobs) - beyond, beyond, so_far.finish_reason == "stop")])
    elif beyond:
        for choice in chunk.get("choices") or ():
            del entries_of(choice)[-beyond:]


def _cut_usage(found: dict[str, Any], told: Sequence[ToldTokens]) -> None:
    usage = found.get("usage")
    counted = usage.get("completion_tokens") if isinstance(usage, dict) else None
    if not isinstance(usage, dict) or type(counted) is not int:
        return
    own, beyond = sum(t.own for t in told), sum(t.beyond for t in told)
    usage["completion_tokens"] = without_end(counted, own, beyond, sum(t.ended for t in told))
    if type(total := usage.get("total_tokens")) is int:
        usage["total_tokens"] = total - counted + usage["completion_tokens"]
