"""``POST /v1/embeddings``: passed on to the model that a policy names for them. Nothing is routed or recorded:
there is no student for it, so there is nothing to choose; what it costs is counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from typing import Any

import orjson

from router.api.asgi import Arrival
from router.api.schemas import NAME, OBJECT, Operation, listed, record
from router.api.vectors import in_form
from router.backends.base import Backend, Reply, WaitingTime
from router.backends.faults import surely_unpaid
from router.cascade.cascade import Cascade
from router.cascade.exchange import Services
from router.contracts.records import Usage
from router.errors import BadRequest, BudgetSpent, LocumError, NotFound, UpstreamError, UpstreamRefused
from router.pricing import cost_usd
from router.served.catalog import Catalog
from router.wire.body import json_object, model_of
from router.wire.ceiling import Dearest
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
        metrics, policy, usd, status = self._shared().metrics, cascade.policy.name, Decimal(0), 500
        try:
            dearest = Dearest(body)
            if len(arrived.content) > LARGE_BYTES:
                await aside(dearest.measure, len(arrived.content))
            held = cascade.till.hold(backend, dearest)
        except BudgetSpent as spent:
            metrics.observe_embeddings(policy, spent.status, usd)
            raise
        try:
            usd = _estimated_usd(backend, body)  # whatever ends this, unless it is known better
            reply = await self._asked(backend, {**body, "model": backend.model}, len(arrived.content))
            found, content = await aside(partial(_read, backend, body, reply.body), len(reply.body))
            usd, status = _cost_usd(backend, body, found), reply.status
        except LocumError as error:
            status = error.reply_status if isinstance(error, UpstreamRefused) else error.status
            if isinstance(error, UpstreamError | UpstreamRefused) and surely_unpaid(error):
                usd = Decimal(0)
            raise
        finally:
            held.settle(usd)
            metrics.observe_embeddings(policy, status, usd)
        told = {"request-id": arrived.request_id, "policy": policy, "cost-usd": f"{usd:f}"}
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


def _cost_usd(backend: Backend, body: Mapping[str, Any], found: Mapping[str, Any]) -> Decimal:
    """By the tokens that the answer counts, else by four bytes of input a token."""
    told = usage_in(found)
    if told is None or told.lacks_input or backend.price is None:
        return _estimated_usd(backend, body)
    return cost_usd(told.usage, backend.price)


def _estimated_usd(backend: Backend, body: Mapping[str, Any]) -> Decimal:
    guess = Usage(input_tokens=len(orjson.dumps(body["input"])) // 4, estimated=True)
    return cost_usd(guess, backend.price) if backend.price else Decimal(0)
