"""Asking one backend for one exchange: what to send, and what to let through of what comes back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from router.backends.base import Backend, Reply, WaitingTime
from router.backends.client import NOTHING, BackendClient
from router.backends.events import EventStream
from router.backends.history import is_openai, knows_max_tokens, normalised
from router.cascade.exchange import Exchange
from router.cascade.replies import parsed, shown
from router.contracts.decision import Tier
from router.contracts.logprobs import within_answer
from router.contracts.records import Answer, AnswerKind, Signals, Usage
from router.errors import UpstreamError
from router.judges.soundness import AnswerSoFar
from router.policy.engines import SAMPLING
from router.scoring.signals import of_answer, summarise
from router.wire.assembly import Assembly, assembled
from router.wire.chat import IN_OWN_WORDS, Headers
from router.wire.form import AnswerTerms, billed
from router.wire.halves import Halves
from router.wire.json_text import dumps, loads
from router.wire.repair import Repair, mended
from router.wire.sse import (
    COMMENT,
    DONE,
    encode,
    ends,
    entries_of,
    exact,
    is_usage_only,
    logprobs_of,
    payload,
    read,
    says_something,
    split,
    tokens_of,
    without_logprobs,
    work,
)
from router.wire.threads import LARGE_BYTES, aside
from router.wire.told_tokens import cut_answer, cut_chunk
from router.wire.usage import USAGE_SO_FAR, usage_in

LATER = 1
"""The priority of what nobody waits for: the embedded engine begins it after what somebody does. Beside the audit's
``Quiet`` it is needed, since that knows this worker's clients alone, and waits for a moment only."""
LOGPROBS: Mapping[str, Any] = {"logprobs": True}
END = b"data: [DONE]\n\n"


