"""Batching changes how fast answers come, never what they are: checked against transformers itself, in fp32."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from router.engine.generation import BatchRow, Delta, Job, Sampling, Token
from router.engine.model import Model
from router.engine.sampler import pick
from router.engine.scheduler import MAX_ROWS, PATIENCE_SECONDS, Batch, Scheduler
from router.engine.text import Detokenizer, StopScanner
from router.errors import BadRequest, EngineError, NotFound

GREEDY = Sampling(temperature=0)


@pytest.fixture(scope="module")
def model(tiny: Path) -> Model:
    return Model.load("tiny", tiny, "fp32")


@pytest.fixture
def scheduler(model: Model) -> Iterator[Scheduler]:
    one = Scheduler(threads=1)
    one.add(model)
    one.start()
    yield one
    one.stop()


class Waiter:
    """Submits jobs and waits for their ends."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def submit(self, job: Job) -> tuple[BatchRow, list[Delta], threading.Event]:
        deltas: list[Delta] = []
        ended = threading.Event()

        def emit(delta: Delta) -> None:
            deltas.append(delta)
            if delta.finish:
                ended.set()

        return self._scheduler.submit("tiny", job, emit), deltas, ended

    def answers(self, jobs: list[Job]) -> list[Delta]:
        started = [self.submit(job) for job in jobs]
        for _, _, ended in started:
            assert ended.wait(60)
        return [deltas[-1] for _, deltas, _ in started]


def ids(delta: Delta) -> list[int]:
    return [t.id for t in delta.tokens]


def prompts(model: Model, count: int) -> list[tuple[int, ...]]:
    shared = [{"role": "system", "content": "You name the team that a message goes to, in one word."}]
    texts = [f"Message {i}: " + "the parcel is late " * (i % 7 + 1) for i in range(count)]
    return [model.encode([*shared, {"role": "user", "content": t}]) for t in texts]


def reference(model: Model, prompt: tuple[int, ...], tokens: int) -> list[int]:
    import torch

    out: Any = model.network.generate(
        torch.tensor([prompt]), max_new_tokens=tokens, do_sample=False, pad_token_id=0, eos_token_id=list(model.ends)
    )
    answer = out[0, len(prompt) :].tolist()
    return [t for t in answer if t not in model.ends]


def test_a_full_house_gets_what_transformers_gives_each_alone(model: Model, scheduler: Scheduler) -> None:
    """More jobs than rows, of many lengths, joining and leaving; the second round starts from learnt prefixes."""
    asked = prompts(model, MAX_ROWS + 8)
    jobs = [Job(p, 3 + i % 9, GREEDY) for i, p in enumerate(asked)]
    expected = [reference(model, job.prompt, job.max_tokens) for job in jobs]
    for _ in range(2):
        assert [ids(a) for a in Waiter(scheduler).answers(jobs)] == expected


def test_log_probabilities_are_the_models_own(model: Model, scheduler: Scheduler) -> None:
    import torch

    prompt = prompts(model, 1)[0]
    (answer,) = Waiter(scheduler).answers([Job(prompt, 6, Sampling(temperature=0, top=2))])
    with torch.inference_mode():
        logits = model.network(torch.tensor([[*prompt, *ids(answer)]])).logits[0]
    for i, token in enumerate(answer.tokens):
        expected = logits[len(prompt) - 1 + i].log_softmax(-1)
        assert token.logprob == pytest.approx(float(expected[token.id]), abs=1e-4)
        assert token.top[0] == (token.id, pytest.approx(token.logprob))
        assert token.top[1][1] <= token.top[0][1]


def test_a_seed_gives_the_same_draws_whoever_shares_the_batch(model: Model, scheduler: Scheduler) -> None:
    asked = prompts(model, 6)
    drawn = Job(asked[0], 8, Sampling(temperature=1.0, top_p=0.9, seed=7))
    (alone,) = Waiter(scheduler).answers([drawn])
    together = Waiter(scheduler).answers([drawn, *(Job(p, 8, Sampling(temperature=1.0)) for p in asked[1:])])
    assert ids(together[0]) == ids(alone)


def test_a_narrow_nucleus_is_greedy(model: Model, scheduler: Scheduler) -> None:
    prompt = prompts(model, 1)[0]
    greedy, narrow = Waiter(scheduler).answers(
        [Job(prompt, 6, GREEDY), Job(prompt, 6, Sampling(temperature=1.0, top_p=1e-6, seed=1))]
    )
    assert ids(narrow) == ids(greedy)


def test_a_penalty_keeps_an_answer_from_going_round(model: Model, scheduler: Scheduler) -> None:
    """A penalty out of all proportion: no token comes twice, greedy or drawn."""
    prompt = prompts(model, 1)[0]
    steep = [Sampling(temperature=0, frequency_penalty=1e4), Sampling(temperature=1, presence_penalty=1e4, seed=3)]
    for answer in Waiter(scheduler).answers([Job(prompt, 60, s) for s in steep]):
        assert len(set(ids(answer))) == len(ids(answer)) > 0


