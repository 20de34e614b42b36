"""Responses that were kept: reading one, what it was asked, and deleting it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request

from router.api.responses.store import KeptResponse, ResponseStore
from router.api.responses.surface import PATH, Owner
from router.errors import BadRequest, NotStored


def routes(kept: ResponseStore, owner: Owner) -> APIRouter:
    router = APIRouter(prefix=PATH)

    async def found(response_id: str, request: Request) -> KeptResponse:
        one = await kept.get(response_id, owner(dict(request.headers.raw)))
        if one is None:
            raise _unknown(response_id)
        return one

    @router.get("/{response_id}")
    async def retrieve(response_id: str, request: Request, stream: bool = False) -> dict[str, Any]:
        if stream:
            raise BadRequest("only a response in the background could be streamed again", param="stream")
        return (await found(response_id, request)).response

    @router.delete("/{response_id}")
    async def delete(response_id: str, request: Request) -> dict[str, Any]:
        """Responses that go on from it cannot be gone on with any more: what was said is not all there."""
        if not await kept.delete(response_id, owner(dict(request.headers.raw))):
            raise _unknown(response_id)
        return {"id": response_id, "object": "response.deleted", "deleted": True}

    @router.get("/{response_id}/input_items")
    async def input_items(
        response_id: str,
        request: Request,
        order: Literal["asc", "desc"] = "desc",
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        after: str | None = None,
    ) -> dict[str, Any]:
        """The request's own items, without those of the responses before it."""
        items = (await found(response_id, request)).input
        items = items if order == "asc" else items[::-1]
        ids = [item["id"] for item in items]
        if after is not None and after not in ids:
            raise NotStored(f"Item with id '{after}' not found.", param="after")
        start = ids.index(after) + 1 if after is not None else 0
        page = items[start : start + limit]
        return {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": start + limit < len(items),
        }

    return router


def _unknown(response_id: str) -> NotStored:
    return NotStored(f"Response with id '{response_id}' not found.")
