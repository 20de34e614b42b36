"""Anthropic's own wire: Messages, natively. Claude's clients are passed through in their own words; what other
clients ask is translated, and so is every answer, for records, judges and training."""

from router.backends.anthropic.wire import AnthropicWire, base_url

__all__ = ["AnthropicWire", "base_url"]
