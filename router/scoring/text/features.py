"""What a request looks like: its text in windows, and its structure as numbers.

``extract`` reads the parsed body of a chat-completions request once; it never raises for a malformed
message (that is the wire's business) but reads what it can. Every turn is seen: lengths and character
classes count all of the text. What is embedded and hashed is bounded so that a decision's cost is:
``USER_WINDOW`` characters of the last user turn and ``CONTEXT_WINDOW`` of all that came before it,
each from head and tail in equal parts, so that nothing is cut without its end being seen.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

FEATURES_VERSION = "2"
USER_WINDOW = 2048
CONTEXT_WINDOW = 1024
COUNTED_WINDOW = 2**18
"""Characters in which classes and signs are counted: no model reads more, and a client may send any number."""
IMAGE_TOKENS = 765
"""What a 1024 x 1024 image counts as input (OpenAI's tiles: 85 + 4 x 170)."""

QUESTIONS: Mapping[str, frozenset[str]] = {
    "reason": frozenset({"why", "how", "explain", "prove", "derive", "show", "reason"}),
    "fact": frozenset({"what", "which", "who", "when", "where"}),
    "yes_no": frozenset({"is", "are", "does", "do", "did", "can", "could", "should", "will"}),
    "count": frozenset({"many", "much", "calculate", "compute", "total", "sum", "average", "percent"}),
    "extract": frozenset({"extract", "classify", "label", "name", "list", "find", "identify", "route"}),
    "rewrite": frozenset({"translate", "summarize", "summarise", "rewrite", "paraphrase", "shorten"}),
    "create": frozenset({"write", "create", "draft", "compose", "generate", "design", "plan", "story"}),
    "code": frozenset({"function", "code", "python", "sql", "bug", "class", "implement", "regex"}),
}
"""Cue words of what is asked, looked for in the last user turn's window."""

CLASSES: Mapping[str, frozenset[int]] = {
    "digit": frozenset(b"0123456789"),
    "upper": frozenset(range(65, 91)),
    "space": frozenset(b" \t"),
    "newline": frozenset(b"\n"),
    "punctuation": frozenset(b".,;:!?'\"-"),
    "question_mark": frozenset(b"?"),
    "bracket": frozenset(b"{}[]()<>"),
    "code": frozenset(b"{};=_#|&@`$\\"),
    "maths": frozenset(b"+*/^=%<>"),
}
"""Classes of bytes, as shares of the last user turn."""

SCRIPTS: Mapping[str, frozenset[int]] = {
    "latin": frozenset([*range(65, 91), *range(97, 123), *range(0xC3, 0xCA)]),
    "greek": frozenset({0xCE, 0xCF}),
    "cyrillic": frozenset(range(0xD0, 0xD4)),
    "hebrew": frozenset({0xD6, 0xD7}),
    "arabic": frozenset(range(0xD8, 0xDC)),
    "indic": frozenset({0xE0}),
    "cjk": frozenset(range(0xE3, 0xEA)),
    "hangul": frozenset(range(0xEA, 0xEE)),
    "emoji": frozenset({0xF0}),
}
"""Writing systems by the first byte of a character in UTF-8: each block has lead bytes of its own."""

STRUCTURE = (
    "log_user_chars", "log_context_chars", "log_turns", "log_mean_word", "log_lines",
    "images", "audio", "log_tools", "json", "schema", "log_max_tokens", "several", "log_code_fences",
    "log_numbers", "log_sentences", "log_longest_sentence", "log_different_numbers", "longest_number", "log_decimals",
    "log_commas", "log_questions", "log_backslashes",
    *(f"asks_{q}" for q in QUESTIONS), *(f"share_{c}" for c in CLASSES), *(f"script_{s}" for s in SCRIPTS),
)  # fmt: skip
"""The names of ``Features.structure``, in order."""

F32 = npt.NDArray[np.float32]

_WORD = re.compile(r"[^\W\d_]+")
_NUMBER = re.compile(r"\d[\d.,]*")
_SENTENCE = re.compile(r"[.!?;:。！？\n](?:(?<=\n)|(?=\s|$))")  # one set of characters first: found fastest
_STOP_WORDS: Mapping[str, str] = {
    "en": "the is are to and of my what how it you for with this was have not",
    "de": "der die das und ist ich nicht ein eine wie mit für auf den zu wird habe",
    "fr": "le la les et est je pas un une des que pour dans vous mon qui avec du",
    "es": "el la los las y es no un una de que por para con mi cómo qué se del",
    "it": "il lo la gli e è non un una di che per con mio come sono del della",
    "pt": "o os as e é não um uma de que por para com meu como em do da ao",
    "nl": "de het een en is niet ik van met op voor mijn hoe dat zijn naar",
}
_LANGUAGE_OF_SCRIPT = {
    "greek": "el", "cyrillic": "ru", "hebrew": "he", "arabic": "ar", "indic": "hi", "hangul": "ko",
}  # fmt: skip


class RequestShape(NamedTuple):
    """What tells requests of one template from others beside their words. ``tools`` are their names; ``form`` is the
    answer's form that is asked for, with a schema's name."""

    continued: bool = False
    images: bool = False
    tools: tuple[str, ...] = ()
    form: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """One request, read. ``structure``: float32, (len(STRUCTURE),).

    ``context`` is all text before the last user turn: system messages, then earlier turns.
    ``user_window`` and ``context_window`` are what the scorer reads of ``last_user`` and ``context``.
    ``input_tokens`` is an estimate (four bytes a token), tools and images included. ``task`` is the client's own
    tag for what this is (``metadata.task``), ``""`` without one. ``system`` is the system prompt alone.
    """

    last_user: str
    context: str
    user_window: str
    context_window: str
    input_tokens: int
    turns: int
    has_images: bool
    has_audio: bool
    has_tools: bool
    wants_json: bool
    wants_schema: bool
    task: str
    structure: F32
    system: str
    shape: RequestShape

    @property
    def text(self) -> str:
        """All text: system, earlier turns, last user turn."""
        return f"{self.context}\n{self.last_user}" if self.context else self.last_user

    @property
    def script(self) -> str:
        """The writing system of most of the last user turn (a key of SCRIPTS); ``""`` without letters."""
        shares = self.structure[-len(SCRIPTS) :]
        return list(SCRIPTS)[int(shares.argmax())] if shares.any() else ""

    @property
    def language(self) -> str:
        """A guess at the last user turn's language, ISO 639-1, from script and stop words; ``""``: unsure."""
        if (script := self.script) != "latin":
            if script == "cjk":
                return "ja" if re.search("[\u3040-\u30ff]", self.user_window) else "zh"
            return _LANGUAGE_OF_SCRIPT.get(script, "")
        words = Counter(_WORD.findall(self.user_window.lower()))
        votes = {code: sum(map(words.__getitem__, stops & words.keys())) for code, stops in _stop_words().items()}
        best = max(votes, key=votes.__getitem__)
        return best if votes[best] else ""


def extract(body: Mapping[str, Any]) -> Features:
    """Reads a parsed chat-completions request: JSON's own types, objects as ``dict`` and arrays as ``list``."""
    messages = _list(body.get("messages"))
    texts, parts, last = _texts(messages)
    turns, last_user = len(texts), texts.pop(last) if texts else ""
    context = "\n".join(filter(None, texts))
    counted = window(last_user, COUNTED_WINDOW)
    raw = counted.encode("utf-8", "replace")
    kinds = [p.get("type") for p in parts]
    images, audio = kinds.count("image_url"), "input_audio" in kinds
    tools = _list(body.get("tools")) or _list(body.get("functions"))
    json, schema = _form(body)
    user_window = window(last_user, USER_WINDOW)
    shares, separators, newlines = _counted(raw)
    log = math.log1p
    numbers = [
        log(len(last_user)), log(len(context)), log(turns), log(len(raw) / (1 + separators)), log(1 + newlines),
        images > 0, audio, log(len(tools)), json, schema, *_limits(body),
        log(_fences(counted) + _fences(window(context, COUNTED_WINDOW))),
        *_numbers_and_sentences(user_window),
        log(raw.count(b",")), log(raw.count(b"?")), log(raw.count(b"\\")),
        *_asks(user_window, raw if user_window is last_user else None),
    ]  # fmt: skip
    structure = np.empty(len(STRUCTURE), np.float32)
    structure[: len(numbers)] = numbers
    structure[len(numbers) :] = shares
    return Features(
        last_user=last_user,
        context=context,
        user_window=user_window,
        context_window=window(context, CONTEXT_WINDOW),
        input_tokens=_tokens(last_user, context, tools) + 4 * turns + IMAGE_TOKENS * images,
        turns=turns,
        has_images=images > 0,
        has_audio=audio,
        has_tools=bool(tools),
        wants_json=json,
        wants_schema=schema,
        task=_task(body),
        structure=structure,
        system=_system(messages),
        shape=_shape(body, messages, tools, images=images > 0),
    )


def _system(messages: list[Any]) -> str:
    for message in messages:
        if isinstance(message, dict) and message.get("role") in ("system", "developer"):
            return _text(message, [part for part in _list(message.get("content")) if isinstance(part, dict)])
    return ""


def _shape(body: Mapping[str, Any], messages: list[Any], tools: list[Any], *, images: bool) -> RequestShape:
    named = [_object(tool) for tool in tools]
    names = sorted(str(_object(tool.get("function") or tool).get("name", "")) for tool in named)
    form = _object(body.get("response_format"))
    schema = _object(form.get("json_schema"))
    word = " ".join(filter(None, (str(form.get("type") or ""), str(schema.get("name") or ""))))
    continued = any(isinstance(m, dict) and m.get("role") in ("assistant", "tool") for m in messages)
    return RequestShape(continued, images, tuple(names), "" if word == "text" else word)


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _task(body: Mapping[str, Any]) -> str:
    metadata = body.get("metadata")
    task = metadata.get("task") if isinstance(metadata, dict) else None
    return task if isinstance(task, str) else ""


def _numbers_and_sentences(text: str) -> tuple[float, ...]:
    """Logs of how many numbers and sentences there are and of the longest sentence; then how many different
    numbers, the longest one's characters, how many decimals."""
    numbers, sentences = _NUMBER.findall(text), _SENTENCE.split(text)
    log = math.log1p
    longest = max(map(len, sentences))
    if not numbers:
        return 0.0, log(len(sentences) - 1), log(longest), 0.0, 0.0, 0.0
    different = {n.rstrip(".,") for n in numbers}
    decimals = sum("." in n for n in different)
    return (
        log(len(numbers)),
        log(len(sentences) - 1),
        log(longest),
        log(len(different)),
        max(map(len, different)),
        log(decimals),
    )


def _texts(messages: list[Any]) -> tuple[list[str], list[dict[str, Any]], int]:
    """Each turn's text, the parts of all contents that come in parts, and which turn is the last user's."""
    texts: list[str] = []
    parts: list[dict[str, Any]] = []
    last = -1
    for message in messages:
        if not isinstance(message, dict):
            continue
        if message.get("role") == "user":
            last = len(texts)
        content = message.get("content")
        if isinstance(content, str) and "tool_calls" not in message:
            texts.append(content)
        else:
            found = [p for p in _list(content) if isinstance(p, dict)]
            texts.append(_text(message, found))
            parts += found
    return texts, parts, last


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(message: dict[str, Any], parts: list[dict[str, Any]]) -> str:
    """A message's text: its content or its text parts, and the arguments of the tools it called."""
    content = message.get("content")
    pieces = [content] if isinstance(content, str) else [p.get("text") for p in parts]
    for call in _list(message.get("tool_calls")):
        function = call.get("function") if isinstance(call, dict) else None
        pieces += [function.get("name"), function.get("arguments")] if isinstance(function, dict) else []
    return "\n".join(p for p in pieces if isinstance(p, str))


def window(text: str, size: int) -> str:
    """The text, or its head and tail, half of ``size`` characters each, where it is longer."""
    half = size // 2
    return text if len(text) <= size else f"{text[:half]} {text[-half:]}"


def _tokens(last_user: str, context: str, tools: list[Any]) -> int:
    """An estimate: four bytes of text or of a tool's definition a token."""
    size = _bytes(last_user) + _bytes(context)
    return (size + (len(orjson.dumps(tools, default=str)) if tools else 0)) // 4


def _bytes(text: str) -> int:
    """The text's length in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _form(body: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether JSON is asked for, and whether by a schema."""
    form = body.get("response_format")
    kind = form.get("type") if isinstance(form, dict) else None
    return kind in ("json_object", "json_schema"), kind == "json_schema"


def _limits(body: Mapping[str, Any]) -> tuple[float, bool]:
    """The log of the answer's token limit, 0 without one, and whether several answers are asked for."""
    limit, several = body.get("max_completion_tokens") or body.get("max_tokens"), body.get("n")
    tokens = math.log1p(limit) if isinstance(limit, int) and limit > 0 else 0.0
    return tokens, isinstance(several, int) and several > 1


def _fences(text: str) -> int:
    return text.count("```") if "`" in text else 0  # one character is found ten times as fast


def _asks(text: str, raw: bytes | None) -> list[int]:
    """Which questions' cue words are in the text, 1 or 0; ``raw``: the text in UTF-8, where that is at hand."""
    words, question = _cues()
    plain = text.isascii()
    lower = text if plain else text.lower()
    if raw is None or not plain:
        raw = lower.encode("ascii", "replace")
    found = words.intersection(raw.translate(_letters()).split())  # a third of the cost of an expression
    asks = [0] * len(QUESTIONS)
    for cue in found:
        if plain or _alone(cue).search(lower):  # or it is a part of a word with other letters in it
            asks[question[cue]] = 1
    return asks


def _counted(raw: bytes) -> tuple[F32, float, float]:
    """Each class's and each script's share of the characters: float32, (len(CLASSES) + len(SCRIPTS),);
    then how many separators of words and how many newlines there are."""
    counts = np.bincount(np.frombuffer(raw, np.uint8), minlength=256).astype(np.float32)
    found = _class_table().dot(counts)
    characters, separators, newlines = found[-3:].tolist()
    return found[:-3] / max(1.0, characters), separators, newlines


@cache
def _class_table() -> F32:
    """Which byte is in which class or script, then which begins a character, separates words, or is a newline:
    float32, (len(CLASSES) + len(SCRIPTS) + 3, 256)."""
    first = frozenset(range(256)) - frozenset(range(0x80, 0xC0))  # without UTF-8's continuation bytes
    sets = [*CLASSES.values(), *SCRIPTS.values(), first, frozenset(b" \n"), frozenset(b"\n")]
    return np.array([[b in members for b in range(256)] for members in sets], np.float32)


@cache
def _letters() -> bytes:
    """For ``bytes.translate``: ASCII letters to lower case, all else to a space."""
    return bytes(ord(chr(b).lower()) if b < 128 and chr(b).isalpha() else 32 for b in range(256))


@cache
def _cues() -> tuple[frozenset[bytes], Mapping[bytes, int]]:
    """The cue words, and the number of each one's question."""
    numbers = {cue.encode(): i for i, cues in enumerate(QUESTIONS.values()) for cue in cues}
    return frozenset(numbers), numbers


@cache
def _alone(cue: bytes) -> re.Pattern[str]:
    """The cue with no letter before or after it; what is literal comes first, since that is searched for fastest."""
    word = cue.decode()
    return re.compile(rf"{word}(?<![^\W\d_]{word})(?![^\W\d_])")


@cache
def _stop_words() -> Mapping[str, frozenset[str]]:
    return {code: frozenset(words.split()) for code, words in _STOP_WORDS.items()}
