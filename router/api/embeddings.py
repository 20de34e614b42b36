"""``POST /v1/embeddings``: passed on to the model that a policy names for them. Nothing is routed: there is no student
for it, so there is nothing to choose. What it costs is recorded, without the texts, and counts in the day's budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import Any

import orjson

from router.api.asgi import Arrival
from router.api.schemas import NAME, OBJECT, Operation, listed, record
from router.api.sessions import user_named
from router.api.surface import client_label
from router.api.vectors import in_form
from router.backends.base import Backend, Reply, WaitingTime
from router.backends.faults import surely_unpaid
from router.cascade.cascade import Cascade
from router.cascade.exchange import CLIENT_LEFT, Services
from router.contracts.decision import Decision, Reason, Tier
from router.contracts.records import Answer, AnswerKind, Record, Usage
from router.errors import BadRequest, BudgetSpent, LocumError, NotFound, UpstreamError, UpstreamRefused
from router.pricing import cost_usd
from router.scoring.text.features import FEATURES_VERSION
from router.served.catalog import Catalog
from router.wire.body import json_object, model_of
from router.wire.ceiling import Dearest
from router.wire.estimates import BYTES_PER_TOKEN, usage_or
from router.wire.threads import LARGE_BYTES, aside
from router.wire.usage import usage_in

PATH = "/v1/embeddings"

INPUT = {"anyOf": [NAME, listed({}, at_least=1)]}
DOCUMENT = {
    PATH: Operation(
        "Embeddings",
        ("EmbeddingsRequest", lambda model: record("model", "input", model=model, input=INPUT)),
        ("Embeddings", record("data", data=listed(OBJECT))),
    )
}


class Embeddings:
    """Answers requests for embeddings. ``catalog()`` and ``shared()`` are the proxy's, at the moment."""

    def __init__(self, catalog: Callable[[], Catalog], shared: Callable[[], Services]) -> None:
        self._catalog, self._shared = catalog, shared

    async def __call__(self, arrived: Arrival) -> Reply:
        """Raises BadRequest, NotFound where no policy has embeddings under this name, BudgetSpent, and as ``Upstream``
        says."""
        body = await aside(partial(json_object, arrived.content), len(arrived.content))
        cascade, backend = find(self._catalog(), model_of(body))
        if not isinstance(body.get("input"), str | list) or not body["input"]:
            raise BadRequest("'input' must be given: a text, or a list of texts or tokens", param="input")
        began, created_at = time.perf_counter(), time.time()
        record = _record(arrived, body, cascade, created_at)
        try:
            dearest = Dearest(body)
            if len(arrived.content) > LARGE_BYTES:
                await aside(dearest.measure, len(arrived.content))
            held = cascade.till.hold(backend, dearest)
        except BudgetSpent as spent:
            record.status = spent.status
            self._shared().metrics.observe_embeddings(record)
            raise
        used: Usage | None = _guess(body)  # whatever ends this, unless it is known better
        try:
            reply = await self._asked(backend, {**body, "model": backend.model}, len(arrived.content))
            found, content = await aside(partial(_read, backend, body, reply.body), len(reply.body))
            used, record.status = _usage(body, found), reply.status
        except LocumError as error:
            record.status = error.reply_status if isinstance(error, UpstreamRefused) else error.status
            if isinstance(error, UpstreamError | UpstreamRefused) and surely_unpaid(error):
                used = None
            raise
        finally:
            record.seconds = time.perf_counter() - began
            record.answers = [] if used is None else [_answer(backend, used, record.seconds)]
            held.settle(record.cost_usd)
            self._shared().store.append(record)
            self._shared().metrics.observe_embeddings(record)
        told = {"request-id": arrived.request_id, "policy": record.policy, "cost-usd": f"{record.cost_usd:f}"}
        headers = tuple((b"x-locum-" + k.encode(), v.encode()) for k, v in told.items())
        return Reply(reply.status, content, headers + reply.headers)

    async def _asked(self, backend: Backend, body: dict[str, Any], size: int) -> Reply:
        """Without ``encoding_format`` where the backend may not know it: numbers come then, and are as good."""
        plain = {k: v for k, v in body.items() if k != "encoding_format" or v not in ("float", "base64")}
        if backend.url is None:
            body = plain
        try:
            return await self._shared().tiers.embed(backend, body, WaitingTime(size))
        except UpstreamRefused as refusal:
            if body == plain or b"encoding_format" not in refusal.reply_body:
                raise
            return await self._shared().tiers.embed(backend, plain, WaitingTime(size))


