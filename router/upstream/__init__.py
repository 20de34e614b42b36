"""What answers for a tier: any OpenAI-compatible server as bytes, every other provider through litellm."""
