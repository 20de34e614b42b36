"""Everything that asks a model: any OpenAI-compatible server as bytes, Claude natively, every other provider through
litellm."""
