"""``POST /v1/feedback``: a client's word on an answer that it had, joined to that request's record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from router.api.asgi import Arrival
from router.api.schemas import NAME, TEXT, Operation, record
from router.backends.base import Reply
from router.cascade.exchange import Services
from router.contracts.records import Record
from router.errors import BadRequest, NotFound
from router.metrics.labels import FeedbackWord
from router.store.base import Store
from router.wire.body import json_object
from router.wire.chat import JSON

PATH = "/v1/feedback"

SHARE = {"type": "number", "minimum": 0, "maximum": 1}
WORD = [
    record("score", score=SHARE, verdict={"type": "null"}),
    record("verdict", verdict={"enum": ["good", "neutral", "bad"]}, score={"type": "null"}),
]
FEEDBACK = record("object", "request_id", "score", object={"const": "feedback"}, request_id=TEXT, score=SHARE)
DOCUMENT = {
    PATH: Operation(
        "Feedback on an answer",
        ("FeedbackRequest", lambda _: record("request_id", request_id=NAME) | {"oneOf": WORD}),
        ("Feedback", FEEDBACK),
    )
}

MAX_BODY_BYTES = 64 * 2**10
MAX_ID_CHARS = 64
AT_ONCE = 8
"""Records looked up at a time: whoever floods this keeps only others' feedback waiting."""
LATER_SECONDS = 0.1
SCORES: Mapping[FeedbackWord, float] = {"good": 1.0, "neutral": 0.5, "bad": 0.0}


class UnknownRequest(NotFound):
    code = "request_not_found"


class FeedbackEndpoint:
    """Takes feedback, from whoever had the answer. Of several on one request the last one holds, and only it is
    kept; saying it again changes and counts nothing."""

    def __init__(self, shared: Callable[[], Services]) -> None:
        self._shared, self._looking = shared, asyncio.Semaphore(AT_ONCE)

    async def __call__(self, arrived: Arrival) -> Reply:
        """Raises BadRequest, and UnknownRequest where no record of this client's has the id."""
        body, shared = json_object(arrived.content), self._shared()
        about, score = body.get("request_id"), score_of(body)
        if not isinstance(about, str) or not about:
            raise BadRequest(
                "'request_id' must be given: the header x-locum-request-id of the answer", param="request_id"
            )
        async with self._looking:
            record = await _record(shared.store, about, arrived.owner)
        if record.feedback != score:
            shared.store.amend(about, feedback=score)
            shared.metrics.observe_feedback(record.policy, verdict_of(score))
            await shared.store.flush()  # told, so kept: the next word may reach another process
        told = {"object": "feedback", "request_id": about, "score": score}
        return Reply(200, orjson.dumps(told), tuple(JSON))


def score_of(body: Mapping[str, Any]) -> float:
    """How good the client found the answer, 0 to 1.

    Raises:
        BadRequest: it says neither a score nor a verdict, or both.
    """
    score, verdict = body.get("score"), body.get("verdict")
    if (score is None) == (verdict is None):
        raise BadRequest("give one of 'score' (0 to 1) and 'verdict' (good, neutral or bad)", param="score")
    if verdict is not None:
        if verdict not in tuple(SCORES):  # compared, not hashed: it may be a list
            raise BadRequest("'verdict' must be good, neutral or bad", param="verdict")
        return SCORES[verdict]
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        raise BadRequest("'score' must be a number from 0 to 1", param="score")
    return float(score)


def verdict_of(score: float) -> FeedbackWord:
    """A score in one word, for metrics."""
    if score == 0.5:
        return "neutral"
    return "good" if score > 0.5 else "bad"


async def _record(store: Store, request_id: str, owner: str) -> Record:
    """The owner's record, also where it is still on its way to the disk, in this process or in one beside it.

    Raises:
        UnknownRequest: there is none, or it is another's: the same is told of both, after the same time.
    """
    for pause in (0.0, LATER_SECONDS) if len(request_id) <= MAX_ID_CHARS else ():
        await asyncio.sleep(pause)
        await store.flush()
        found = await asyncio.to_thread(store.get, request_id)
        if found is not None and owner in ("", found.owner):
            return found
    raise UnknownRequest(f"no request {request_id[:MAX_ID_CHARS]!r} is on record", param="request_id")
