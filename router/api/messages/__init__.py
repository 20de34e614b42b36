"""Anthropic's Messages API over the cascade: ``POST /v1/messages`` and ``/v1/messages/count_tokens``.

Claude gets a request as it came (``router.backends.anthropic``), and its answer comes back as it is. For other
models both are translated, and the translation is our own. litellm has one too (its adapters for Anthropic's
pass-through), but it takes 2.5 s to import, works on litellm's own answer objects rather than on a chat
answer's bytes, and loses things that clients rely on: ``is_error`` of a tool's result, which stop sequence
ended an answer.

What a request cannot have here, because only Anthropic's own servers can do it, is refused by name
(server tools, the Files API, MCP servers): with a Claude teacher too, since they spend what no budget sees. What merely
tunes those servers is left out for other models (see ``request.DROPPED``), and for Claude what would choose another
model, place or price.
"""

from router.api.messages.errors import error_shape
from router.api.messages.surface import COUNT_PATH, DOCUMENT, PATH, CountTokens, Messages, telling_request_id

__all__ = ["COUNT_PATH", "DOCUMENT", "PATH", "CountTokens", "Messages", "error_shape", "telling_request_id"]
