"""What writing for weak kinds would cost, before anything is asked."""

from __future__ import annotations

import random
from collections.abc import Mapping
from decimal import Decimal
from math import ceil
from statistics import mean

import orjson

from distiller.synthesis.kinds import Kind
from distiller.synthesis.prompts import ASKED, drawn, to_answer, to_write
from router.contracts.judges import Judge, Llm, ToolCalls
from router.contracts.records import Usage
from router.paid import Backend
from router.pricing import cost_usd

BYTES_PER_TOKEN = 4
"""As usual in English; the teacher's own count of its answers is taken where it is known."""
JUDGE_INPUT, JUDGE_OUTPUT = 400, 120
"""Tokens that a judge's instructions take, and its word."""


def estimated_usd(kind: Kind, judge: Judge, teacher: Backend, judging: Mapping[str, Backend]) -> Decimal:
    """About what a kind costs if all that the teacher writes is kept; what is thrown away comes on top."""
    assert teacher.price is not None
    form = kind.forms[0]
    asked = orjson.dumps(to_write(form, drawn(form, random.Random(0)), 0))
    prompt = mean(_tokens(shot.messages[-1]["content"]) for shot in form.shots)
    before = sum(_tokens(m["content"]) for m in to_answer(form, ""))
    answer = mean(shot.teacher_tokens or _tokens(shot.answer) for shot in form.shots)
    own = judge.for_task(form.task)
    times = 1 if isinstance(own, ToolCalls) else 2
    turns = ceil(kind.wanted / ASKED)
    total = cost_usd(_usage(turns * len(asked) / BYTES_PER_TOKEN, kind.wanted * prompt), teacher.price)
    total += times * cost_usd(_usage(kind.wanted * (before + prompt), kind.wanted * answer), teacher.price)
    if isinstance(own, Llm) and (price := judging[own.label].price) is not None:
        shown = JUDGE_INPUT + before + prompt + 2 * answer
        total += 2 * cost_usd(_usage(kind.wanted * shown, kind.wanted * JUDGE_OUTPUT), price)
    return total


def _usage(input_tokens: float, output_tokens: float) -> Usage:
    return Usage(input_tokens=ceil(input_tokens), output_tokens=ceil(output_tokens))


def _tokens(text: str) -> int:
    return ceil(len(text.encode()) / BYTES_PER_TOKEN)
