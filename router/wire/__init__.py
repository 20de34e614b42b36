"""OpenAI's chat wire as values: bodies, events, answers put together."""
