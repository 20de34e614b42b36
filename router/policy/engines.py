"""The engines that a student is served by, a row each: which forms of weights one reads, what it heeds of a request;
and what scorers read text with."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from router.contracts.bundles import FormName

GgufForm = Literal["q8_0", "q4_0"]
FormChoice = Literal["auto", "bf16", "int8", "q8_0", "q4_0"]
GGUF_FORMS: tuple[GgufForm, ...] = get_args(GgufForm)

EncoderKind = Literal["static", "transformer"]
"""``static``: a table of token vectors, distilled from all-MiniLM-L6-v2; ``transformer``: that model itself."""

EngineName = Literal["embedded", "llama-server", "head"]

UNSAYING = frozenset(
    {
        "metadata", "model", "parallel_tool_calls", "prediction", "prompt_cache_key", "prompt_cache_options",
        "prompt_cache_retention", "safety_identifier", "service_tier", "store", "stream", "stream_options", "user",
    }
)  # fmt: skip
"""Fields that never change what an answer says. ``parallel_tool_calls`` says something only beside
``tools``, which speak for themselves; ``prediction`` makes an answer faster, not another."""

SAMPLING = frozenset({"min_p", "seed", "temperature", "top_k", "top_p", "typical_p"})
"""Fields by which a client says how an answer is drawn."""

UNSHAPING = UNSAYING | {"logprobs", "messages", "n", "priority", "top_logprobs"}
"""Fields that shape no single answer to the messages."""

_SHARED = UNSAYING | {
    "frequency_penalty", "logprobs", "max_completion_tokens", "max_tokens", "messages", "presence_penalty",
    "response_format", "seed", "stop", "temperature", "tools", "top_logprobs", "top_p",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class EngineTraits:
    """What is to know of an engine before any runs. ``forms`` of weights that it reads, the first is what ``auto``
    means; ``heeds``: fields of a request, None where that is its server's matter; ``gguf``: it serves a file of that
    kind, else a folder; ``prioritises``: it heeds ``priority``; ``literal``: a control token's name in a text is text
    to it, where others let a client end its own turn with it; ``generates``: it is a language model, which a process of
    its own serves; ``streams_calls``: with tools in a stream it tells of its tokens' probabilities, by which an answer
    is accepted."""

    forms: tuple[FormName, ...]
    heeds: frozenset[str] | None
    gguf: bool = False
    prioritises: bool = False
    literal: bool = False
    generates: bool = True
    streams_calls: bool = True


ENGINES: Mapping[EngineName | None, EngineTraits] = {
    "embedded": EngineTraits(
        ("bf16", "int8"), _SHARED | {"n", "priority", "tool_choice"}, prioritises=True, literal=True
    ),
    "llama-server": EngineTraits(
        GGUF_FORMS,
        _SHARED | {
            "chat_template_kwargs", "dynatemp_exponent", "dynatemp_range", "grammar", "json_schema", "min_p",
            "mirostat", "mirostat_eta", "mirostat_tau", "repeat_last_n", "repeat_penalty",
            "top_k", "typical_p",
        },
        gguf=True,
        streams_calls=False,
    ),
    "head": EngineTraits(
        ("f32",),
        _SHARED - {"logprobs", "top_logprobs"} | SAMPLING | {"functions", "reasoning_effort", "tools", "verbosity"},
        literal=True,
        generates=False,
    ),
    None: EngineTraits(("bf16",), None),
}  # fmt: skip
"""A row each; None: a student by URL. ``head``: label heads, whose answers are the teacher's own, so that how one is
drawn or thought about says nothing to them. llama-server's fields are by its documentation; newer ones answer ``n``,
older ones fail. Who starts each is in ``router.engine.supervisor``."""


def form_of(engine: EngineName | None, choice: FormChoice) -> FormName:
    """The form that a policy's choice means for its engine.

    Raises:
        ValueError: the engine does not read it; the message says which it reads.
    """
    forms = ENGINES[engine].forms
    if choice == "auto":
        return forms[0]
    if choice not in forms:
        reader = f"the engine {engine} reads" if engine else "a student by URL is published as"
        raise ValueError(f"form {choice}: {reader} {' or '.join(forms)}; leave 'form' out, or choose one of these")
    return choice


def gguf_form(form: FormName) -> GgufForm:
    """The kind of GGUF file that goes with a form: another engine's beside it is ``q8_0``."""
    return next((kind for kind in GGUF_FORMS if kind == form), GGUF_FORMS[0])


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
class HeededFields:
    """Which fields one student heeds. ``known``: all that it does, None where that is not known, and
    ``unfit`` what it does not either way."""

    known: frozenset[str] | None
    unfit: frozenset[str]

    def shaping(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Of a request, what shapes this student's answer beside the messages: its form, limits, sampling."""
        unfit = self.unfit | UNSHAPING
        known = self.known
        return {k: v for k, v in body.items() if v is not None and k not in unfit and (known is None or k in known)}

    def unheeded(self, body: Mapping[str, Any]) -> str | None:
        """The first field, by name, that is asked for and would be dropped; None for almost every request."""
        beyond: Collection[str] = ()
        if self.known is not None:
            if not self.known.issuperset(body):
                beyond = body.keys() - self.known
        elif not self.unfit.isdisjoint(body):
            beyond = self.unfit & body.keys()
        return min((field for field in beyond if asks(field, body[field])), default=None) if beyond else None


def heeded_by(engine: EngineName | None, unfit: Collection[str] = (), ignored: Collection[str] = ()) -> HeededFields:
    """What a student heeds: by its engine (None: a student by URL), less ``unfit``, and as if it did what
    it is declared to ignore.

    ``logit_bias`` is heeded by none: its token ids are those of the model that the client thinks it asks.
    """
    lacks = (frozenset(unfit) | {"logit_bias"}) - frozenset(ignored)
    heeds = ENGINES[engine].heeds
    return HeededFields(None if heeds is None else (heeds | frozenset(ignored)) - lacks, lacks)


def asks(field: str, value: Any) -> bool:
    """Whether a field with this value asks for anything: null, empty and default values do not."""
    return value not in _NOTHING and value not in IDLE.get(field, ())
