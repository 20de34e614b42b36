"""Answers held to a form: at every step only those tokens are left by which it can still come out right.

The form is compiled to a parser over the tokenizer's own vocabulary by llguidance, which says for each
step in some tens of microseconds what may come next.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from router.engine.calls import CallForm
from router.errors import BadRequest
from router.wire.tools import OfferedTools

if TYPE_CHECKING:
    import torch
    from llguidance import LLMatcher
    from llguidance._lib import JsonCompileOptions

SPACING: JsonCompileOptions = {"whitespace_flexible": False, "whitespace_pattern": r"( |\n {0,32})?"}
"""A space, or a line's end and an indent: where any white space may come, a small model may never stop."""


class Grammar:
    """One answer's way through its form. Used on the torch thread alone."""

    __slots__ = ("_matcher",)

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def fresh(self) -> Grammar:
        """The same form for another answer; only for one that nothing was taken of."""
        return Grammar(self._matcher.deep_copy())

    def leave(self, logits: torch.Tensor) -> torch.Tensor:
        """(vocabulary,) logits, minus infinity where a token would break the form."""
        import torch

        packed = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        known = np.unpackbits(packed, bitorder="little", count=len(logits))  # zeros for what the parser does not know
        barred = torch.from_numpy(known == 0).to(logits.device)
        return logits.masked_fill(barred, float("-inf"))

    def take(self, token: int) -> None:
        self._matcher.consume_token(token)

    @property
    def complete(self) -> bool:
        """Nothing can follow."""
        return self._matcher.is_stopped()

    @property
    def broken(self) -> bool:
        """The parser gave up, as at a limit of its own; the answer cannot go on."""
        return self._matcher.is_error()


class Grammars:
    """The forms of one model's answers. The first takes a second: the vocabulary is read for it."""

    def __init__(self, tokenizer: Any, vocabulary: int, ends: frozenset[int]) -> None:
        self._tokenizer, self._vocabulary, self._ends = tokenizer, vocabulary, ends
        self._readable: Any = None

    def of(self, schema: Mapping[str, Any]) -> Grammar:
        """JSON that is valid against the schema.

        Raises:
            BadRequest: the schema is none, or asks what cannot be held to.
        """
        from llguidance import LLMatcher

        try:
            grammar = LLMatcher.grammar_from_json_schema(dict(schema), overrides=SPACING)
        except ValueError as e:
            raise _refused(str(e), "response_format") from e
        return self._compiled(grammar, "response_format")

    def calling(self, tools: OfferedTools, form: CallForm, schema: Mapping[str, Any] | None) -> Grammar:
        """Calls of these tools with valid arguments, in this form; where none must be called also any text, or JSON by
        the schema, and calls behind a text.

        Raises:
            BadRequest: a schema is none, or asks what cannot be held to.
        """
        names = list(tools.parameters)
        begun, mark = form.opening[len(form.mark) :], form.mark
        more = "" if form.then is None or tools.single else f"({_text(form.then)} call)*"
        given = [_json({**(tools.parameters[name] or {}), "type": "object"}) for name in names]
        rules = [
            f"calls: {_text(begun)} call {more} {_text(form.closing)}",
            "call: " + " | ".join(f"call_{n}" for n in range(len(names))),
            *(f"call_{n}: {_text(name + form.between)} {given[n]}" for n, name in enumerate(names)),
        ]
        if tools.must:
            start = [f"start: {_text(mark)} calls"]
        elif schema is not None:
            start = [f"start: {_json(schema)} | {_text(mark)} calls"]
        else:  # the lazy one ends where the mark does, so that what comes then is a call
            start = ["start: ANY | begun calls", f"begun[lazy]: ANY {_text(mark)}", r"ANY: /(.|\n)*/"]
        return self._compiled("\n".join(["%llguidance {}", *start, *rules]), "tools")

    def _compiled(self, grammar: str, asked: str) -> Grammar:
        from llguidance import LLMatcher
        from llguidance.hf import from_tokenizer

        if self._readable is None:
            self._readable = from_tokenizer(self._tokenizer, self._vocabulary, sorted(self._ends))
        try:
            matcher = LLMatcher(self._readable, grammar, log_level=0)
        except ValueError as e:
            raise _refused(str(e), asked) from e
        if matcher.is_error():
            raise _refused(matcher.get_error(), asked)
        return Grammar(matcher)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if text else ""


def _json(schema: Mapping[str, Any]) -> str:
    return f"%json {json.dumps({**schema, 'x-guidance': SPACING})}"


def _refused(why: str, asked: str) -> BadRequest:
    first = why.strip().splitlines()[0] if why.strip() else "it is no JSON schema"
    return BadRequest(f"this student cannot be held to the schema: {first}", param=asked)
