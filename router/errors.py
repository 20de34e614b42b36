"""One exception tree. Each class knows its HTTP status and its body in OpenAI's error shape.

LocumError                     500  api_error
├── SettingsError                   the environment says something that cannot be (start-up)
├── PolicyError                     a policy file is wrong (start-up and reload; never a client's fault)
├── BundleError                     a bundle is incomplete, damaged or does not fit
├── EngineError                     the student's engine cannot be started or built
├── JudgeError                      a judge did not answer, or what people judged cannot be read
├── DatasetError                    a dataset cannot be read, or not be exported to the form asked for
├── TrainingError                   a student cannot be trained, or not be exported to the form asked for
├── StoreError                      the records cannot be opened, or a newer version wrote them
├── UpstreamRefused                 a backend found the request wrong (4xx): its own words go to the client
│   └── UpstreamUnable              the same of this backend alone: another one may take it as it is
├── BadRequest                 400  invalid_request_error
│   ├── Unauthorized           401  invalid_api_key
│   ├── NotFound               404  model_not_found
│   ├── NotStored              404  (no code: OpenAI's has none) a response or an item of one
│   ├── PreviousNotStored      400  previous_response_not_found
│   ├── TooSlow                408  request_timeout
│   ├── TooLarge               413  request_too_large
│   ├── UnknownEncoding        415  unsupported_content_encoding
│   ├── HeadersTooLarge        431  headers_too_large
│   └── TooManyStreams         429  too_many_streams
└── UpstreamError              502  upstream_error
    ├── UpstreamUnusable            the proxy's account or the model there is at fault (402, 404, 410, 429)
    ├── UpstreamRateLimited    429  rate_limit_exceeded
    ├── UpstreamTimeout        504  upstream_timeout
    ├── TookTooLong            504  time_limit_exceeded
    ├── ShuttingDown           503  shutting_down
    ├── UpstreamBrokeOff            an error told in the middle of an answer: its own words go to the client
    ├── UpstreamUnreachable    503  upstream_unreachable
    ├── BudgetSpent            429  insufficient_quota
    └── CircuitOpen            503  circuit_open
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, ClassVar


class LocumError(Exception):
    """Anything Locum raises on purpose. ``str(error)`` is safe to show to a client: it holds no secret."""

    status: int = 500
    type: ClassVar[str] = "api_error"
    code: str | None = None

    def __init__(self, message: str, *, param: str | None = None, retry_after: str | None = None) -> None:
        """``retry_after``: what the header of this name says, where it is known when to ask again."""
        super().__init__(message)
        self.param, self.retry_after = param, retry_after

    def body(self) -> dict[str, Any]:
        """The body that OpenAI's clients parse into their own exception classes."""
        return {"error": {"message": str(self), "type": self.type, "param": self.param, "code": self.code}}

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that belong to the body."""
        return [(b"retry-after", self.retry_after.encode())] if self.retry_after else []


class SettingsError(LocumError):
    pass


class PolicyError(LocumError):
    pass


class BundleError(LocumError):
    pass


class EngineError(LocumError):
    pass


class JudgeError(LocumError):
    """No verdict, since the judge failed. ``usd``: what asking it cost all the same, in US dollars."""

    def __init__(self, message: str, *, usd: Decimal = Decimal(0)) -> None:
        super().__init__(message)
        self.usd = usd


class DatasetError(LocumError):
    pass


class TrainingError(LocumError):
    pass


class StoreError(LocumError):
    pass


class UpstreamRefused(LocumError):
    """A verdict on the request, not a failure of the backend: ``reply_*`` are its own words, as they came."""

    status = 400
    type = "invalid_request_error"
    usage: Mapping[str, Any] | None = None
    """What it told of tokens and money all the same."""

    def __init__(
        self, message: str, *, reply_status: int, reply_body: bytes, reply_headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        super().__init__(message)
        self.reply_status, self.reply_body, self.reply_headers = reply_status, reply_body, reply_headers


class UpstreamUnable(UpstreamRefused):
    """What this backend cannot take and another may: more context than it has, an image that it would have to fetch."""


class BadRequest(LocumError):
    status = 400
    type = "invalid_request_error"


class Unauthorized(BadRequest):
    status = 401
    code = "invalid_api_key"


class NotFound(BadRequest):
    status = 404
    code = "model_not_found"


class NotStored(BadRequest):
    status = 404


class PreviousNotStored(BadRequest):
    code = "previous_response_not_found"


class TooSlow(BadRequest):
    status = 408
    code = "request_timeout"


class UnknownEncoding(BadRequest):
    status = 415
    code = "unsupported_content_encoding"
    known = "zstd, br, gzip, deflate"

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"accept-encoding", self.known.encode())]


class TooLarge(BadRequest):
    status = 413
    code = "request_too_large"


class HeadersTooLarge(BadRequest):
    status = 431
    code = "headers_too_large"


class TooManyStreams(BadRequest):
    status = 429
    type = "rate_limit_error"
    code = "too_many_streams"


class UpstreamError(LocumError):
    """A backend gave no answer. ``passing``: it may give one in a moment, so that asking it again has a use; after
    ``wait_seconds``, where it said so."""

    status = 502
    type = "upstream_error"
    code = "upstream_error"
    passing = True
    usage: Mapping[str, Any] | None = None
    """What the backend told of tokens and money all the same."""
    words: dict[str, Any] | None = None
    """An ``error`` in OpenAI's shape, told instead of our own: where the wire knows that the client may see it."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        wait_seconds: float | None = None,
        passing: bool | None = None,
        said: bytes = b"",
    ) -> None:
        """``status`` and ``code``: what the client is told, where that is not the class's own. ``said``: what the
        backend said with it, for its wire and to learn from: it may quote a key, so nobody else is told."""
        super().__init__(message, retry_after=None if wait_seconds is None else str(math.ceil(wait_seconds)))
        self.wait_seconds, self.said = wait_seconds, said
        self.status = status or self.status
        self.code = code or self.code
        self.passing = self.passing if passing is None else passing

    def body(self) -> dict[str, Any]:
        return super().body() if self.words is None else {"error": self.words}