def test_penalties_work_as_openai_documents_them(model: Model) -> None:
    import torch

    sampling = Sampling(temperature=0, presence_penalty=0.5, frequency_penalty=0.25)
    row = BatchRow(Job((1,), 9, sampling), lambda _: None, Detokenizer(model.decode), StopScanner(()))
    for seen in (2, 2, 2, 0):
        row.push(Token(seen, -1.0), is_end=False)
    logits = torch.tensor([[1.0, 0.2, 1.4, 0.3]])  # less 0.75, 0, 1.25 and 0
    token = pick(logits, [row])[0]
    assert token.id == 3
    assert token.logprob == pytest.approx(float(logits[0].log_softmax(-1)[3])), "the model's own, not the bent one"


TEAM = {
    "type": "object",
    "properties": {
        "team": {"enum": ["billing", "shipping"]},
        "hours": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["team", "hours"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_an_answer_held_to_a_schema_fits_it_whatever_the_model_would_say(
    model: Model, scheduler: Scheduler, temperature: float
) -> None:
    """A model of random weights would say anything, and does in the row beside those that are held."""
    form = model.forms.of(TEAM)
    asked = prompts(model, 6)
    drawn = [Sampling(temperature=temperature, seed=i) for i in range(6)]
    held = [Job(p, 120, s, (), False, form.fresh()) for p, s in zip(asked, drawn, strict=True)]
    *fitting, free = Waiter(scheduler).answers([*held, Job(asked[0], 20, GREEDY)])
    for answer in fitting:
        assert answer.finish == "stop"
        jsonschema.validate(json.loads(answer.text), TEAM)
    assert ids(free) == reference(model, asked[0], 20)


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"$ref": "http://127.0.0.1:9/x"}, {"allOf": 3}])
def test_a_schema_that_cannot_be_held_to_is_refused(model: Model, schema: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as refused:
        model.forms.of(schema)
    assert refused.value.param == "response_format"


def order_of(model: Model, *waiting: tuple[str, bool], overdue: bool = False) -> list[str]:
    """The order in which one-token jobs, named and yielding or not, come out; ``overdue``: those that yield
    have waited for longer than they are passed over."""
    import torch

    batch, began = Batch(model), list[str]()
    for name, yields in waiting:
        job = Job(prompts(model, 1)[0], 1, GREEDY, yields=yields)

        def emit(_: Delta, name: str = name) -> None:
            began.append(name)

        row = BatchRow(job, emit, Detokenizer(model.decode), StopScanner(()))
        row.since -= PATIENCE_SECONDS + 1 if yields and overdue else 0
        batch.queue(row)
    with torch.inference_mode():
        while batch.busy:
            batch.turn()
    return began


def test_what_yields_begins_after_what_came_later_but_is_not_passed_over_for_ever(model: Model) -> None:
    waiting = (("audit", True), ("first", False), ("second", False))
    assert order_of(model, *waiting) == ["first", "second", "audit"]
    assert order_of(model, *waiting, overdue=True) == ["audit", "first", "second"]


def test_a_cancelled_row_leaves_and_the_others_do_not_notice(model: Model, scheduler: Scheduler) -> None:
    asked, waiter = prompts(model, 3), Waiter(scheduler)
    row, deltas, _ = waiter.submit(Job(asked[0], 400, GREEDY, stream=True))
    (other,) = waiter.answers([Job(asked[1], 5, GREEDY)])
    row.cancelled = True
    waiter.answers([Job(asked[2], 5, GREEDY)])
    came = len(deltas)
    waiter.answers([Job(asked[2], 5, GREEDY)])
    assert len(deltas) == came
    assert ids(other) == reference(model, asked[1], 5)


def test_a_step_that_breaks_costs_its_own_rows_only(
    model: Model, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiter, job = Waiter(scheduler), Job(prompts(model, 1)[0], 5, GREEDY)
    with monkeypatch.context() as broken:
        broken.setattr(Model, "step", lambda *_: 1 / 0)
        assert waiter.answers([job])[0].finish == "error"
    assert ids(waiter.answers([job])[0]) == reference(model, job.prompt, 5)


def test_a_removed_version_finishes_what_it_began_and_takes_no_more(model: Model, scheduler: Scheduler) -> None:
    waiter = Waiter(scheduler)
    _, deltas, ended = waiter.submit(Job(prompts(model, 1)[0], 40, GREEDY))
    scheduler.remove("tiny")
    with pytest.raises(NotFound):
        waiter.submit(Job((1,), 1))
    assert ended.wait(30)
    assert deltas[-1].finish != "error"


def test_a_folder_without_a_model_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot load student 'x'"):
        Model.load("x", tmp_path)
