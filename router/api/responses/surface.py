"""``POST /v1/responses``: OpenAI's Responses, as chat requests over the cascade."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from router.api.responses.answer import Response, Turn
from router.api.responses.items import REFERENCE, Item, Transcript, listed, new_ids, owner_of
from router.api.responses.request import chat_body, check
from router.api.responses.sink import ResponseSink
from router.api.responses.store import MOST_BYTES, History, ResponseStore, Terms
from router.api.responses.tools import named, tools_of
from router.api.schemas import (
    FLAG,
    NAME,
    OBJECT,
    OBJECT_OR_NULL,
    STREAMING,
    TEXT,
    TEXT_OR_NULL,
    Operation,
    Schema,
    record,
)
from router.api.schemas import listed as list_of
from router.api.sessions import conversation_named
from router.api.surface import AskedChat, identified
from router.errors import BadRequest, NotStored, PreviousNotStored
from router.policy.policy import Policy
from router.routing.conversations import Identities
from router.served.catalog import Catalog
from router.wire.body import json_object
from router.wire.threads import aside

PATH = "/v1/responses"


def _request(model: Schema) -> Schema:
    item = record("role", "content", role={"enum": ["user", "assistant", "system", "developer"]}, content=NAME)
    tool = record("type", "name", type={"enum": ["function", "custom"]}, name=NAME)
    return record(
        "model", "input", model=model, input={"anyOf": [NAME, list_of(item, at_least=1)]},
        instructions=TEXT_OR_NULL, previous_response_id=TEXT_OR_NULL, store=FLAG, tools=list_of(tool),
        **STREAMING, metadata=OBJECT_OR_NULL,
    )  # fmt: skip


RESPONSE = record(
    "id", "object", "status", "output",
    id=TEXT, object={"const": "response"}, status=TEXT, output=list_of(OBJECT),
)  # fmt: skip
DOCUMENT = {PATH: Operation("Responses", ("ResponsesRequest", _request), ("Response", RESPONSE), streams=True)}
DAY_SECONDS = 86_400.0

Owner = Callable[[Mapping[bytes, bytes]], str]
"""A request's headers -> whose it is."""


class Responses:
    """Puts what was said before in front of each request, from what is kept here. Nothing is kept for a policy
    that keeps no text."""

    def __init__(self, catalog: Callable[[], Catalog], kept: ResponseStore, owner: Owner, identity: Identities) -> None:
        self._catalog, self._kept, self._owner, self._identity = catalog, kept, owner, identity

    async def asked(self, content: bytes, request_id: str, headers: Mapping[bytes, bytes]) -> AskedChat:
        response_id = f"resp_{request_id[-24:]}{secrets.token_hex(12)}"
        new_id = new_ids(response_id)
        body, listed_items = await aside(partial(_read, content, new_id), len(content))
        policy = self._catalog().resolve(body["model"])[0].policy
        owner = self._owner(headers)
        given, size = await self._resolved(listed_items, owner, policy)
        before = await self._before(body, owner, policy)
        size += before.size if before else 0
        chat, dropped = await aside(partial(_chat, body, before, given), len(content) + size)
        known = before.conversation if before else None
        named = conversation_named(headers, chat)
        asking = partial(identified, self._identity, chat, owner=owner, request_id=request_id, named=named, known=known)
        which = await aside(asking, len(content) + size)
        terms = Terms(owner, policy.name, which.conversation, policy.log.retention_days * DAY_SECONDS)
        keeps = body.get("store") is not False and policy.log.text
        turn = Turn(response_id, body, given, new_id, terms if keeps else None, dropped, len(content))
        return AskedChat(chat, lambda sink: ResponseSink(sink, turn, self._keep), which, before=size)

    async def _before(self, body: Mapping[str, Any], owner: str, policy: Policy) -> History | None:
        """What was said before this request."""
        if not (previous := body.get("previous_response_id")):
            return None
        if not policy.log.text:
            raise PreviousNotStored(_no_text(policy), param="previous_response_id")
        history = await self._kept.history(previous, owner)
        if history is None:
            raise PreviousNotStored(
                f"Previous response with id '{previous}' not found: it, or one before it, was not stored, was "
                "deleted, is past its retention, or is another key's; or all together is longer than a request may be",
                param="previous_response_id",
            )
        return history

    async def _resolved(self, items: list[Item], owner: str, policy: Policy) -> tuple[list[Item], int]:
        """(the items, with those that references mean in their place, how many bytes were read for them). A reference
        is short and what it means may be long: each is there once, and all together may be as long as a request."""
        references = [item["id"] for item in items if item["type"] == REFERENCE]
        if len(set(references)) < len(references):
            raise BadRequest("an item is referred to twice in 'input'; say it once", param="input")
        known: dict[str, Item] = {}
        size = 0
        for item in items:
            if item["type"] != REFERENCE or item["id"] in known:
                continue
            if not policy.log.text:
                raise NotStored(_no_text(policy), param="input")
            if found := await self._kept.get(owner_of(item["id"]), owner):
                known |= {i["id"]: i for i in (*found.input, *found.response["output"])}
                size += found.size
                if size > MOST_BYTES:
                    raise BadRequest("what 'input' refers to is longer than a request may be", param="input")
            if item["id"] not in known:
                raise NotStored(f"Item with id '{item['id']}' not found.", param="input")
        return [known[item["id"]] if item["type"] == REFERENCE else item for item in items], size

    async def _keep(self, turn: Turn, response: Response) -> bool:
        return turn.terms is not None and await self._kept.put(response, turn.input, turn.terms)


def _read(content: bytes, new_id: Callable[[str], str]) -> tuple[dict[str, Any], list[Item]]:
    """The request, and its own items."""
    body = json_object(content)
    check(body)
    return body, listed(body["input"], new_id)


def _chat(
    body: Mapping[str, Any], before: History | None, given: Sequence[Item]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The chat request, and what of all no model is shown."""
    transcript = Transcript()
    for item in before.items if before else ():
        transcript.add(item, "previous_response_id")
    for n, item in enumerate(given):
        transcript.add(item, f"input[{n}]")
    tools, left_out = tools_of(body)
    dropped = [*(f"tools.{kind}" for kind in left_out), *(f"input.{named(k)}" for k in transcript.dropped)]
    return chat_body(body, transcript.messages, tools), tuple(dict.fromkeys(dropped))


def _no_text(policy: Policy) -> str:
    return f"the policy {policy.name} keeps no text, so no response is stored; send the whole conversation as 'input'"
