"""``POST /v1/messages/count_tokens``: how long a request is, before it is sent."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import orjson

from router.api.entrance import Arrived
from router.api.messages.request import chat_of
from router.api.models import Catalog
from router.aside import aside
from router.bodies import json_object
from router.exchange import JSON
from router.scoring.features import extract


class CountTokens:
    """An estimate, the one that routing goes by: four bytes of text or of a tool's definition a token, a fixed
    number an image; a PDF counts nothing. Which model will answer, and so whose tokens they would be, is not
    known before the request is routed."""

    def __init__(self, catalog: Callable[[], Catalog]) -> None:
        self._catalog = catalog

    async def __call__(self, arrived: Arrived) -> None:
        headers = [(b"x-locum-request-id", arrived.request_id.encode()), *JSON]
        count = await aside(partial(self._count, arrived.content), len(arrived.content))
        await arrived.sink.whole(200, headers, orjson.dumps({"input_tokens": count}))

    def _count(self, content: bytes) -> int:
        chat = chat_of(json_object(content), counting=True)
        self._catalog().resolve(chat["model"])
        return extract(chat).input_tokens
