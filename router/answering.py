"""Asking one backend for one exchange: what to send, and what to let through of what comes back."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from router.acceptance import Seen
from router.aside import aside
from router.contracts.decision import Tier
from router.contracts.records import Answer, Kind, Signals
from router.errors import UpstreamError
from router.exchange import Exchange, Headers
from router.history import is_openai, knows_max_tokens, normalised, own_call_ids
from router.scoring.signals import of_answer, summarise
from router.tiers import NOTHING, Tiers
from router.upstream.assembly import Assembly, assembled
from router.upstream.base import IN_OWN_WORDS, Backend, Reply, Waited
from router.upstream.inband import error_in, failure
from router.upstream.reading import dumps, loads
from router.upstream.sse import (
    DONE,
    chunks,
    encode,
    entries_of,
    is_usage_only,
    logprobs_of,
    parse,
    payload,
    read,
    split,
    tokens_of,
    usage_of,
)

LATER = 1
"""The priority of what nobody waits for: the embedded engine begins it after what somebody does. Beside the audit's
``Quiet`` it is needed, since that knows this worker's clients alone, and waits for a moment only."""
SAMPLING = frozenset({"min_p", "seed", "temperature", "top_k", "top_p", "typical_p"})
"""Fields by which a client says how an answer is drawn."""
LOGPROBS: Mapping[str, Any] = {"logprobs": True}
UNREAD_BYTES = 2**18
"""Of a stream that passes unread so much is kept, and then read at once."""
_USAGE = re.compile(rb'"usage":\s*\{')


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
    if chat.native is not None and chat.native.dialect is backend.dialect:
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


def wished(exchange: Exchange, backend: Backend) -> Mapping[str, Any]:
    """What a backend is asked beside what the client asked: a student for its tokens' probabilities; a teacher, to
    learn from its answer, for the likeliest tokens, where the policy records them. Not where the client has its own
    wish of that kind, nor where nothing could be learned: of an answer with tools, or of several."""
    most, body = exchange.policy.teacher.top_logprobs, exchange.chat.body
    if exchange.chat.wants_logprobs:
        return NOTHING
    if backend.tier is Tier.STUDENT:
        return LOGPROBS
    if not most:
        return NOTHING
    if body.get("top_logprobs") is not None or body.get("tools") or body.get("functions") or (body.get("n") or 1) != 1:
        return NOTHING
    return {"logprobs": True, "top_logprobs": most}


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole answer: costed, and as the client gets it; ``choices``: each of them, as acceptance looks at it."""

    answer: Answer
    content: bytes
    headers: Headers
    choices: tuple[Seen, ...]


async def ask_whole(
    tiers: Tiers, exchange: Exchange, backend: Backend, kind: Kind, waited: Waited, *, seed: int | None = None
) -> Whole:
    """One whole answer; with a ``seed`` one drawn by the model's own probabilities, whatever the client asked.

    Raises UpstreamError (also where the answer is none) and UpstreamRefused.
    """
    chat, began = exchange.chat, time.perf_counter()
    asking = partial(request_for, backend, exchange, streamed=False, later=kind is Kind.AUDITED)
    body = await aside(asking, chat.size)
    wish = wished(exchange, backend) if kind is Kind.SERVED or backend.tier is Tier.STUDENT else NOTHING
    if seed is not None:
        body = {name: value for name, value in body.items() if name not in SAMPLING}
        wish = {**wish, "temperature": 1.0, "seed": seed}
    reply = await tiers.whole(backend, body, waited, wished=wish, owner=chat.owner)
    exchange.received += len(reply.body)
    reading = partial(_read, exchange, backend, kind, reply, wish=wish, began=began)
    return await aside(reading, len(reply.body))


def _read(
    exchange: Exchange, backend: Backend, kind: Kind, reply: Reply, *, wish: Mapping[str, Any], began: float
) -> Whole:
    found, readable = _parsed(backend, reply.body)
    entries = entries_of(found["choices"][0]) if kind is Kind.SERVED and _recorded(exchange, backend) else None
    said = [assembled({**choice, "logprobs": None}) for choice in found["choices"]]
    hold = exchange.policy.accept.hold_tokens
    choices = tuple(_seen(backend, choice, a, hold) for choice, a in zip(found["choices"], said, strict=True))
    first = choices[0]
    whole = readable and reply.whole and said[0].whole and said[0].finish_reason is not None
    if kind is Kind.SERVED:
        exchange.owe(backend, (choice.message for choice in choices))
    content = reply.body
    if backend.tier is Tier.STUDENT:
        content = dumps(shown(found, backend, logprobs=exchange.chat.wants_logprobs))
    elif wish and without_logprobs(found):
        content = dumps(found)
    answer = exchange.answered(
        backend,
        kind,
        message=dict(first.message),
        finish_reason=first.finish_reason,
        usage=usage_of(found),
        model=found.get("model"),
        seconds=time.perf_counter() - began,
        signals=first.signals,
        top_logprobs=entries or None,
        broken=not whole,
    )
    return Whole(answer, content, list(reply.headers), choices)


def _recorded(exchange: Exchange, backend: Backend) -> bool:
    """Whether the likeliest tokens of the backend's answer are recorded, whoever asked for them."""
    return backend.tier is Tier.TEACHER and exchange.policy.teacher.top_logprobs > 0


def _seen(backend: Backend, choice: dict[str, Any], said: Assembly, hold: int) -> Seen:
    seen = Seen(said.message, said.finish_reason)
    if backend.tier is Tier.STUDENT:
        seen.signals = of_answer(logprobs_of(choice), seen.text, tokens_of(choice, hold), hold)
    return seen


