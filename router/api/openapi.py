"""``GET /openapi.json``: all that the proxy serves. Written by hand, since what is asked often is no FastAPI route;
a test holds the running proxy to it. What a surface takes and answers its own module says (``DOCUMENT``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import APIRouter

from router import __version__
from router.api import chat, completions, embeddings, feedback, messages
from router.api.responses import surface as responses
from router.api.schemas import NAME, OBJECT, TEXT, Operation, Schema, listed, record
from router.served.catalog import Catalog

ERRORS = {
    400: "The request is wrong; the message says what to change.",
    401: "The key is missing or wrong.",
    404: "Nothing has this name here.",
    413: "The body is too large.",
    429: "The provider limits the rate, or too many streams are open here.",
    431: "The headers are too large.",
    500: "An error inside the proxy.",
    502: "The provider failed.",
    503: "No provider can be reached.",
    504: "The provider did not answer in time.",
}
SURFACES: Mapping[str, Operation] = {
    **chat.DOCUMENT, **responses.DOCUMENT, **completions.DOCUMENT, **messages.DOCUMENT, **embeddings.DOCUMENT,
    **feedback.DOCUMENT,
}  # fmt: skip
"""All that is posted, by path."""

BESIDE: Mapping[str, Schema] = {
    "ResponseDeleted": record("id", "deleted", id=TEXT, deleted={"const": True}),
    "Items": record("object", "data", object={"const": "list"}, data=listed(OBJECT)),
    "Model": record(
        "id", "object", "created", "owned_by",
        id=TEXT, object={"const": "model"}, created={"type": "integer"}, owned_by=TEXT,
    ),
    "Models": record("object", "data", object={"const": "list"}, data=listed({"$ref": "#/components/schemas/Model"})),
    "Event": record("data", data=TEXT, event=TEXT) | {"description": "One event of the stream."},
    "Live": record("status", status={"const": "live"}),
    "Ready": record("status", "policies", status={"enum": ["ready", "unready"]}, policies=listed(OBJECT)),
}  # fmt: skip
"""What no surface has for itself."""

LOOKING_UP = (401, 404, 500)
ASKING = tuple(ERRORS)

TOLD = {
    "x-locum-request-id": "Names the request, in the records and for `/v1/feedback`.",
    "x-locum-policy": "The policy that it fell under.",
    "x-locum-tier": "Who answered: student or teacher.",
    "x-locum-reason": "Why it went there.",
    "x-locum-bundle": "The bundle that was live, or `base`.",
    "x-locum-score": "The probability that the student's answer is acceptable.",
    "x-locum-worth": "What escalating gains for its cost, 0 to 1, high for the student; where it is not the score "
    "that a share or a day's money is decided by.",
    "x-locum-threshold": "The score, or worth, from which on the student serves.",
    "x-locum-cost-usd": "What the answer cost, in US dollars; not told at the head of a stream.",
    "x-locum-dropped": "What of a Responses request no model was shown: hosted tools, items of unknown types.",
    "x-locum-saved-usd": "What the teacher alone would have cost more; may be negative.",
}
STEERING = [
    {
        "name": "x-locum-tier", "in": "header", "schema": {"enum": ["student", "teacher"]},
        "description": "Forces a tier.",
    },
    {
        "name": "x-locum-conversation", "in": "header", "schema": {"type": "string"},
        "description": "Names the conversation; by default its opening does.",
    },
]  # fmt: skip
PAGING = [
    {"name": "after", "in": "query", "schema": {"type": "string"}},
    {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}},
    {"name": "order", "in": "query", "schema": {"enum": ["asc", "desc"], "default": "desc"}},
]

REPLAYED = {
    "name": "stream", "in": "query", "schema": {"enum": [False], "default": False},
    "description": "Only false: what was kept is not streamed again.",
}  # fmt: skip


def routes(catalog: Callable[[], Catalog]) -> APIRouter:
    router = APIRouter()

    @router.get("/openapi.json")
    async def describe() -> dict[str, Any]:
        return document(str(catalog().listed()[0]["id"]))

    return router


def document(name: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document. ``name`` is a model that there is, for the examples."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Locum",
            "version": __version__,
            "description": "OpenAI's and Anthropic's wire in front of a student and a teacher. "
            "Fields that are not described here pass through, both ways.",
        },
        "paths": {path: {"post": _posted(said)} for path, said in SURFACES.items()} | _looking() | _running(),
        "components": {
            "schemas": _schemas(name),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _schemas(name: str) -> dict[str, Schema]:
    """``name`` is a model that there is."""
    described = "A policy's name or alias, as `GET /v1/models` lists them."
    model: Schema = {**NAME, "description": described, "examples": [name]}
    found = dict(BESIDE)
    for said in SURFACES.values():
        asked, made = said.asked
        found |= {asked: made(model), **dict((said.answered, said.error))}
    return found


def _looking() -> dict[str, Any]:
    """What was kept, and what there is to ask for."""
    kept = [_in_path("response_id")]
    return {
        "/v1/responses/{response_id}": {
            "get": _got("A response that was kept", "Response", [*kept, REPLAYED], also=(400,)),
            "delete": _got("Deletes a response that was kept", "ResponseDeleted", kept),
        },
        "/v1/responses/{response_id}/input_items": {
            "get": _got("What a response was asked", "Items", [*kept, *PAGING], also=(400,))
        },
        "/v1/models": {"get": _got("The names that `model` can have", "Models")},
        "/v1/models/{model}": {"get": _got("One of these names; it may hold slashes", "Model", [_in_path("model")])},
    }


def _running() -> dict[str, Any]:
    """What supervisors look at. It needs no key."""
    ready, exposed = _json("Ready"), {"text/plain": {"schema": {"type": "string"}}}
    described = {"description": "This document.", "content": {"application/json": {"schema": {"type": "object"}}}}
    return {
        "/health/live": {"get": _open("The process runs", {"200": _answer("It does.", _json("Live"))})},
        "/health/ready": {
            "get": _open(
                "Which tiers can answer",
                {
                    "200": _answer("Every policy has a tier that can answer.", ready),
                    "503": _answer("Some policy has none.", ready),
                },
            )
        },
        "/metrics": {"get": _open("Metrics for Prometheus", {"200": _answer("The metrics.", exposed)})},
        "/openapi.json": {"get": _open("This document", {"200": described})},
    }


def _posted(said: Operation) -> Schema:
    content, streams = _json(said.answered[0]), said.streams
    if streams:
        content |= {"text/event-stream": {"schema": {"$ref": "#/components/schemas/Event"}}}
    good = _answer("The answer; a stream where `stream` is true." if streams else "The answer.", content)
    good["headers"] = {name: {"schema": {"type": "string"}, "description": text} for name, text in TOLD.items()}
    refused = _answer("The provider refused the request; these are its own status and words.", {"*/*": {"schema": {}}})
    return {
        "summary": said.summary,
        "security": [{"bearer": []}, {"x-api-key": []}, {}],
        "parameters": STEERING if streams else [],
        "requestBody": {"required": True, "content": _json(said.asked[0])},
        "responses": {"200": good, **_errors(ASKING, said.error[0]), "4XX": refused},
    }


def _got(summary: str, answered: str, parameters: list[Schema] | None = None, also: tuple[int, ...] = ()) -> Schema:
    return {
        "summary": summary,
        "security": [{"bearer": []}, {"x-api-key": []}, {}],
        "parameters": parameters or [],
        "responses": {"200": _answer("It.", _json(answered)), **_errors((*LOOKING_UP, *also), "Error")},
    }


def _open(summary: str, responses: dict[str, Schema]) -> Schema:
    return {"summary": summary, "security": [], "responses": responses}


def _errors(statuses: tuple[int, ...], shape: str) -> dict[str, Schema]:
    return {str(status): _answer(ERRORS[status], _json(shape)) for status in sorted(statuses)}


def _answer(description: str, content: Schema) -> Schema:
    return {"description": description, "content": content}


def _json(schema: str) -> Schema:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _in_path(name: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
