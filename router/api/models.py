"""``GET /v1/models``: what a client may put into ``model``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter

from router.served.catalog import Catalog


def routes(catalog: Callable[[], Catalog]) -> APIRouter:
    router = APIRouter(prefix="/v1/models")

    @router.get("")
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": catalog().listed()}

    @router.get("/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        return catalog().entry(name)

    return router
