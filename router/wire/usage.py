"""What an answer says of its tokens and its bill, in each of the spellings that providers have for it.

Counts are read once, before anything of an answer is changed. What stands outside OpenAI's total of a kind (xAI's and
Gemini's thoughts, what Anthropic's cache served) is put into it, by the total where one is told. A count that is none
(negative, no number, beyond what any model reads) counts as not told; what is not told ``router.wire.estimates`` makes
of the texts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from router.contracts.records import Usage

MOST_TOKENS = 10**8
"""More than that in one answer no model has read or said."""
MOST_THOUGHT_TOKENS = 2**20
"""A total with room for more than that beside the answer counts something else, or nothing at all."""
MOST_USD = Decimal(10_000)
"""More than that no answer has cost."""
LONGEST_NUMBER = 32
"""Characters of a number that is told as a text, and of a tier's name."""
TICKS = Decimal(10**10)
"""Of a dollar, xAI's."""
USUAL_REGIONS = frozenset({"global", "not_available"})

USAGE_SO_FAR = "locum_usage_so_far"
"""The field in which a chunk in chat's form tells what its stream told at its beginning, for one that is cut off. No
client gets it."""
TELL_USAGE = ("usage", "x_groq", "provider_metadata", USAGE_SO_FAR)
"""Fields of an answer or a chunk in which something of its usage may stand."""
_INPUT = ("prompt_tokens", "input_tokens")
_OUTPUT = ("completion_tokens", "output_tokens")
_CACHED = ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens", "cache_read_tokens")
_WRITTEN = ("cache_write_tokens", "cache_creation_input_tokens", "cache_creation_tokens")
_BY_TIME = ("cache_creation", "cache_creation_token_details")
_SEARCHES = ("web_search_requests", "num_search_queries", "num_sources_used")
_BILLS = ("cost", "total_cost", "estimated_cost")


@dataclass(frozen=True, slots=True)
class ToldUsage:
    """Token counts as an answer tells them; of those that ``lack`` 0. ``total``: of both together, where that is all
    that it tells. ``free``: it says of input, output and total that they are 0, as servers do that bill nothing."""

    usage: Usage
    lacks_input: bool = False
    lacks_output: bool = False
    total: int = 0
    free: bool = False

    @property
    def whole(self) -> bool:
        return not self.lacks_input and not self.lacks_output


def told_in(answer: Any) -> dict[str, Any] | None:
    """All that an answer or a chunk tells of its usage, put into one object: some servers have it in the choice, Groq
    in a field of its own, Vercel tells the bill beside the message. None where it tells nothing."""
    if not isinstance(answer, dict):
        return None
    found: dict[str, Any] = {}
    for told in _objects(answer):
        found |= {name: value for name, value in told.items() if value is not None}
    return found or None


def usage_in(answer: Any) -> ToldUsage | None:
    """What a whole answer tells of its tokens and its bill, with the tier that was served, which stands beside it."""
    told = told_in(answer)
    return read_usage(told, answer.get("service_tier")) if told is not None else None


