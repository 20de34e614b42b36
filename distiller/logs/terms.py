"""Whose answers may be trained on, as far as a model's name tells, or who sold them. Terms change: what counts is what
the user says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distiller.logs.values import mapping
from router.contracts.records import Rights

FORBIDDEN = {
    "OpenAI": ("gpt-", "chatgpt", "o1", "o3", "o4", "openai/", "azure/", "text-davinci"),
    "Anthropic": ("claude", "anthropic/"),
    "Google": ("gemini", "vertex_ai/", "google/"),
    "xAI": ("grok", "xai/"),
}
"""Those whose terms forbid to train what competes with them, with how their models' names begin."""


FLAGS = ("is_trainable_text", "distillable", "is_distillable")
"""OpenRouter's word on a model: true or false, null where it does not know."""
POLICIES = ("distillationPolicy", "distillation_policy", "training_rights")
"""NanoGPT's (an object with a ``status``), and ours."""
NOTHING: Mapping[str, Any] = {}
_WORDS = {
    "allowed": Rights.ALLOWED, "true": Rights.ALLOWED, "disallowed": Rights.FORBIDDEN, "forbidden": Rights.FORBIDDEN,
    "false": Rights.FORBIDDEN,
}  # fmt: skip


def told_rights(*places: Mapping[str, Any], metadata: Mapping[str, Any] = NOTHING) -> tuple[Rights, str] | None:
    """(what a log itself says of an answer's rights, by which field); None where it says nothing. Of several words the
    strictest counts. ``metadata`` its clients write: by that nothing is allowed."""
    found = [told] if metadata and (told := told_rights(metadata)) and told[0] is Rights.FORBIDDEN else []
    for place in places:
        for name in (*FLAGS, *POLICIES):
            said = place.get(name)
            word = mapping(said).get("status") if name in POLICIES and mapping(said) else said
            if (rights := _WORDS.get(str(word).lower())) is not None:
                found.append((rights, name))
    return min(found, key=lambda one: one[0] is Rights.ALLOWED, default=None)


def provider_of(model: str) -> str | None:
    """The provider in ``FORBIDDEN`` whose model this is, whoever sells it; None for any other's."""
    parts = model.lower().split("/")
    names = ("/".join(parts[i:]) for i in range(len(parts)))
    whole = [*names, *(part.split(".", 1)[-1] for part in parts)]
    found = (who for who, begins in FORBIDDEN.items() if any(name.startswith(begins) for name in whole))
    return None if "gpt-oss" in model.lower() else next(found, None)


def rights_of(model: str, told: tuple[Rights, str] | None = None) -> Rights:
    """``forbidden`` where that is known of the provider, whatever else was ``told``; then what was; else ``unknown``:
    the ledger's words."""
    if provider_of(model):
        return Rights.FORBIDDEN
    return Rights.UNKNOWN if told is None else told[0]


def why(model: str) -> str:
    """The same in words."""
    if who := provider_of(model):
        return f"{who}'s terms forbid to train models that compete with theirs"
    return "read its licence or terms; open weights under Apache-2.0 or MIT usually allow it"
