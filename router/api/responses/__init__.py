"""OpenAI's Responses over the cascade: what was said is kept here, so any model can go on with it."""
