"""Web pages of other origins, which may ask from within a browser where the settings name them (CORS). A request says
for which policy it is in its body, which a browser asks about before it sends it: so this is the proxy's setting, not a
policy's."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware

from router.api.asgi import Asgi

METHODS = ("GET", "POST", "DELETE")
KNOWN_SECONDS = 600
TOLD = (
    *(
        f"x-locum-{name}"
        for name in ("request-id", "tier", "reason", "policy", "bundle", "score", "threshold", "worth")
    ),
    *(f"x-locum-{name}" for name in ("cost-usd", "saved-usd", "dropped", "warning")),
    *("request-id", "x-request-id", "retry-after", "accept-encoding", "openai-processing-ms", "openai-version"),
    *(f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")),
    *(
        f"anthropic-ratelimit-{of}-{what}"
        for of in ("requests", "tokens", "input-tokens", "output-tokens")
        for what in ("limit", "remaining", "reset")
    ),
)
"""The headers that a page may read."""


def shared_with(origins: Sequence[str], app: Asgi) -> Asgi:
    """The application, for pages of these origins too. No cookies go with their requests: a page shows a key, or none
    is asked for."""
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=METHODS,
        allow_headers=["*"],
        expose_headers=TOLD,
        max_age=KNOWN_SECONDS,
    )