def request_for(backend: Backend, exchange: Exchange, *, streamed: bool, later: bool = False) -> dict[str, Any]:
    """The client's request with only what must differ: the model's name; a stream's usage, so that streams cost the
    same as whole answers; the name of an answer's greatest length; and of the history what another backend wrote in
    a form that this one does not take. ``later``: nobody waits for the answer."""
    chat = exchange.chat
    messages = normalised(exchange.given_back(backend), backend)
    body = {**chat.body, "model": backend.model, "messages": messages}
    if "metadata" in body and not body.get("store") and is_openai(backend):
        del body["metadata"]  # policies and records go by it, but OpenAI refuses it where nothing is stored
    for field in backend.ignores:
        body.pop(field, None)
    if "max_completion_tokens" in body and knows_max_tokens(backend):
        body.setdefault("max_tokens", body.pop("max_completion_tokens"))
    if _in_own_words(exchange, backend):
        body[IN_OWN_WORDS] = chat.native
    if later and backend.prioritises:
        body["priority"] = LATER
    if streamed:
        options = body.get("stream_options")
        body["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    elif chat.streamed:
        body.pop("stream_options", None)
        body["stream"] = False
    return body


def _in_own_words(exchange: Exchange, backend: Backend) -> bool:
    """Whether client and backend share a dialect, in which what was asked and answered passes as it is."""
    native = exchange.chat.native
    return native is not None and native.dialect is backend.dialect


def wished(exchange: Exchange, backend: Backend) -> Mapping[str, Any]:
    """What a backend is asked beside what the client asked: a student for its tokens' probabilities, and to answer by
    the policy's temperature where the client says none; a teacher, where the policy records them, for the likeliest
    tokens. Not where the client has its own wish of that kind, nor of an answer with tools, or of several."""
    most, body = exchange.policy.teacher.top_logprobs, exchange.chat.body
    if backend.tier is Tier.STUDENT:
        own = exchange.own_temperature
        asked = NOTHING if exchange.chat.wants_logprobs else LOGPROBS
        return asked if own is None else {**asked, "temperature": own}
    if exchange.chat.wants_logprobs:
        return NOTHING
    if not most:
        return NOTHING
    if body.get("top_logprobs") is not None or body.get("tools") or body.get("functions") or (body.get("n") or 1) != 1:
        return NOTHING
    return {"logprobs": True, "top_logprobs": most}


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """A whole answer: costed, and as the client gets it; ``choices``: each of them, as acceptance looks at it."""

    answer: Answer
    content: bytes
    headers: Headers
    choices: tuple[AnswerSoFar, ...]


async def ask_whole(
    tiers: BackendClient,
    exchange: Exchange,
    backend: Backend,
    kind: AnswerKind,
    waited: WaitingTime,
    *,
    seed: int | None = None,
) -> WholeAnswer:
    """One whole answer; with a ``seed`` one drawn by the model's own probabilities, whatever the client asked.

    Raises UpstreamError (also where the answer is none) and UpstreamRefused.
    """
    chat, began = exchange.chat, time.perf_counter()
    asking = partial(request_for, backend, exchange, streamed=False, later=kind is AnswerKind.AUDITED)
    body = await aside(asking, chat.size)
    wish = wished(exchange, backend) if kind is AnswerKind.SERVED or backend.tier is Tier.STUDENT else NOTHING
    if seed is not None:
        body = {name: value for name, value in body.items() if name not in SAMPLING}
        wish = {**wish, "temperature": 1.0, "seed": seed}
    reply = await tiers.whole(backend, body, waited, wished=wish, owner=chat.owner)
    exchange.received += len(reply.body)
    return await aside(partial(_read, exchange, backend, kind, reply, wish=wish, began=began), len(reply.body))


def _read(
    exchange: Exchange, backend: Backend, kind: AnswerKind, reply: Reply, *, wish: Mapping[str, Any], began: float
) -> WholeAnswer:
    found, readable, strict = parsed(backend, reply.body)
    terms = AnswerTerms.of(exchange.chat.body, backend.label)
    surplus = [assembled({**choice, "logprobs": None}) for choice in found["choices"][terms.choices :]]
    found["choices"], more = found["choices"][: terms.choices], bool(surplus)
    entries = entries_of(found["choices"][0]) if kind is AnswerKind.SERVED and _recorded(exchange, backend) else None
    said = [assembled({**choice, "logprobs": None}) for choice in found["choices"]]
    hold = exchange.policy.accept.hold_tokens
    choices = tuple(_seen(backend, choice, a, hold) for choice, a in zip(found["choices"], said, strict=True))
    first = choices[0]
    if backend.tier is Tier.STUDENT:
        cut_answer(found, [choice.beyond for choice in choices])
    others = [choice.message for choice in (*said[1:], *surplus)]
    usage = exchange.used(backend, first.message, usage_in(found), signals=first.signals, others=others)
    changed = more or not strict
    if not _in_own_words(exchange, backend):
        changed |= mended(found, said, terms) | billed(found, usage)
    whole = readable and reply.whole and not more and said[0].whole and said[0].finish_reason is not None
    if kind is AnswerKind.SERVED:
        exchange.owe(backend, (choice.message for choice in choices))
    content = reply.body
    if backend.tier is Tier.STUDENT:
        content = dumps(shown(found, backend, logprobs=exchange.chat.wants_logprobs))
    elif (wish and without_logprobs(found)) or changed:
        content = dumps(found)
    answer = exchange.answered(
        backend,
        kind,
        message=dict(first.message),
        finish_reason=first.finish_reason,
        usage=usage,
        model=found.get("model"),
        seconds=time.perf_counter() - began,
        signals=first.signals,
        top_logprobs=entries or None,
        broken=not whole,
        temperature=wish.get("temperature"),
    )
    return WholeAnswer(answer, content, list(reply.headers), choices)


def _recorded(exchange: Exchange, backend: Backend) -> bool:
    """Whether the likeliest tokens of the backend's answer are recorded, whoever asked for them."""
    return backend.tier is Tier.TEACHER and exchange.policy.teacher.top_logprobs > 0


def _seen(backend: Backend, choice: dict[str, Any], said: Assembly, hold: int) -> AnswerSoFar:
    seen = AnswerSoFar(said.message, said.finish_reason)
    if backend.tier is Tier.STUDENT:
        told, text = logprobs_of(choice), None if said.calls else seen.text
        seen.beyond = len(told) - within_answer(entries_of(choice), text, said.finish_reason) if told else 0
        own = told[: len(told) - seen.beyond]
        seen.signals = of_answer(own, seen.text, tokens_of(choice, min(hold, len(own))), hold)
    return seen


class Relay:
    """One stream on its way to the client: which events leave, in which form, and what they add up to.

    Each is read as it passes: what is right leaves as it came, what is a little wrong mended (``Repair``), and the
    usage chunk that the client did not ask for stays behind. ``unreadable`` from an event on of which nobody knows
    what it says: nothing leaves any more.
    """

    def __init__(self, exchange: Exchange, backend: Backend) -> None:
        self._exchange, self._backend, chat = exchange, backend, exchange.chat
        self._wants_usage, self._wants_logprobs = chat.wants_usage, chat.wants_logprobs
        self.collected = Assembly(entries=[] if _recorded(exchange, backend) else None)
        """What has come so far."""
        self.unreadable = self._done = self._booked = False
        terms = AnswerTerms.of(chat.body, backend.label, usage=chat.wants_usage)
        self._several = terms.choices > 1
        self._repair = None if _in_own_words(exchange, backend) else Repair(self.collected, terms)
        self._halves = Halves()
        wish = wished(exchange, backend)
        self._wished, self._temperature = bool(wish), wish.get("temperature")
        self._held: Signals | None = None
        self.signalled: Signals | None = None  # by who looked closer at the whole answer than this does
        self._began = time.perf_counter()

    @property
    def unbooked(self) -> bool:
        """Whether something was said of which no answer was made."""
        return self.collected.tokens > 0 and not self._booked

    @property
    def over(self) -> bool:
        """Whether all that was asked for has ended."""
        return self.collected.finish_reason is not None and self._repair is not None and self._repair.over

    def reached(self, tokens: int) -> bool:
        """Whether so many tokens have come, or all that will."""
        found = self.collected
        return found.tokens >= tokens or found.finish_reason is not None or self._done

    def seen(self) -> AnswerSoFar:
        """What has come so far, as acceptance looks at it."""
        found = self.collected
        complete = found.finish_reason is not None or self._done
        signals = self.signals()
        if not complete:
            self._held = signals
        return AnswerSoFar(found.message, found.finish_reason, signals, complete)

    async def passed(self, stream: EventStream, events: bytes) -> bytes:
        """The same as ``pass_on``. Raises UpstreamError where one cannot be read."""
        size = work(events)
        told = self.pass_on(events) if size <= LARGE_BYTES else await aside(partial(self.pass_on, events), size)
        if self.unreadable:
            raise stream.failed("sent what cannot be read")
        return told

    def pass_on(self, events: bytes) -> bytes:
        """The bytes that the client gets for these whole events."""
        self._exchange.received += len(events)
        return b"".join([self._passed(event) for event in split(events)])

    def rest(self) -> bytes:
        """What a stream lacks that has ended well."""
        done, self._done = self._done, True
        return b"" if done or self._repair is None else self._ending() + END

    def broke(self, error: UpstreamError) -> None:
        """Takes what was told of tokens and money with the error that broke the stream off."""
        if error.usage:
            self.collected.note({"usage": error.usage})
            self._done = True

    def _passed(self, event: bytes) -> bytes:
        if self.unreadable:
            return b""
        changed = (chunk := exact(event)) is None
        if chunk is None:
            if (chunk := self._leniently(event)) is None:
                return self._bare(event)
        elif self._halves.waiting:
            self._note(self._halves.join(chunk))
            changed = True
        said = bool(chunk.get("choices"))
        if self._repair is not None:
            changed |= self._repair.take(chunk)
        elif self.collected.finish_reason is not None and says_something(chunk):
            self._note(False)
            return b""
        else:
            self.collected.add(chunk)
        if said and not chunk["choices"] and not chunk.get("usage"):
            return b""  # what it said was not asked for, or came after the end
        changed |= chunk.pop(USAGE_SO_FAR, None) is not None
        if not self._wants_usage and is_usage_only(chunk):
            return b""
        if self._backend.tier is Tier.STUDENT:
            cut_chunk(chunk, self.collected, self._several)
            shown(chunk, self._backend, logprobs=self._wants_logprobs)
            changed = True
        elif self._wished:
            changed |= without_logprobs(chunk)
        changed |= self.over and bool(chunk.get("usage")) and billed(chunk, self._used())
        return self._written(event, chunk) if changed else event

    def _leniently(self, event: bytes) -> dict[str, Any] | None:
        """The JSON object of an event that only we can read."""
        data = payload(event) or (event.strip() if event.lstrip()[:1] == b"{" else b"")
        if not data or data == DONE:
            return None
        try:
            chunk, whole = loads(data, halves=True)
        except ValueError:
            chunk, whole = b"unreadable", False
        if not isinstance(chunk, dict):
            self.unreadable = bool(chunk)
            return None
        self._note(self._halves.join(chunk) and whole)
        return chunk

    def _note(self, whole: bool) -> None:
        self.collected.whole = self.collected.whole and whole

    def _bare(self, event: bytes) -> bytes:
        """What leaves for an event without an object: the end, and comments; clients trip over anything else."""
        if self.unreadable:
            self._note(False)
            return b""
        self._note(read(event)[1])
        if ends(event):
            self._done, good = True, payload(event) == DONE
            self.unreadable = not good and self.collected.finish_reason is None
            return self._ending() + (event if good else END)
        return event if all(line.startswith(COMMENT) for line in event.splitlines() if line) else b""

    def _ending(self) -> bytes:
        self._note(not self._halves.waiting)
        missing = self._repair.rest() if self._repair is not None else []
        for chunk in missing:
            billed(chunk, self._used())
        return b"".join(map(encode, missing))

    def _written(self, event: bytes, chunk: dict[str, Any]) -> bytes:
        try:
            return encode(chunk)
        except UpstreamError:  # nested too deeply to be written again
            self._note(False)
            return event

    def signals(self) -> Signals | None:
        """The student's; of a whole answer with those by which its beginning was judged."""
        found = self.collected
        if self._backend.tier is not Tier.STUDENT or not found.logprobs:
            return None
        if self.signalled is not None:
            return self.signalled
        complete, text = found.finish_reason is not None or self._done, found.message.get("content")
        if not complete:
            return summarise(found.logprobs, False, text)
        own = found.logprobs[: len(found.logprobs) - found.beyond]
        return summarise(own, True, text, self._held) if own else None

    def _used(self) -> Usage:
        found = self.collected
        others = self._repair.others if self._repair is not None else []
        ended = self._done or self.over or (self._repair is None and found.finish_reason is not None)
        begun = sum(choice.tokens > 0 for choice in (found, *others))
        return self._exchange.used(
            self._backend,
            found.message,
            found.usage,
            signals=self.signals(),
            cut=found.outgrown or not ended,
            beyond=found.beyond,
            others=[choice.message for choice in others],
            unsaid=0 if ended else max(0, self._exchange.chat.dearest.choices - begun),
        )

    def answer(self, kind: AnswerKind, first_token_seconds: float | None = None) -> Answer:
        """What has come so far as an answer; its usage is estimated where the stream was cut short."""
        found, self._booked = self.collected, True
        return self._exchange.answered(
            self._backend,
            kind,
            message=found.message,
            finish_reason=found.finish_reason,
            usage=self._used(),
            model=found.model,
            seconds=time.perf_counter() - self._began,
            first_token_seconds=first_token_seconds,
            signals=self.signals(),
            top_logprobs=found.entries or None,
            broken=not found.whole or found.finish_reason is None,
            temperature=self._temperature,
        )