class UpstreamUnusable(UpstreamError):
    """No fault of the request nor of the moment: a key refused, an account without credit, a model that is gone."""

    code = "upstream_unusable"
    passing = False


class UpstreamBrokeOff(UpstreamError):
    """An error that a backend told in the middle of its answer."""

    passing = False

    def __init__(self, message: str, told: Mapping[str, Any]) -> None:
        """``told`` are its own words in OpenAI's shape, without any key."""
        super().__init__(message)
        self.told = told

    def body(self) -> dict[str, Any]:
        return {"error": {**self.told, "type": self.told.get("type") or self.type}}


class UpstreamRateLimited(UpstreamError):
    status = 429
    code = "rate_limit_exceeded"


class UpstreamTimeout(UpstreamError):
    status = 504
    code = "upstream_timeout"
    passing = False


class TookTooLong(UpstreamError):
    """One of the policy's own limits passed, whatever the backends were doing."""

    status = 504
    code = "time_limit_exceeded"


class ShuttingDown(UpstreamError):
    """This process ends: whoever asks again is answered by another one."""

    status = 503
    code = "shutting_down"
    passing = False

    def __init__(self) -> None:
        super().__init__("this proxy is shutting down; ask again", wait_seconds=1)

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*super().headers(), (b"connection", b"close")]


class UpstreamUnreachable(UpstreamError):
    status = 503
    code = "upstream_unreachable"


class BudgetSpent(UpstreamError):
    """A day's cap on money leaves no room for asking a backend. OpenAI's own type and code for that: clients know
    them."""

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"
    passing = False


class CircuitOpen(UpstreamError):
    status = 503
    code = "circuit_open"
    passing = False
