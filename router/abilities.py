"""What a student heeds of a request, field by field: what it cannot is the teacher's, never silently dropped.

The engines that Locum starts are closed: what is not named here they do not heed, whatever a client's
next version may ask for. A student by URL is open: its server gets every field, and the policy's
``unfit_for.fields`` names what it would drop. Heeding is about the answer: a field that can only change
what an answer costs, when it comes or how it is filed is nobody's ability.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

EngineName = Literal["embedded", "llama-server"]

UNSAYING = frozenset(
    {
        "metadata", "model", "parallel_tool_calls", "prediction", "prompt_cache_key", "prompt_cache_options",
        "prompt_cache_retention", "safety_identifier", "service_tier", "store", "stream", "stream_options", "user",
    }
)  # fmt: skip
"""Fields that never change what an answer says. ``parallel_tool_calls`` says something only beside
``tools``, which speak for themselves; ``prediction`` makes an answer faster, not another."""

_SHARED = UNSAYING | {
    "frequency_penalty", "logprobs", "max_completion_tokens", "max_tokens", "messages", "presence_penalty",
    "response_format", "seed", "stop", "temperature", "top_logprobs", "top_p",
}  # fmt: skip

HEEDED: Mapping[EngineName, frozenset[str]] = {
    "embedded": _SHARED | {"n", "priority"},
    "llama-server": _SHARED
    | {
        "chat_template_kwargs", "dynatemp_exponent", "dynatemp_range", "grammar", "json_schema", "min_p", "mirostat",
        "mirostat_eta", "mirostat_tau", "repeat_last_n", "repeat_penalty", "tools", "top_k", "typical_p",
    },
}  # fmt: skip
"""What each engine heeds. llama-server: by its documentation; newer ones answer ``n``, older ones fail."""

IDLE: Mapping[str, tuple[Any, ...]] = {
    "function_call": ("none", "auto"),
    "frequency_penalty": (0,),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "presence_penalty": (0,),
    "reasoning_effort": ("none", "minimal"),
    "response_format": ({"type": "text"},),
    "temperature": (1,),
    "tool_choice": ("none", "auto"),
    "top_logprobs": (0,),
    "top_p": (1,),
    "verbosity": ("medium",),
}
"""Values that ask for nothing: what happens without the field too."""

_NOTHING: tuple[Any, ...] = (None, "", [], {})


@dataclass(frozen=True, slots=True)
class Heeded:
    """Which fields one student heeds. ``known``: all that it does, None where that is not known, and
    ``unfit`` what it does not either way."""

    known: frozenset[str] | None
    unfit: frozenset[str]

    def unheeded(self, body: Mapping[str, Any]) -> str | None:
        """The first field, by name, that is asked for and would be dropped; None for almost every request."""
        beyond: Collection[str] = ()
        if self.known is not None:
            if not self.known.issuperset(body):
                beyond = body.keys() - self.known
        elif not self.unfit.isdisjoint(body):
            beyond = self.unfit & body.keys()
        return min((field for field in beyond if asks(field, body[field])), default=None) if beyond else None


def heeded_by(engine: EngineName | None, unfit: Collection[str] = (), ignored: Collection[str] = ()) -> Heeded:
    """What a student heeds: by its engine (None: a student by URL), less ``unfit``, and as if it did what
    it is declared to ignore.

    ``logit_bias`` is heeded by none: its token ids are those of the model that the client thinks it asks.
    """
    lacks = (frozenset(unfit) | {"logit_bias"}) - frozenset(ignored)
    return Heeded(None if engine is None else (HEEDED[engine] | frozenset(ignored)) - lacks, lacks)


def asks(field: str, value: Any) -> bool:
    """Whether a field with this value asks for anything: null, empty and default values do not."""
    return value not in _NOTHING and value not in IDLE.get(field, ())
