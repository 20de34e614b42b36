"""Asks a student questions over its own wire, many at once, and keeps every answer as it arrives.

One JSON line an answer, so that a killed evaluation goes on where it stopped, and no student is ever
asked the same question twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from router.contracts.logprobs import within_answer
from router.contracts.records import Signals
from router.errors import EngineError, JudgeError
from router.judges.judge import Judges
from router.judges.pair import Pair
from router.judges.soundness import AnswerSoFar, structural
from router.policy.engines import SAMPLING
from router.policy.judges import Normalised
from router.policy.policy import AcceptPart
from router.scoring.signals import of_answer
from router.scoring.text.features import Features

if TYPE_CHECKING:
    from aiohttp import ClientSession

LOGPROBS = {"logprobs": True}
LONGER, LEAST_TOKENS, UNKNOWN_TOKENS = 4, 256, 1024
"""An answer that nobody limited is ended when it is so many times as long as the teacher's, and that many tokens at
least; at the last where it is unknown how long that was. One that goes on and on would hold up a round for hours."""


@dataclass(frozen=True, slots=True)
class StudentQuestion:
    """One request as its client asked it, with the teacher's answer to it, how long that was (0: unknown), and whether
    it is right where somebody could tell.

    ``slices`` are the groups it counts in, such as ``task=intent``; ``weight`` is how many requests
    like it it stands for. ``streamed``: the client had it streamed.
    """

    request_id: str
    body: Mapping[str, Any]
    teacher: Mapping[str, Any]
    features: Features
    slices: tuple[str, ...]
    task: str | None = None
    weight: float = 1.0
    streamed: bool = False
    teacher_right: bool | None = None
    teacher_tokens: int = 0

    @property
    def patience_tokens(self) -> int | None:
        """How long an answer may become that its client did not limit; None where it did."""
        if self.body.get("max_tokens") is not None or self.body.get("max_completion_tokens") is not None:
            return None
        return max(LEAST_TOKENS, LONGER * self.teacher_tokens) if self.teacher_tokens else UNKNOWN_TOKENS


class StudentAnswer(BaseModel):
    """What one student said to one question. ``message`` is OpenAI's assistant message.

    ``verdict`` is whether it is as good as the teacher's, by the judge whose label is ``judged_by``, where its
    word is worth keeping (None: it could not tell), or by a person (``judged_by`` is None); one that was ended for its
    length, which its client did not limit, is not as good, whoever might judge (``judged_by`` is None). ``right`` and
    ``teacher_right``: whether it and the teacher's are right, by a judge or a user who could tell without comparing.
    ``default_temperature`` is what the policy had a student answer by where the client said nothing, when it did; None
    in files of older versions, which knew of none. ``kept_back``: it never leaves, whatever the threshold, since it is
    not sound (``router.judges.soundness``) or none of the answers that there are.
    """

    model_config = ConfigDict(frozen=True)

    request_id: str
    message: dict[str, Any]
    finish_reason: str | None = None
    signals: Signals | None = None
    output_tokens: int = 0
    seconds: float = 0.0
    verdict: bool | None = None
    judged_by: str | None = None
    right: bool | None = None
    teacher_right: bool | None = None
    default_temperature: float | None = None
    kept_back: bool = False


AnswersHere = Callable[[StudentQuestion, Mapping[str, Any]], dict[str, Any] | None]
"""A chat completion to a question, asked with a body; None where there is none."""


def keep_answers(path: Path, answers: Iterable[StudentAnswer]) -> None:
    """Appends answers to a JSON-lines file, each on a new line: one that a kill cut off spoils no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(b"".join(b"\n" + answer.model_dump_json().encode() for answer in answers))


def read_answers(path: Path, temperature: float | None = None) -> dict[str, StudentAnswer]:
    """The answers kept in a JSON-lines file, by request id; a line that a kill cut off is left out, and so is, given
    the policy's ``temperature``, one that was asked for by another."""
    if not path.is_file():
        return {}
    answers = {}
    for line in path.read_bytes().splitlines():
        try:
            answer = StudentAnswer.model_validate_json(line)
        except ValidationError:
            continue
        if temperature is None or answer.default_temperature == temperature:
            answers[answer.request_id] = answer
    return answers