def _objects(answer: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if isinstance(told := answer.get(USAGE_SO_FAR), dict):
        yield told
    for holder in (answer.get("x_groq"), first, answer):
        if isinstance(holder, dict) and isinstance(told := holder.get("usage"), dict):
            yield told
    message = (first.get("message") or first.get("delta")) if isinstance(first, dict) else None
    for holder in (answer, message):
        gateway = _dict(_dict(_dict(holder).get("provider_metadata")).get("gateway"))
        if "cost" in gateway:
            yield {"cost": gateway["cost"]}


def read_usage(told: Mapping[str, Any], tier: object = None) -> ToldUsage | None:
    """None where it says of no token how many there were, nor what they cost. ``tier`` was told beside it. Of no prompt
    0 is the count: it is not told then, unless all three counts are 0."""
    read, said, total = _largest(told, _INPUT), _largest(told, _OUTPUT), count(told.get("total_tokens"))
    billed, free = _billed_usd(told), _is_free(told)
    read = read if free else read or None
    if read is None and said is None and not total and billed is None:
        return None
    inside = _dict(told.get("prompt_tokens_details") or told.get("input_tokens_details"))
    outside = _dict(told.get("completion_tokens_details") or told.get("output_tokens_details"))
    hits = _most(_first(inside, _CACHED), _first(told, _CACHED))
    written, hour = _written(told, inside)
    thought = _most(_first(outside, ("reasoning_tokens", "thinking_tokens")), count(told.get("reasoning_tokens")))
    if read is not None and _apart(told, read, said, total, hits + written):
        read += hits + written
    if total is not None and said is None and read is not None:
        said = max(0, total - read)
    elif total is not None and read is None and said is not None:
        read = max(0, total - said) or None
    if read is not None and said is not None:
        said, thought = _with_thoughts(said, thought, None if total is None else total - read)
    usage = Usage(
        input_tokens=read or 0,
        cached_input_tokens=hits,
        output_tokens=said or 0,
        cache_written_tokens=written,
        cache_written_1h_tokens=hour,
        reasoning_tokens=thought,
        input_audio_tokens=count(inside.get("audio_tokens")) or 0,
        cached_audio_tokens=count(_dict(inside.get("cached_tokens_details")).get("audio_tokens")) or 0,
        output_audio_tokens=count(outside.get("audio_tokens")) or 0,
        input_image_tokens=count(inside.get("image_tokens")) or 0,
        output_image_tokens=count(outside.get("image_tokens")) or 0,
        searches=_searches(told, inside),
        search_size=name_of(told.get("search_context_size")),
        service_tier=_tier(told) or name_of(tier),
        region=_region(told),
        billed_usd=billed,
    )
    alone = total if total is not None and read is None and said is None else 0
    return ToldUsage(usage, lacks_input=read is None, lacks_output=said is None, total=alone, free=free)


def merged(before: dict[str, Any] | None, told: dict[str, Any]) -> dict[str, Any]:
    """What two chunks of a stream tell: the later of them, since its counts are of all before it. Where it counts less
    of anything, it told but a part: then of each count the fuller one."""
    if before is None:
        return told
    if all((_largest(told, names) or 0) >= (_largest(before, names) or 0) for names in (_INPUT, _OUTPUT)):
        return before | told
    found = _fuller(before, told)
    read, said = (_largest(found, names) or 0 for names in (_INPUT, _OUTPUT))
    if count(found.get("total_tokens")) is not None:
        found["total_tokens"] = read + said + max(_beside(before), _beside(told))
    return found


def tells_end(told: Mapping[str, Any]) -> bool:
    """Whether it says how long an answer is, or what it cost, be it nothing."""
    said, total = _largest(told, _OUTPUT), count(told.get("total_tokens"))
    counted = bool(said) or (said is None and bool(total)) or _is_free(told)
    return counted or _billed_usd(told) is not None


def _is_free(told: Mapping[str, Any]) -> bool:
    return (_largest(told, _INPUT), _largest(told, _OUTPUT), count(told.get("total_tokens"))) == (0, 0, 0)


def _fuller(before: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    found = dict(before)
    for name, value in told.items():
        known = before.get(name)
        if isinstance(known, dict) and isinstance(value, dict):
            found[name] = _fuller(known, value)
        elif (least := count(known)) is None or ((more := count(value)) is not None and more >= least):
            found[name] = value
    return found


def _beside(told: Mapping[str, Any]) -> int:
    """How much more a total is than what it is of: thoughts, or what a prompt cache had."""
    read, said, total = _largest(told, _INPUT), _largest(told, _OUTPUT), count(told.get("total_tokens"))
    return 0 if read is None or said is None or total is None else max(0, total - read - said)


def count(value: Any) -> int | None:
    """A number of tokens, however it is written; None for what is none."""
    if isinstance(value, str) and 0 < len(value) <= LONGEST_NUMBER:
        try:
            value = float(value)
        except ValueError:
            return None
    if type(value) is int:
        return value if 0 <= value <= MOST_TOKENS else None
    if not isinstance(value, float) or not math.isfinite(value) or not 0 <= value <= MOST_TOKENS:
        return None
    return math.ceil(value)


def _apart(told: Mapping[str, Any], read: int, said: int | None, total: int | None, cache: int) -> bool:
    """Whether what a prompt cache served and took up stands beside the count of the input, as Anthropic has it, and not
    among it: the total says so, else that it is more, else that all names are Anthropic's."""
    named = told.keys() & {"cache_read_input_tokens", "cache_creation_input_tokens"}
    if not cache or not named:
        return False
    if total is not None and said is not None and total in (read + said, read + said + cache):
        return total != read + said
    return cache > read or not count(told.get("prompt_tokens"))


def _with_thoughts(said: int, thought: int, rest: int | None) -> tuple[int, int]:
    """(all tokens of the output, those of them that were thought); ``rest``: what the total leaves for both. Thoughts
    are among the output unless they are more than it, or the total has room for more."""
    if rest is not None and said < rest <= said + MOST_THOUGHT_TOKENS:
        return rest, max(thought, rest - said)
    return (said + thought, thought) if thought > said else (said, thought)


def _written(told: Mapping[str, Any], inside: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens that a prompt cache took up: (all, for an hour)."""
    by_time = [_dict(holder.get(name)) for holder in (inside, told) for name in _BY_TIME]
    short = _most(*(count(times.get("ephemeral_5m_input_tokens")) for times in by_time))
    hour = _most(
        *(count(times.get("ephemeral_1h_input_tokens")) for times in by_time),
        count(inside.get("cache_write_1h_tokens")),
    )
    return _most(_first(inside, _WRITTEN), _first(told, _WRITTEN), short + hour), hour


def _searches(told: Mapping[str, Any], inside: Mapping[str, Any]) -> int:
    used = _dict(told.get("server_tool_use")), _dict(told.get("server_side_tool_usage_details")), inside, told
    return _most(*(_first(holder, _SEARCHES) for holder in used))


def _tier(told: Mapping[str, Any]) -> str | None:
    """Anthropic tells a fast mode apart from its tiers."""
    return "fast" if told.get("speed") == "fast" else name_of(told.get("service_tier"))


def _region(told: Mapping[str, Any]) -> str | None:
    region = name_of(told.get("inference_geo"))
    return None if region in USUAL_REGIONS else region


def _billed_usd(told: Mapping[str, Any]) -> Decimal | None:
    """In US dollars. With a key of one's own at OpenRouter its fee is told apart from what the key's provider takes."""
    if (ticks := _usd(told.get("cost_in_usd_ticks"), TICKS)) is not None:
        return ticks
    for name in _BILLS:
        value = told.get(name)
        bill = _usd(value.get("total_cost") if isinstance(value, dict) else value)
        if bill is not None:
            if told.get("is_byok") is not True:
                return bill
            own = _usd(_dict(told.get("cost_details")).get("upstream_inference_cost"))
            return None if own is None else bill + own
    return None


def _usd(value: Any, parts: Decimal = Decimal(1)) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str) or len(text := str(value)) > LONGEST_NUMBER:
        return None
    try:
        usd = Decimal(text) / parts
    except InvalidOperation:
        return None
    return usd if usd.is_finite() and 0 <= usd <= MOST_USD else None


def _first(of: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((found for name in names if (found := count(of.get(name))) is not None), None)


def _largest(of: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return max((found for name in names if (found := count(of.get(name))) is not None), default=None)


def _most(*counts: int | None) -> int:
    return max((found for found in counts if found is not None), default=0)


def name_of(value: Any) -> str | None:
    return value.lower() if isinstance(value, str) and 0 < len(value) <= LONGEST_NUMBER else None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
