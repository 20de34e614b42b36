"""``POST /v1/embeddings``: passed on to the model that a policy names for them. Nothing is routed or recorded:
there is no student for it, so there is nothing to choose; what it costs is counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import orjson

from router.api.entrance import Arrived
from router.api.models import Catalog
from router.bodies import json_object, model_of
from router.cascade import Cascade, Shared
from router.contracts.records import Usage
from router.errors import BadRequest, BudgetSpent, LocumError, NotFound, UpstreamError, UpstreamRefused
from router.pricing import cost_usd
from router.upstream.base import Backend, Reply, Waited
from router.upstream.faults import surely_unpaid
from router.upstream.sse import usage_of

PATH = "/v1/embeddings"


class Embeddings:
    """Answers requests for embeddings. ``catalog()`` and ``shared()`` are the proxy's, at the moment."""

    def __init__(self, catalog: Callable[[], Catalog], shared: Callable[[], Shared]) -> None:
        self._catalog, self._shared = catalog, shared

    async def __call__(self, arrived: Arrived) -> Reply:
        """Raises BadRequest, NotFound where no policy has embeddings under this name, BudgetSpent, and as ``Upstream``
        says."""
        body = json_object(arrived.content)
        cascade, backend = find(self._catalog(), model_of(body))
        if not isinstance(body.get("input"), str | list) or not body["input"]:
            raise BadRequest("'input' must be given: a text, or a list of texts or tokens", param="input")
        metrics, policy, usd, status = self._shared().metrics, cascade.policy.name, Decimal(0), 500
        try:
            held = cascade.till.hold(backend, body)
        except BudgetSpent as spent:
            metrics.observe_embeddings(policy, spent.status, usd)
            raise
        try:
            usd = _estimated_usd(backend, body)  # whatever ends this, unless it is known better
            reply = await self._shared().tiers.embed(backend, {**body, "model": backend.model}, Waited())
            usd, status = _cost_usd(backend, body, reply.body), reply.status
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
        return Reply(reply.status, reply.body, headers + reply.headers)


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


def _cost_usd(backend: Backend, body: Mapping[str, Any], answer: bytes) -> Decimal:
    """By the tokens that the answer counts, else by four bytes of input a token.

    Raises:
        UpstreamError: the answer is no list of embeddings.
    """
    try:
        found = orjson.loads(answer)
    except orjson.JSONDecodeError as e:
        raise UpstreamError(f"{backend.label} answered something that is no list of embeddings") from e
    if not isinstance(found, dict) or not isinstance(found.get("data"), list):
        raise UpstreamError(f"{backend.label} answered something that is no list of embeddings")
    told = usage_of(found)
    return cost_usd(told, backend.price) if told and backend.price else _estimated_usd(backend, body)


def _estimated_usd(backend: Backend, body: Mapping[str, Any]) -> Decimal:
    guess = Usage(input_tokens=len(orjson.dumps(body["input"])) // 4, estimated=True)
    return cost_usd(guess, backend.price) if backend.price else Decimal(0)
