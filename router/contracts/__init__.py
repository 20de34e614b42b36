"""The only types that serving and learning share: pydantic and the standard library, nothing heavier."""
