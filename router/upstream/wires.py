"""All wires, and which of them asks a backend."""

from __future__ import annotations

from router.upstream.anthropic import AnthropicWire
from router.upstream.base import Backend, Dialect, Upstream
from router.upstream.litellm_wire import LiteLLMWire
from router.upstream.openai_wire import OpenAIWire


class Wires:
    """One of each kind, over one pool of connections. Build it inside a running event loop."""

    def __init__(self) -> None:
        self.openai = OpenAIWire()
        self._anthropic: Upstream = AnthropicWire(self.openai)
        self._litellm: Upstream = LiteLLMWire()

    def to(self, backend: Backend) -> Upstream:
        """What speaks to the backend."""
        if backend.url is None:
            return self._litellm
        return self._anthropic if backend.dialect is Dialect.ANTHROPIC else self.openai

    async def close(self) -> None:
        await self._litellm.close()
        await self.openai.close()
