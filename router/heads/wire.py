"""A head's answer as OpenAI's chat completion, whole or as the events of a stream."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from router.heads.heads import HeadReply, LabelHeads

LEAST_SCORE = 1e-9
_TOKENS = re.compile(r".{1,4}", re.DOTALL)
"""Stands for a tokenizer: a head has none, and counts as usage is estimated elsewhere."""


def completion(heads: LabelHeads, body: Mapping[str, Any], model: str) -> dict[str, Any] | None:
    """The whole answer; None where no head is for the request, or its answer would not be as the client asked: it is
    longer than ``max_tokens``, or a ``stop`` stands in it.

    Its first token's log-probability is that of the answer being the teacher's, all others are certain then.
    """
    reply = heads.reply(body)
    if reply is None:
        return None
    text = _said(reply)
    tokens = _TOKENS.findall(text)
    if _is_cut(body, text, len(tokens)):
        return None
    calls = reply.message.get("tool_calls")
    for call in calls or ():
        call["id"] = f"call_{uuid4().hex[:24]}"
    return {
        "id": f"chatcmpl-{uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{
            "index": 0,
            "message": reply.message,
            "logprobs": {"content": _entries(tokens, reply.score)},
            "finish_reason": "tool_calls" if calls else "stop",
        }],
        "usage": {
            "prompt_tokens": reply.input_tokens,
            "completion_tokens": len(tokens),
            "total_tokens": reply.input_tokens + len(tokens),
        },
    }  # fmt: skip


def chunks(whole: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The same answer as a stream's chunks: one that says it, one that ends it, one with its usage."""
    (choice,) = whole["choices"]
    told = {key: whole[key] for key in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    calls = [{"index": n, **call} for n, call in enumerate(choice["message"].get("tool_calls") or ())]
    delta = {**choice["message"], **({"tool_calls": calls} if calls else {})}
    said = {"index": 0, "delta": delta, "logprobs": choice["logprobs"], "finish_reason": None}
    end = {"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}
    return [
        {**told, "choices": [said]},
        {**told, "choices": [end]},
        {**told, "choices": [], "usage": whole["usage"]},
    ]


def _said(reply: HeadReply) -> str:
    calls = reply.message.get("tool_calls")
    return str(calls[0]["function"]["arguments"] if calls else reply.message["content"])


def _is_cut(body: Mapping[str, Any], text: str, tokens: int) -> bool:
    limits = (body.get("max_tokens"), body.get("max_completion_tokens"))
    if any(isinstance(limit, int) and limit < tokens for limit in limits):
        return True
    stop = body.get("stop")
    return any(isinstance(one, str) and one in text for one in (stop if isinstance(stop, list) else [stop]))


def _entries(tokens: list[str], score: float) -> list[dict[str, Any]]:
    first = math.log(min(max(score, LEAST_SCORE), 1.0))
    return [
        {"token": token, "logprob": 0.0 if n else first, "bytes": list(token.encode()), "top_logprobs": []}
        for n, token in enumerate(tokens)
    ]