def _parsed(backend: Backend, content: bytes) -> tuple[dict[str, Any], bool]:
    """(a whole answer, whether all that it says could be read). Raises UpstreamError and UpstreamRefused."""
    try:
        found, readable = loads(content)
        if (error := error_in(found)) is not None:
            raise failure(backend, error)
        if found["choices"] and all(isinstance(choice["message"], dict) for choice in found["choices"]):
            return dict(found), readable
    except (ValueError, LookupError, TypeError) as e:
        raise UpstreamError(f"{backend.label} answered something that is no chat completion") from e
    raise UpstreamError(f"{backend.label} answered something that is no chat completion")


def shown(found: dict[str, Any], backend: Backend, *, logprobs: bool) -> dict[str, Any]:
    """A student's answer or chunk as the client gets it: under its true name, its tool calls under our ids,
    without token probabilities (``logprobs``) that only we asked for. Changes ``found``."""
    own_call_ids(found)
    if "model" in found:
        found["model"] = backend.label
    if not logprobs:
        without_logprobs(found)
    return found


def without_logprobs(found: dict[str, Any]) -> bool:
    """Takes token probabilities out of an answer or a chunk. Whether there were any."""
    choices, there = found.get("choices"), False
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            there |= choice.pop("logprobs", None) is not None
    return there


class Relay:
    """One stream on its way to the client: which events leave, in which form, and what they add up to.

    The student's chunks are read as they pass, since they are judged. The teacher's are passed as
    bytes and read once afterwards, unless it was asked for what the client does not get; else only the usage chunk
    that the client did not ask for stays behind.
    """

    def __init__(self, exchange: Exchange, backend: Backend) -> None:
        self._exchange, self._backend = exchange, backend
        self._wants_usage, self._wants_logprobs = exchange.chat.wants_usage, exchange.chat.wants_logprobs
        self._unread: list[bytes] = []
        self._unread_bytes = 0
        self._assembly = Assembly(entries=[] if _recorded(exchange, backend) else None)
        self._reads = backend.tier is Tier.STUDENT or bool(wished(exchange, backend))
        self._done = False
        self._held: Signals | None = None
        self.signalled: Signals | None = None  # by who looked closer at the whole answer than this does
        self._began = time.perf_counter()

    def reached(self, tokens: int) -> bool:
        """Whether so many tokens have come, or all that will."""
        found = self.collected
        return found.tokens >= tokens or found.finish_reason is not None or self._done

    def seen(self) -> Seen:
        """What has come so far, as acceptance looks at it."""
        found = self.collected
        complete = found.finish_reason is not None or self._done
        signals = self.signals()
        if not complete:
            self._held = signals
        return Seen(found.message, found.finish_reason, signals, complete)

    @property
    def collected(self) -> Assembly:
        """What has come so far, read up to the last event."""
        if self._unread:
            found, readable = chunks(b"".join(self._unread))
            self._unread, self._unread_bytes = [], 0
            self._assembly.whole = self._assembly.whole and readable
            for chunk in found:
                self._assembly.add(chunk)
        return self._assembly

    def pass_on(self, events: bytes) -> bytes:
        """The bytes that the client gets for these whole events.

        Raises:
            UpstreamError: one cannot be read, of an answer that must be before it leaves.
        """
        self._exchange.received += len(events)
        if self._reads:
            return b"".join([self._read(event) for event in split(events)])
        self._unread.append(events)
        self._unread_bytes += len(events)
        if self._unread_bytes > UNREAD_BYTES:
            _ = self.collected
        if self._wants_usage or b'"usage"' not in events or not _USAGE.search(events):
            return events
        return b"".join(e for e in split(events) if not ((c := parse(e)) and is_usage_only(c)))

    def _read(self, event: bytes) -> bytes:
        chunk, readable = read(event)
        self._assembly.whole = self._assembly.whole and readable
        if chunk is None:
            if not readable and not self._exchange.committed and self._backend.tier is Tier.STUDENT:
                raise UpstreamError(f"{self._backend.label} sent what cannot be read")
            self._done = self._done or payload(event) == DONE
            return event
        self._assembly.add(chunk)
        if not self._wants_usage and is_usage_only(chunk):
            return b""
        if self._backend.tier is Tier.TEACHER:
            return encode(chunk) if without_logprobs(chunk) else event
        return self._shown(event, chunk)

    def _shown(self, event: bytes, chunk: dict[str, Any]) -> bytes:
        try:
            return encode(shown(chunk, self._backend, logprobs=self._wants_logprobs))
        except UpstreamError:  # nested too deeply to be written again
            self._assembly.whole = False
            return event

    def signals(self) -> Signals | None:
        """The student's; of a whole answer with those by which its beginning was judged."""
        found = self.collected
        if self._backend.tier is not Tier.STUDENT or not found.logprobs:
            return None
        if self.signalled is not None:
            return self.signalled
        complete, text = found.finish_reason is not None or self._done, found.message.get("content")
        return summarise(found.logprobs, complete, text, self._held if complete else None)

    def answer(self, kind: Kind, first_token_seconds: float | None = None) -> Answer:
        """What has come so far as an answer; its usage is estimated where the stream was cut short."""
        found = self.collected
        return self._exchange.answered(
            self._backend,
            kind,
            message=found.message,
            finish_reason=found.finish_reason,
            usage=found.usage,
            model=found.model,
            seconds=time.perf_counter() - self._began,
            first_token_seconds=first_token_seconds,
            signals=self.signals(),
            top_logprobs=found.entries or None,
            broken=not found.whole or found.finish_reason is None,
        )
