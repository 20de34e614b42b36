"""``POST /v1/completions``: OpenAI's older text completions, for clients that still speak them.

A prompt becomes one user message, so the models answer it as they answer a chat; there is no raw
continuation of text here, since neither tier's newest models offer one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from typing import Any

from router.api.chat import check
from router.api.schemas import COUNT, FLAG, OBJECT_OR_NULL, STREAMING, TEXT, Operation, Schema, listed, record
from router.api.surface import AskedChat
from router.errors import BadRequest
from router.wire.assembly import assembled
from router.wire.body import json_object, model_of
from router.wire.calls import number
from router.wire.chat import Headers, Sink
from router.wire.json_text import dumps, loads
from router.wire.sse import COMMENT, DONE, encode, parse, payload, split, work
from router.wire.threads import aside

PATH = "/v1/completions"


def _request(model: Schema) -> Schema:
    return record(
        "model", "prompt", model=model, **STREAMING, echo=FLAG, suffix={"enum": [None, ""]},
        prompt={"anyOf": [TEXT, listed(TEXT, at_least=1) | {"maxItems": 1}]},
        logprobs={"type": ["integer", "null"], "minimum": 0},
        max_tokens={"type": ["integer", "null"], "default": 16},
    ) | {"not": record("echo", "logprobs", echo={"const": True}, logprobs=COUNT)}  # fmt: skip


CHOICE = record("index", "text", "logprobs", "finish_reason", index=COUNT, text=TEXT, logprobs=OBJECT_OR_NULL)
COMPLETION = record("id", "object", "choices", id=TEXT, object={"const": "text_completion"}, choices=listed(CHOICE))
DOCUMENT = {
    PATH: Operation("Text completions", ("CompletionRequest", _request), ("Completion", COMPLETION), streams=True)
}

DEFAULT_MAX_TOKENS = 16
"""OpenAI's default for this endpoint, which clients rely on by leaving it out."""

ONLY_HERE = frozenset({"prompt", "suffix", "echo", "best_of", "logprobs", "max_tokens"})


class Completions:
    """Text completions as chat requests, and chat answers as text completions."""

    async def asked(self, content: bytes, request_id: str, headers: Mapping[bytes, bytes]) -> AskedChat:
        chat, echo = await aside(partial(_read, content), len(content))
        return AskedChat(chat, lambda sink: TextSink(sink, echo))


def _read(content: bytes) -> tuple[dict[str, Any], str]:
    """The chat request, and what its answers repeat."""
    body = json_object(content)
    model_of(body)
    prompt = _prompt(body.get("prompt"))
    return chat_body(body, prompt), prompt if _echoes(body) else ""


def chat_body(body: Mapping[str, Any], prompt: str) -> dict[str, Any]:
    """The request as a chat request; fields that both have, and unknown ones, go along as they are.

    Raises:
        BadRequest: a field asks for what a chat cannot do.
    """
    if body.get("suffix"):
        raise BadRequest("'suffix' is not served here: chat models do not fill in the middle", param="suffix")
    if body.get("best_of") not in (None, 1, body.get("n")):
        raise BadRequest("'best_of' must be 1, or equal to 'n': nothing is sampled and thrown away", param="best_of")
    chat = {k: v for k, v in body.items() if k not in ONLY_HERE}
    chat["messages"] = [{"role": "user", "content": prompt}]
    if (limit := body.get("max_tokens")) is not None or chat.get("max_completion_tokens") is None:
        chat["max_completion_tokens"] = DEFAULT_MAX_TOKENS if limit is None else limit  # newer models know no other
    if (wanted := body.get("logprobs")) is not None:
        if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 0:
            raise BadRequest("'logprobs' must be a whole number, 0 or more", param="logprobs")
        chat |= {"logprobs": True, "top_logprobs": wanted}
    check(chat)
    return chat


