"""Lines of LiteLLM's spend logs and of Langfuse's exports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from distiller.logs.calls import Found, LoggedCall, SkipReason, Source
from distiller.logs.chat import call_of
from distiller.logs.values import dollars, first, mapping, parsed, text, usage_of

_SPEND = frozenset({"spend", "startTime", "call_type", "custom_llm_provider", "api_key", "model_group"})
_CHAT_CALLS = ("completion", "responses", "messages", "generate_content", "")
_OBSERVED = frozenset(
    {"traceId", "trace_id", "parentObservationId", "parent_observation_id", "modelParameters", "model_parameters",
     "usageDetails", "usage_details", "promptName", "statusMessage", "observations", "latency", "projectId"}
)  # fmt: skip


def is_litellm(line: Mapping[str, Any]) -> bool:
    return len(_SPEND & line.keys()) >= 3 or ("response_cost" in line and "call_type" in line)


def is_langfuse(line: Mapping[str, Any]) -> bool:
    return (
        len(_OBSERVED & line.keys()) >= 2
        or ("observations" in line and "input" in line)
        or (line.get("type") in ("GENERATION", "SPAN", "EVENT"))
    )


def read_litellm(line: Mapping[str, Any]) -> Found:
    """One row of ``LiteLLM_SpendLogs``, or a standard logging payload."""
    kind = str(line.get("call_type") or "").removeprefix("a").removesuffix("_aresponses")
    if "embedding" in kind or not any(word in kind for word in _CHAT_CALLS):
        return SkipReason.NO_CALL
    if str(line.get("status") or "success").lower() not in ("success", "200"):
        return SkipReason.FAILED
    sent = mapping(line.get("proxy_server_request"))
    body = mapping(line.get("model_parameters")) | (mapping(sent.get("body")) or sent)
    if messages := parsed(line.get("messages")):
        body["messages"] = messages
    usage = {"prompt_tokens": line.get("prompt_tokens"), "completion_tokens": line.get("completion_tokens")}
    told = mapping(mapping(line.get("metadata")).get("usage_object")) or usage
    tags = parsed(line.get("request_tags"))
    provider, model = text(line.get("custom_llm_provider")), text(line.get("model")) or ""
    named = model if not provider or "/" in model else f"{provider}/{model}"
    task = text(mapping(line.get("metadata")).get("task")) or (
        text(tags[0]) if isinstance(tags, list) and tags else None
    )
    facts = {**line, "model": named, "metadata": {}, "usage": told, "task": task}
    return call_of(Source.LITELLM, facts, body, first(line, ("response",)))


def read_langfuse(line: Mapping[str, Any]) -> Iterator[Found]:
    """One observation, or a trace with all of its own."""
    inner = parsed(line.get("observations"))
    if isinstance(inner, list) and any(isinstance(one, dict) for one in inner):
        about = {name: line[name] for name in ("userId", "user_id", "sessionId", "session_id") if line.get(name)}
        for one in inner:
            yield (
                _observation(about | {k: v for k, v in one.items() if v is not None})
                if isinstance(one, dict)
                else SkipReason.NO_CALL
            )
        return
    yield _observation(line)


def _observation(line: Mapping[str, Any]) -> Found:
    if str(line.get("type") or "GENERATION").upper() != "GENERATION":
        return SkipReason.NO_CALL
    if str(line.get("level") or "").upper() == "ERROR":
        return SkipReason.FAILED
    sent = parsed(line.get("input"))
    body = mapping(first(line, ("modelParameters", "model_parameters")))
    if isinstance(sent, dict) and "messages" in sent:
        body = body | sent
    elif sent is not None:
        body = body | {"messages": sent}
    counted = mapping(first(line, ("usageDetails", "usage_details", "usage")))
    usage = {
        "prompt_tokens": first(counted, ("input", "prompt_tokens", "promptTokens", "input_tokens"))
        or first(line, ("promptTokens", "inputUsage")),
        "completion_tokens": first(counted, ("output", "completion_tokens", "completionTokens", "output_tokens"))
        or first(line, ("completionTokens", "outputUsage")),
    }
    model = first(line, ("model", "providedModelName", "provided_model_name", "model_name"))
    costs = mapping(first(line, ("costDetails", "cost_details")))
    found = call_of(
        Source.LANGFUSE,
        {**line, "model": model, "usage": usage if usage_of(usage) else counted, "task": line.get("name")},
        body,
        parsed(line.get("output")),
    )
    if isinstance(found, LoggedCall) and found.cost_usd is None:
        total = first(line, ("calculatedTotalCost", "totalCost", "total_cost")) or costs.get("total")
        found.cost_usd = dollars(total)
    return found
