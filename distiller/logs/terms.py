"""Whose answers may be trained on, as far as a model's name tells. Terms change: what counts is what the user says."""

from __future__ import annotations

from router.contracts.records import Rights

FORBIDDEN = {
    "OpenAI": ("gpt-", "chatgpt", "o1", "o3", "o4", "openai/", "azure/", "text-davinci"),
    "Anthropic": ("claude", "anthropic/"),
    "Google": ("gemini", "vertex_ai/", "google/"),
    "xAI": ("grok", "xai/"),
}
"""Those whose terms forbid to train what competes with them, with how their models' names begin."""


def provider_of(model: str) -> str | None:
    """The provider in ``FORBIDDEN`` whose model this is, whoever sells it; None for any other's."""
    parts = model.lower().split("/")
    names = ("/".join(parts[i:]) for i in range(len(parts)))
    whole = [*names, *(part.split(".", 1)[-1] for part in parts)]
    found = (who for who, begins in FORBIDDEN.items() if any(name.startswith(begins) for name in whole))
    return None if "gpt-oss" in model.lower() else next(found, None)


def rights_of(model: str) -> Rights:
    """``forbidden`` where that is known of the provider, else ``unknown``: the ledger's words."""
    return Rights.FORBIDDEN if provider_of(model) else Rights.UNKNOWN


def why(model: str) -> str:
    """The same in words."""
    if who := provider_of(model):
        return f"{who}'s terms forbid to train models that compete with theirs"
    return "read its licence or terms; open weights under Apache-2.0 or MIT usually allow it"
