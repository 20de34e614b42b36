"""Who answers, and why: the order of the steps, and what each objective does with a score."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from router.contracts.bundles import Evidence, Thresholds
from router.contracts.decision import Decision, Reason, Tier
from router.policy.policy import Policy
from router.routing.decision import Facts, RequestView, audit_rate, decide, drawn, lacking, look_up, student_serves
from router.scoring.statistics.risk import clopper_pearson_upper
from router.scoring.text.features import extract

STUDENT, TEACHER = Tier.STUDENT, Tier.TEACHER
TUNED = Thresholds(route=0.7, accept=0.8)


def policy(objective: dict[str, Any] | None = None, **parts: Any) -> Policy:
    student = {"model": "s", "engine": "embedded", "usd_per_million": {"input": 0, "output": 0}}
    student |= parts.pop("student", {})
    goal = objective or {"parity": {"at_least": 0.95}}
    return Policy.model_validate(
        {"name": "p", "student": student, "teacher": {"model": "t"}, "objective": goal, **parts}
    )


def ask(text: str = "hello", **fields: Any) -> dict[str, Any]:
    return {"model": "p", "messages": [{"role": "user", "content": text}], **fields}


def view(body: dict[str, Any] | None = None, tier: Tier | None = None) -> RequestView:
    body = body or ask()
    return RequestView(extract(body), body, tier)


def said(decision: Decision) -> tuple[Tier, Reason]:
    return decision.tier, decision.reason


SURE = Facts(score=0.9, thresholds=TUNED)
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
LEGAL = [{"when": {"metadata.task": ["legal", "tax"]}, "send": "teacher"}]
CHEAP = {"usd_per_day": 5}


@pytest.mark.parametrize(
    ("step", "spoken"),
    [
        (0, (STUDENT, Reason.OVERRIDE)),
        (1, (TEACHER, Reason.CAPABILITY)),
        (2, (TEACHER, Reason.RULE)),
        (3, (TEACHER, Reason.AFFINITY)),
        (4, (TEACHER, Reason.EXPLORATION)),
        (5, (STUDENT, Reason.SCORE)),
    ],
)
def test_the_first_step_that_speaks_decides(step: int, spoken: tuple[Tier, Reason]) -> None:
    """Every later step would speak too: what is taken away is always the first."""
    body = ask(metadata={"task": "tax"} if step <= 2 else {}, **({"tools": [TOOL]} if step <= 1 else {}))
    state = Facts(score=0.9, thresholds=TUNED, escalated=step <= 3, explore=step <= 4)
    asked = RequestView(extract(body), body, STUDENT if step == 0 else None)
    assert said(decide(policy(rules=LEGAL), asked, state)) == spoken


def test_a_spent_budget_sends_to_the_student_and_is_not_explored_away() -> None:
    poor = Facts(score=0.1, thresholds=TUNED, teacher_affordable=False, explore=True)
    assert said(decide(policy(CHEAP), view(), poor)) == (STUDENT, Reason.BUDGET)


@pytest.mark.parametrize("sent_by", ["override", "rule", "affinity"])
def test_whatever_sends_to_a_teacher_that_nobody_can_pay_sends_to_the_student_that_can_do_it(sent_by: str) -> None:
    body = ask(metadata={"task": "legal"} if sent_by == "rule" else {})
    poor = Facts(score=0.1, thresholds=TUNED, teacher_affordable=False, escalated=sent_by == "affinity")
    asked = RequestView(extract(body), body, TEACHER if sent_by == "override" else None)
    decision = decide(policy(CHEAP, rules=LEGAL), asked, poor)
    assert (*said(decision), decision.detail.endswith(f"({sent_by})")) == (STUDENT, Reason.BUDGET, True)
    refusing = policy({**CHEAP, "when_spent": "refuse"}, rules=LEGAL)
    assert said(decide(refusing, asked, poor)) == (TEACHER, Reason(sent_by)), "who asks the teacher finds no money"
    assert said(decide(policy(CHEAP, rules=LEGAL), asked, replace(poor, student_ready=False)))[0] is TEACHER


def test_what_the_student_cannot_do_stays_the_teachers_without_money_too() -> None:
    body = ask(tools=[TOOL])
    poor = Facts(score=0.9, thresholds=TUNED, teacher_affordable=False)
    for tier in (None, TEACHER):
        assert decide(policy(CHEAP), RequestView(extract(body), body, tier), poor).tier is TEACHER


def test_money_left_lets_the_score_decide_by_what_the_pace_leaves_to_the_student() -> None:
    for paced, tier in ((0.65, TEACHER), (0.5, STUDENT)):
        state = Facts(score=0.6, thresholds=TUNED, share_threshold=paced)
        assert said(decide(policy(CHEAP), view(), state)) == (tier, Reason.SCORE)


@pytest.mark.parametrize("objective", [{"student_share": 0.8}, CHEAP])
def test_where_it_is_known_what_escalating_gains_for_its_cost_a_share_and_money_go_by_that(
    objective: dict[str, Any],
) -> None:
    for worth, tier in ((0.35, STUDENT), (0.25, TEACHER)):
        state = Facts(score=0.6, gain=0.2, worth=worth, thresholds=TUNED, share_threshold=0.3)
        decision = decide(policy(objective), view(), state)
        assert (*said(decision), decision.score) == (tier, Reason.SCORE, 0.6)
        assert (decision.worth, decision.gain, decision.threshold) == (worth, 0.2, 0.3)


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "images"),
        ({"messages": [{"role": "user", "content": "word " * 9000}]}, "context over 4096 tokens"),
        ({"messages": [{"role": "user", "content": "Привет, как у тебя сегодня дела?"}]}, "language"),
    ],
)
def test_what_the_student_is_declared_unfit_for_goes_to_the_teacher(fields: dict[str, Any], detail: str) -> None:
    unfit = policy(student={"unfit_for": {"languages": ["ru"]}})
    decision = decide(unfit, view(ask(**fields)), SURE)
    assert (*said(decision), decision.detail) == (TEACHER, Reason.CAPABILITY, detail)


def measured(served: int, unacceptable: int, examples: int = 200, **more: Any) -> Thresholds:
    risk = clopper_pearson_upper(unacceptable, examples, 0.95)
    told = {"target": 0.0, "confidence": 0.95, "examples": examples, "method": "m", "risk_bound": risk, **more}
    return Thresholds(route=0.5, accept=0, tools=Evidence(served=served, unacceptable=unacceptable, **told))


@pytest.mark.parametrize(
    ("declared", "found", "tier"),
    [
        (None, None, TEACHER),
        (None, measured(0, 0), TEACHER),
        (None, measured(90, 12), TEACHER),
        (None, measured(90, 2), STUDENT),
        (None, measured(40, 0, examples=40), TEACHER),
        (False, None, STUDENT),
        (True, measured(90, 2), TEACHER),
    ],
)
def test_requests_with_tools_are_the_teachers_until_a_student_has_proven_itself(
    declared: bool | None, found: Thresholds | None, tier: Tier
) -> None:
    asked = policy({"parity": {}}, student={"unfit_for": {"tools": declared}})
    state = replace(SURE, thresholds=found or TUNED)
    decision = decide(asked, view(ask(tools=[TOOL])), state)
    reason = Reason.SCORE if tier is STUDENT else Reason.CAPABILITY
    assert said(decision) == (tier, reason)
    assert decision.detail.startswith("tools" if tier is TEACHER else "")
    assert said(decide(asked, view(), state)) == (STUDENT, Reason.SCORE)
    assert lacking(asked, view(ask(tools=[TOOL]))) == ("tools" if declared else None), "it is audited all the same"


def test_where_no_parity_is_promised_a_student_with_tools_needs_only_to_be_measured() -> None:
    for examples, tier in ((29, TEACHER), (30, STUDENT)):
        state = replace(SURE, thresholds=measured(9, 9, examples=examples))
        assert decide(policy({"threshold": 0.5}), view(ask(tools=[TOOL])), state).tier is tier


def by_engine(engine: str | None, **student: Any) -> Policy:
    """The student on an engine, or by URL; nothing declared of tools."""
    where = {"engine": engine} if engine else {"engine": None, "url": "http://127.0.0.1:9/v1"}
    return policy(student={**where, "unfit_for": {"tools": False}, **student})


HARMLESS = {
    "metadata": {"a": "b"}, "user": "u", "store": True, "service_tier": "flex", "prompt_cache_key": "k",
    "prompt_cache_retention": "24h", "safety_identifier": "s", "stream": True,
    "stream_options": {"include_usage": True}, "prediction": {"type": "content", "content": "x"},
    "parallel_tool_calls": False,
}  # fmt: skip
SAMPLED = {
    "temperature": 0.2, "top_p": 0.9, "seed": 7, "stop": ["x"], "max_tokens": 5, "max_completion_tokens": 5,
    "frequency_penalty": 0.5, "presence_penalty": -0.5, "logprobs": True, "top_logprobs": 5,
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
}  # fmt: skip
BEYOND_ALL = {
    "functions": [{"name": "f"}], "function_call": {"name": "f"}, "modalities": ["text", "audio"],
    "audio": {"voice": "alloy", "format": "wav"}, "reasoning_effort": "high", "verbosity": "low",
    "web_search_options": {"search_context_size": "low"}, "a_field_of_tomorrow": {"x": 1}, "an_unknown_switch": False,
}  # fmt: skip
DEFAULTS = {
    "n": 1, "temperature": 1, "top_p": 1.0, "tools": [], "functions": [], "tool_choice": "auto",
    "function_call": "none", "frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "logprobs": False,
    "top_logprobs": None,
    "response_format": {"type": "text"}, "modalities": ["text"], "audio": None, "reasoning_effort": "minimal",
    "verbosity": "medium", "web_search_options": None, "stop": None, "seed": None, "a_field_of_tomorrow": None,
}  # fmt: skip


def cases(fields: dict[str, Any]) -> list[Any]:
    return [pytest.param({name: value}, id=name) for name, value in fields.items()]


@pytest.mark.parametrize("engine", ["embedded", "llama-server", None])
@pytest.mark.parametrize("fields", [*cases(HARMLESS), *cases(SAMPLED), *cases(DEFAULTS), HARMLESS | SAMPLED])
def test_what_a_student_heeds_or_need_not_is_no_matter_of_capability(
    engine: str | None, fields: dict[str, Any]
) -> None:
    assert said(decide(by_engine(engine), view(ask(**fields)), SURE)) == (STUDENT, Reason.SCORE)


@pytest.mark.parametrize(
    "text", ["x<|im_end|>\n<|im_start|>system", "</s>", "a [/INST] b", "<end_of_turn>", "<｜User｜>", "<|eot_id|>"]
)
@pytest.mark.parametrize("parts", [True, False])
def test_what_an_engine_would_take_for_control_is_the_teachers(text: str, parts: bool) -> None:
    said_so = [{"role": "user", "content": [{"type": "text", "text": text}] if parts else text}]
    for engine in ("llama-server", None):
        decision = decide(by_engine(engine), view(ask(messages=said_so)), SURE)
        assert (*said(decision), decision.detail) == (TEACHER, Reason.CAPABILITY, "control tokens in a text")
    assert said(decide(by_engine("embedded"), view(ask(messages=said_so)), SURE)) == (STUDENT, Reason.SCORE)


@pytest.mark.parametrize("text", ["a <b> c", "if a<|b or c|>d", "<s1>", "[inst]", "x <| y |> z", "List<String|null>"])
def test_what_only_looks_a_little_like_control_is_text(text: str) -> None:
    plain = [{"role": "user", "content": text}]
    assert said(decide(by_engine("llama-server"), view(ask(messages=plain)), SURE)) == (STUDENT, Reason.SCORE)


def test_an_answer_that_the_client_began_is_the_teachers_to_go_on_with() -> None:
    begun = [{"role": "user", "content": "a rhyme, as JSON"}, {"role": "assistant", "content": "{"}]
    decision = decide(by_engine("embedded"), view(ask(messages=begun)), SURE)
    assert (*said(decision), decision.detail) == (TEACHER, Reason.CAPABILITY, "assistant prefill")


@pytest.mark.parametrize("engine", ["embedded", "llama-server"])
@pytest.mark.parametrize("fields", cases(BEYOND_ALL | {"logit_bias": {"50256": -100}}))
def test_a_field_that_the_engine_would_drop_goes_to_the_teacher(engine: str, fields: dict[str, Any]) -> None:
    decision = decide(by_engine(engine), view(ask(**HARMLESS, **fields)), SURE)
    assert (*said(decision), decision.detail) == (TEACHER, Reason.CAPABILITY, *fields)


@pytest.mark.parametrize(
    ("engine", "fields", "tier"),
    [
        ("embedded", {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}}, STUDENT),
        ("embedded", {"functions": [{"name": "f"}]}, TEACHER),
        ("embedded", {"n": 3, "temperature": 1}, STUDENT),
        ("embedded", {"n": 3}, TEACHER),
        ("embedded", {"top_k": 5}, TEACHER),
        ("llama-server", {"tools": [TOOL]}, STUDENT),
        ("llama-server", {"tools": [TOOL], "stream": True}, TEACHER),
        ("embedded", {"tools": [TOOL], "stream": True}, STUDENT),
        ("llama-server", {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}}, TEACHER),
        ("llama-server", {"n": 3}, TEACHER),
        ("llama-server", {"top_k": 5}, STUDENT),
        (None, {"tools": [TOOL], "n": 3, "temperature": 1, **BEYOND_ALL}, STUDENT),
        (None, {"logit_bias": {"50256": -100}}, TEACHER),
    ],
)
def test_engines_differ_in_what_they_heed(engine: str | None, fields: dict[str, Any], tier: Tier) -> None:
    assert decide(by_engine(engine), view(ask(**fields)), SURE).tier is tier


@pytest.mark.parametrize("engine", ["embedded", "llama-server", None])
def test_a_policy_declares_more_fields_that_its_student_would_drop(engine: str | None) -> None:
    declared = by_engine(engine, unfit_for={"fields": ["seed", "web_search_options"]})
    for asked in ({"seed": 1}, {"web_search_options": {"search_context_size": "low"}}):
        decision = decide(declared, view(ask(**asked)), SURE)
        assert (*said(decision), decision.detail) == (TEACHER, Reason.CAPABILITY, *asked)
    assert said(decide(declared, view(ask(seed=None)), SURE)) == (STUDENT, Reason.SCORE)


@pytest.mark.parametrize("engine", ["embedded", None])
def test_what_a_policy_lets_its_student_ignore_keeps_no_request_from_it(engine: str | None) -> None:
    lax = by_engine(engine, may_ignore=["reasoning_effort", "logit_bias"])
    asked = view(ask(reasoning_effort="high", logit_bias={"1": 2}))
    assert said(decide(lax, asked, SURE)) == (STUDENT, Reason.SCORE)


def test_a_client_that_asks_for_the_student_by_name_gets_it_whatever_else_it_asks() -> None:
    asked = view(ask(**BEYOND_ALL), tier=STUDENT)
    assert said(decide(by_engine("embedded"), asked, SURE)) == (STUDENT, Reason.OVERRIDE)


def test_what_the_student_lacks_can_be_asked_apart_from_who_was_asked_for() -> None:
    """A client that asks for the teacher by name is told nothing of it, but a student must not stand in."""
    asked = view(ask(tools=[TOOL]), tier=TEACHER)
    assert said(decide(policy(), asked, SURE)) == (TEACHER, Reason.OVERRIDE)
    assert lacking(policy(student={"unfit_for": {"tools": True}}), asked) == "tools"
    assert lacking(policy(), view()) is None


def test_a_rule_needs_all_its_conditions_and_the_first_rule_wins() -> None:
    rules = [
        {"when": {"metadata.task": "legal", "user": "a"}, "send": "teacher"},
        {"when": {"metadata.task": "legal"}, "send": "student"},
    ]
    two = decide(policy(rules=rules), view(ask(metadata={"task": "legal"}, user="b")), Facts())
    one = decide(policy(rules=rules), view(ask(metadata={"task": "legal"}, user="a")), Facts())
    assert said(two) == (STUDENT, Reason.RULE)
    assert said(one) == (TEACHER, Reason.RULE)
    assert two.detail == "rule 2: metadata.task"


def test_a_path_that_leads_nowhere_is_nothing() -> None:
    body = {"messages": [{"role": "user"}], "n": 1}
    assert look_up(body, "messages.0.role") == "user"
    for path in ("messages.1.role", "messages.x", "n.m", "missing", "messages.0.role.x", ""):
        assert look_up(body, path) is None


def test_affinity_can_be_switched_off() -> None:
    free = policy(conversation={"affinity": "none"})
    assert said(decide(free, view(), Facts(score=0.9, thresholds=TUNED, escalated=True)))[0] is STUDENT


def test_exploration_only_ever_moves_a_request_to_the_teacher() -> None:
    low = Facts(score=0.1, thresholds=TUNED, explore=True)
    assert said(decide(policy(), view(), low)) == (TEACHER, Reason.SCORE)


def test_an_audited_request_stays_where_it_was_decided_for() -> None:
    both = Facts(score=0.9, thresholds=TUNED, explore=True, audited=True, propensity=0.02)
    decision = decide(policy(), view(), both)
    assert said(decision) == (STUDENT, Reason.SCORE)
    assert (decision.audited, decision.propensity, decision.exploration) == (True, 0.02, 0.0)


def test_an_explored_request_says_how_probable_that_was() -> None:
    state = Facts(score=0.9, thresholds=TUNED, explore=True)
    assert decide(policy(audit={"explore": 0.05}), view(), state).exploration == 0.05


@pytest.mark.parametrize("objective", [{"parity": {}}, {"threshold": 0.5}])
def test_without_a_scorer_an_objective_on_quality_starts_with_the_teacher(objective: dict[str, Any]) -> None:
    cold = policy(objective)
    assert said(decide(cold, view(), Facts(prior=0.99))) == (TEACHER, Reason.COLD_START)
    assert not student_serves(cold, None)
    assert audit_rate(cold, None) == cold.audit.warmup_rate


@pytest.mark.parametrize("objective", [{"student_share": 0.8}, CHEAP])
def test_without_a_scorer_share_and_money_start_from_the_declared_prior(objective: dict[str, Any]) -> None:
    cold = policy(objective)
    easy, hard = (decide(cold, view(), Facts(prior=p)) for p in (0.6, 0.4))
    assert (said(easy), easy.score) == ((STUDENT, Reason.SCORE), 0.6)
    assert said(hard) == (TEACHER, Reason.SCORE)
    assert audit_rate(cold, None) == cold.audit.rate


@pytest.mark.parametrize(
    ("objective", "threshold"),
    [({"parity": {}}, 0.7), ({"threshold": 0.62}, 0.62), ({"student_share": 0.8}, 0.3), (CHEAP, 0.3)],
)
def test_the_score_is_held_against_the_objectives_own_threshold(objective: dict[str, Any], threshold: float) -> None:
    for score, tier in ((threshold, STUDENT), (threshold - 0.01, TEACHER)):
        state = Facts(score=score, thresholds=TUNED, share_threshold=0.3)
        decision = decide(policy(objective), view(), state)
        assert (*said(decision), decision.threshold) == (tier, Reason.SCORE, threshold)


def test_a_threshold_that_nothing_passes_is_warm_up() -> None:
    never = Thresholds(route=1.01, accept=0.0)
    assert said(decide(policy(), view(), Facts(score=1.0, thresholds=never))) == (TEACHER, Reason.SCORE)
    assert not student_serves(policy(), never)


def test_no_request_is_tried_on_the_student_when_no_answer_of_its_would_leave() -> None:
    mute = Thresholds(route=0.1, accept=1.01)
    assert said(decide(policy(), view(), Facts(score=0.9, thresholds=mute)))[0] is TEACHER
    assert not student_serves(policy(), mute)


def test_without_the_cascade_the_accept_threshold_still_holds_for_the_score() -> None:
    loose = Thresholds(route=0.1, accept=0.8)
    single = policy(accept={"cascade": False})
    assert said(decide(single, view(), Facts(score=0.5, thresholds=loose)))[0] is TEACHER
    assert said(decide(policy(), view(), Facts(score=0.5, thresholds=loose)))[0] is STUDENT


def test_the_cascade_alone_asks_the_student_whatever_the_score() -> None:
    alone = policy({"threshold": 0.62}, accept={"routing": False})
    certified = Thresholds(route=0.0, accept=0.8)
    for asked in (alone, policy(accept={"routing": False})):
        assert said(decide(asked, view(), Facts(score=0.01, thresholds=certified))) == (STUDENT, Reason.SCORE)
    fitted_with_both = Facts(score=0.2, thresholds=Thresholds(route=0.3, accept=0.8))
    assert said(decide(policy(accept={"routing": False}), view(), fitted_with_both))[0] is TEACHER, "not certified"


@pytest.mark.parametrize("tier", [STUDENT, None])
def test_a_student_that_is_not_ready_is_a_fallback_to_the_teacher(tier: Tier | None) -> None:
    down = Facts(score=0.9, thresholds=TUNED, student_ready=False)
    decision = decide(policy(), view(tier=tier), down)
    assert said(decision) == (TEACHER, Reason.FALLBACK)
    assert decision.detail == f"student not ready ({'override' if tier else 'score'})"


def test_a_request_for_the_teacher_never_minds_the_student() -> None:
    down = Facts(student_ready=False)
    assert said(decide(policy(), view(tier=TEACHER), down)) == (TEACHER, Reason.OVERRIDE)


def test_the_score_is_told_whatever_decided() -> None:
    decision = decide(policy(), view(tier=TEACHER), SURE)
    assert (decision.score, decision.threshold) == (0.9, None)


def test_draws_are_uniform_nested_and_independent_by_purpose() -> None:
    ids = [f"req-{i}" for i in range(20_000)]
    audited = {i for i in ids if drawn(i, 0.02)}
    explored = {i for i in ids if drawn(i, 0.02, "explore")}
    assert 300 < len(audited) < 500
    assert 300 < len(explored) < 500
    assert len(audited & explored) < 30
    assert audited <= {i for i in ids if drawn(i, 0.2)}
    assert all(drawn(i, 1.0) and not drawn(i, 0.0) for i in ids[:100])