def _prompt(prompt: object) -> str:
    match prompt:
        case str() | [str()]:
            return prompt if isinstance(prompt, str) else str(prompt[0])
        case [str(), *_]:
            raise BadRequest("send one prompt a request: each is routed on its own", param="prompt")
        case [int() | list(), *_]:
            raise BadRequest("token ids mean different texts to the two tiers: send 'prompt' as text", param="prompt")
        case _:
            raise BadRequest("'prompt' must be given, as a string", param="prompt")


def _echoes(body: Mapping[str, Any]) -> bool:
    echo = body.get("echo")
    if not isinstance(echo, bool | None):
        raise BadRequest("'echo' must be true or false", param="echo")
    if echo and body.get("logprobs") is not None:
        raise BadRequest("'echo' and 'logprobs' do not go together: a chat gives no prompt's logprobs", param="echo")
    return bool(echo)


class TextSink:
    """Takes a chat answer and lets it leave as a text completion; ``echo`` goes before each choice's text."""

    def __init__(self, sink: Sink, echo: str = "") -> None:
        self.started = False
        self._sink, self._echo = sink, echo
        self._sent: defaultdict[int, int] = defaultdict(int)
        """Characters that each choice has sent."""

    async def start(self, status: int, headers: Headers) -> None:
        self.started = True
        await self._sink.start(status, headers)

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        if status < 400:
            body = await aside(partial(self._whole, body), len(body))
        self.started = True
        await self._sink.whole(status, headers, body)

    def _whole(self, body: bytes) -> bytes:
        return dumps(self._told(loads(body)[0], "message"))

    async def send(self, data: bytes) -> None:
        if shown := await aside(partial(self._events, data), work(data)):
            await self._sink.send(shown)

    async def end(self, data: bytes = b"") -> None:
        await self._sink.end(await aside(partial(self._events, data), work(data)))

    def _events(self, data: bytes) -> bytes:
        """Chunks in this form; comments, ``[DONE]`` and errors as they came. What cannot be read is none."""
        return b"".join(map(self._event, split(data)))

    def _event(self, event: bytes) -> bytes:
        chunk = parse(event)
        if chunk is None:
            return event if event.startswith(COMMENT) or payload(event) == DONE else b""
        return event if chunk.get("error") else encode(self._told(chunk, "delta"))

    def _told(self, answer: dict[str, Any], part: str) -> dict[str, Any]:
        """A chat answer or chunk; its choices hold their text in ``part``."""
        choices = answer.get("choices")
        found = choices if isinstance(choices, list) else []
        renamed = {"id": f"cmpl-{str(answer.get('id', '')).removeprefix('chatcmpl-')}", "object": "text_completion"}
        return {**answer, **renamed, "choices": [self._choice(c, part) for c in found if isinstance(c, dict)]}

    def _choice(self, choice: dict[str, Any], part: str) -> dict[str, Any]:
        at = number(choice.get("index")) or 0
        text = assembled({**choice, "logprobs": None}).message["content"] or ""
        if at not in self._sent:
            text = self._echo + text
        logprobs = _logprobs(choice.get("logprobs"), self._sent[at])
        self._sent[at] += len(text)
        rest = {k: v for k, v in choice.items() if k != part}
        return {"finish_reason": None, **rest, "index": at, "text": text, "logprobs": logprobs}


def _logprobs(found: object, offset: int) -> dict[str, Any] | None:
    """A chat choice's token probabilities as four lists; ``offset`` is where the first token's text begins."""
    content = found.get("content") if isinstance(found, dict) else None
    if not isinstance(content, list):
        return None
    told: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for token in content:
        if not isinstance(token, dict) or not isinstance(token.get("token"), str):
            continue
        others = token.get("top_logprobs")
        others = others if isinstance(others, list) else []
        told["tokens"].append(token["token"])
        told["token_logprobs"].append(token.get("logprob"))
        told["top_logprobs"].append(
            {t["token"]: t.get("logprob") for t in others if isinstance(t, dict) and isinstance(t.get("token"), str)}
            | {token["token"]: token.get("logprob")}
        )
        told["text_offset"].append(offset)
        offset += len(token["token"])
    return told