@dataclass(frozen=True, slots=True)
class Asker:
    """A way to one student. ``url`` ends in ``/v1``; ``on_answer`` is told how many of how many are done. It is asked
    as the client asked, by the policy's ``temperature`` where the client said none: as it serves.
    ``accept`` is the policy's: the signals of as many tokens as a stream's acceptance sees are kept beside the whole
    answer's, and as many samples as it may draw are compared with the answer, as ``judges`` see it.

    ``here`` answers instead, where the student is in this process.

    A question that the student's engine refuses (too long for it, say) counts as answered with
    nothing; one on which it fails is asked again ``retries`` times.
    """

    url: str
    model: str
    in_flight: int = 16
    timeout_seconds: float = 300.0
    retries: int = 3
    accept: AcceptPart = field(default_factory=AcceptPart)
    temperature: float = 0.0
    judges: Judges = field(default_factory=lambda: Judges(Normalised()))
    api_key: str | None = field(default=None, repr=False)
    here: AnswersHere | None = None
    on_answer: Callable[[int, int], None] = lambda done, of: None

    def ask(self, questions: Sequence[StudentQuestion], kept: Path) -> dict[str, StudentAnswer]:
        """The student's answers to all questions; only those missing from ``kept`` are asked, and kept there.

        Raises:
            EngineError: a question stays unanswered after the retries.
            JudgeError: the semantic judge, by which samples are compared, has no encoder.
        """
        answers = read_answers(kept, self.temperature)
        missing = [q for q in questions if q.request_id not in answers]
        self.on_answer(len(questions) - len(missing), len(questions))
        if missing:
            fresh = asyncio.run(self._all(missing, kept, len(questions)))
            answers.update({a.request_id: a for a in fresh})
        return {q.request_id: answers[q.request_id] for q in questions}

    async def _all(self, missing: Sequence[StudentQuestion], kept: Path, total: int) -> list[StudentAnswer]:
        from aiohttp import ClientSession, ClientTimeout

        queue = iter(missing)
        answers: list[StudentAnswer] = []
        headers = {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        async with ClientSession(timeout=ClientTimeout(total=self.timeout_seconds), headers=headers) as session:

            async def worker() -> None:
                for question in queue:
                    answers.append(await self._one(session, question))
                    keep_answers(kept, answers[-1:])
                    self.on_answer(total - len(missing) + len(answers), total)

            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self.in_flight, len(missing))):
                        group.create_task(worker())
            except* EngineError as failed:
                raise EngineError(str(failed.exceptions[0])) from None
            except* JudgeError as failed:
                raise JudgeError(str(failed.exceptions[0])) from None
        return answers

    async def _one(self, session: ClientSession, question: StudentQuestion) -> StudentAnswer:
        """The answer, and where the policy draws samples how many of them agree with it."""
        start = asyncio.get_running_loop().time()
        found = await self._asked(session, question, {"temperature": self.temperature, **question.body, **LOGPROBS})
        if found is None:
            nothing = {"role": "assistant", "content": ""}
            return StudentAnswer(request_id=question.request_id, message=nothing, default_temperature=self.temperature)
        answer = self._parsed(question, found, asyncio.get_running_loop().time() - start)
        if self.accept.samples and answer.signals is not None:
            free = {name: value for name, value in question.body.items() if name not in SAMPLING}
            drawn = ({**free, "temperature": 1.0, "seed": seed} for seed in range(self.accept.samples))
            samples = [s for body in drawn if (s := await self._asked(session, question, body)) is not None]
            said = [s["choices"][0]["message"] for s in samples]
            pairs = [Pair(m, answer.message, question.body, question.task, question.request_id) for m in said]
            answer.signals.samples = self.accept.samples
            answer.signals.agreement = sum([await self.judges.same(pair) for pair in pairs]) / self.accept.samples
        return answer

    async def _asked(
        self, session: ClientSession, question: StudentQuestion, body: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """One answer's body; None where the engine refuses the question. Raises EngineError after the retries."""
        from aiohttp import ClientError

        if self.here is not None:
            return self.here(question, body)
        asked = {**body, "model": self.model}
        if "max_completion_tokens" in asked:  # as serving spells it for students
            asked.setdefault("max_tokens", asked.pop("max_completion_tokens"))
        if question.patience_tokens is not None:
            asked["max_tokens"] = question.patience_tokens
        said = ""
        for attempt in range(self.retries + 1):
            await asyncio.sleep(0.25 * 2**attempt if attempt else 0)
            try:
                async with session.post(f"{self.url}/chat/completions", json=asked) as response:
                    if response.status == 200:
                        found: dict[str, Any] = await response.json()
                        return found
                    said = f"HTTP {response.status}: {(await response.text())[:200]}"
                    if response.status in (400, 413, 422):
                        return None
            except (ClientError, TimeoutError) as e:
                said = f"{type(e).__name__}: {e}"
        raise EngineError(f"the student's engine did not answer request {question.request_id}: {said}")

    def _parsed(self, question: StudentQuestion, answer: Mapping[str, Any], seconds: float) -> StudentAnswer:
        choice = answer["choices"][0]
        message, finish_reason = choice["message"], choice.get("finish_reason")
        told, text = (choice.get("logprobs") or {}).get("content") or [], message.get("content")
        own = told[: within_answer(told, None if message.get("tool_calls") else text or "", finish_reason)]
        logprobs, texts = [t["logprob"] for t in own], [t["token"] for t in own[: self.accept.hold_tokens]]
        endless = question.patience_tokens is not None and finish_reason == "length"
        seen = AnswerSoFar(message, None if endless else finish_reason, complete=not endless)  # it would have gone on
        return StudentAnswer(
            request_id=question.request_id,
            message=message,
            finish_reason=finish_reason,
            signals=of_answer(logprobs, text, texts, self.accept.hold_tokens),
            output_tokens=len(own) or (answer.get("usage") or {}).get("completion_tokens", 0),
            seconds=seconds,
            verdict=False if endless else None,
            default_temperature=self.temperature,
            kept_back=structural(seen, self.judges.form(question.body, question.task)) is not None,
        )