def find(catalog: Catalog, model: str) -> tuple[Cascade, Backend]:
    """Who gives embeddings under this name: the embeddings model's own, or one of its policy's.

    Raises:
        NotFound: nobody does; the message says what a policy would have to say.
    """
    for cascade in catalog.cascades:
        backend = cascade.backends.embeddings
        if backend is not None and model in (backend.label, backend.model):
            return cascade, backend
    cascade, _ = catalog.resolve(model)
    if cascade.backends.embeddings is None:
        raise NotFound(
            f"the policy {cascade.policy.name!r} names no model for embeddings; "
            "give it 'embeddings: {model: openai/text-embedding-3-small}', or a model and a url",
            param="model",
        )
    return cascade, cascade.backends.embeddings


def _read(backend: Backend, body: Mapping[str, Any], answer: bytes) -> tuple[dict[str, Any], bytes]:
    """An answer, and the bytes of it in the form that was asked for.

    Raises:
        UpstreamError: it is no list of embeddings.
    """
    try:
        found = orjson.loads(answer)
        if isinstance(found, dict) and isinstance(found.get("data"), list):
            return found, in_form(found, body.get("encoding_format")) or answer
    except ValueError as e:  # orjson's own is one
        raise UpstreamError(f"{backend.label} answered something that is no list of embeddings") from e
    raise UpstreamError(f"{backend.label} answered something that is no list of embeddings")


def _usage(body: Mapping[str, Any], found: Mapping[str, Any]) -> Usage:
    """The tokens that the answer counts, else four bytes of input each. Nothing is said."""
    usage = found.get("usage")
    told = usage_in({**found, "usage": {"completion_tokens": 0, **usage}} if isinstance(usage, dict) else found)
    guess, asked = _guess(body), body["input"]
    used = usage_or(
        told,
        lambda: guess,
        asked_tier=body.get("service_tier"),
        asked_tokens=guess.input_tokens,
        asked=lambda: asked if isinstance(asked, str) else "\n".join(one for one in asked if isinstance(one, str)),
    )
    return replace(used, output_tokens=0)


def _guess(body: Mapping[str, Any]) -> Usage:
    return Usage(input_tokens=max(1, len(orjson.dumps(body["input"])) // BYTES_PER_TOKEN), estimated=True)


def _record(arrived: Arrival, body: Mapping[str, Any], cascade: Cascade, created_at: float) -> Record:
    """What is kept of a request, its bill apart: no text. Until it is known better its client left."""
    metadata = body.get("metadata")
    return Record(
        request_id=arrived.request_id,
        conversation_id=arrived.request_id,
        created_at=created_at,
        policy=cascade.policy.name,
        policy_version=cascade.policy.version,
        features_version=FEATURES_VERSION,
        owner=arrived.owner or None,
        user=user_named(body),
        task=client_label(metadata.get("task")) if isinstance(metadata, dict) else None,
        decision=Decision(tier=Tier.TEACHER, reason=Reason.CAPABILITY),  # there is no student for it
        reason=Reason.CAPABILITY,
        status=CLIENT_LEFT,
        embedding=True,
    )


def _answer(backend: Backend, used: Usage, seconds: float) -> Answer:
    return Answer(
        tier=Tier.TEACHER,
        kind=AnswerKind.EMBEDDED,
        model=backend.label,
        usage=used,
        cost_usd=cost_usd(used, backend.price) if backend.price else Decimal(0),
        seconds=seconds,
    )
