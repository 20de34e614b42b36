"""The policy file's model: what a user declares, validated whole, never changed after loading."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from router.abilities import EngineName, Heeded, heeded_by
from router.contracts.distil import Distil
from router.contracts.encoders import EncoderKind
from router.contracts.forms import FormChoice, FormName, form_of
from router.contracts.judges import Judge, Normalised
from router.contracts.prices import Price
from router.contracts.records import Rights
from router.errors import PolicyError


class Part(BaseModel):
    """A part of the policy file: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class UnfitFor(Part):
    """What the student is declared unable to do; such requests go to the teacher by *capability*.

    ``fields``: fields of a request that its server would drop, beside those that its engine is known to.
    """

    images: bool = True
    tools: bool = True
    json_schema: bool = False
    context_tokens_over: int = Field(4096, gt=0)
    languages: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()


class StudentPart(Part):
    """The student tier. ``engine`` starts one here; ``url`` names any OpenAI-compatible server.

    ``may_ignore``: fields of a request that it cannot heed and need not (a client that always sends
    ``reasoning_effort``, say): they are left out for the student, instead of sending all to the teacher.

    ``form`` is what a round makes of a trained student, evaluates and serves. ``auto``: ``bf16`` for the embedded
    engine, ``q8_0`` for llama-server. The embedded engine reads ``int8`` too (a little over half the memory),
    llama-server ``q4_0`` (smaller still, and coarse). A student by URL is published as it was trained. What is
    live keeps the form that the gate saw; another one comes with the next trained student.
    """

    model: str
    engine: EngineName | None = None
    form: FormChoice = "auto"
    url: str | None = None
    api_key_env: str | None = None
    usd_per_million: Price
    unfit_for: UnfitFor = UnfitFor()
    may_ignore: tuple[str, ...] = ()
    timeout_seconds: float = Field(60.0, gt=0)

    @model_validator(mode="after")
    def one_place(self) -> Self:
        if (self.engine is None) == (self.url is None):
            raise ValueError("student: give exactly one of 'engine' and 'url'")
        form_of(self.engine, self.form)
        return self

    @property
    def served_form(self) -> FormName:
        """The form in which a trained student serves."""
        return form_of(self.engine, self.form)

    @cached_property
    def heeded(self) -> Heeded:
        """Which fields of a request this student heeds."""
        return heeded_by(self.engine, unfit=self.unfit_for.fields, ignored=self.may_ignore)


class TeacherPart(Part):
    """The teacher tier. Without ``url``, ``model`` is a litellm model string such as openai/gpt-5.

    ``usd_per_million`` overrides litellm's price map, and is needed where the map lacks the model.

    ``top_logprobs``: how many of its likeliest tokens to record at each position of its answers, to distil from; 0:
    none. It is asked for them beside what the client asks, where an answer of text alone may be learned from, and
    the client never sees them; a client that asks for its own gets those, and they are recorded. About 20 bytes
    a token and position on the disk: at 20, 190 KB for an answer of 500 tokens.
    """

    model: str
    url: str | None = None
    api_key_env: str | None = None
    usd_per_million: Price | None = None
    top_logprobs: int = Field(0, ge=0, le=20)
    training_rights: Rights = Rights.UNKNOWN
    i_have_the_right_to_train_on: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    timeout_seconds: float = Field(120.0, gt=0)


class EmbeddingsPart(Part):
    """What answers ``/v1/embeddings``. Without ``url``, ``model`` is a litellm model string.

    ``usd_per_million`` input tokens overrides litellm's price map, and is needed where the map lacks the model.
    """

    model: str
    url: str | None = None
    api_key_env: str | None = None
    usd_per_million: Decimal | None = Field(None, ge=0)
    timeout_seconds: float = Field(60.0, gt=0)


class Parity(Part):
    """Quality floor: parity of at least ``at_least``, shown at ``confidence`` by an exact test.

    It is promised for the next ``over_requests`` requests together, whose own luck the test allows for: who
    counts them finds the floor broken no more often than promised. Null promises the long run alone.
    """

    at_least: float = Field(0.95, gt=0, lt=1)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    over_requests: int | None = Field(1000, gt=0)


class Objective(Part):
    """What routing aims at: exactly one of the four.

    ``usd_per_day`` is a cap as well, on what the teachers and the embeddings cost for clients (audits have their own).
    What an answer can cost at most is held before it is asked for; the cap is passed by one answer at most.
    ``when_spent`` says what happens then to what would go to the teacher, whatever sends it there: the ``student``
    answers, as where nothing is said, and what it cannot do gets a 429 that tells when there is money again; or all
    of it does (``refuse``).
    """

    parity: Parity | None = None
    student_share: float | None = Field(None, ge=0, le=1)
    usd_per_day: Decimal | None = Field(None, ge=0)
    threshold: float | None = Field(None, ge=0)
    when_spent: Literal["student", "refuse"] | None = None

    @model_validator(mode="after")
    def exactly_one(self) -> Self:
        named = [n for n in ("parity", "student_share", "usd_per_day", "threshold") if getattr(self, n) is not None]
        if len(named) != 1:
            raise ValueError(
                f"objective: give exactly one of parity, student_share, usd_per_day, threshold, not {named}"
            )
        if self.when_spent is not None and self.usd_per_day is None:
            raise ValueError("objective: 'when_spent' belongs to 'usd_per_day'")
        return self


class AuditPart(Part):
    """Exploration. ``rate`` of the traffic is drawn whatever was decided; both tiers answer those.

    While nothing serves from the student yet, ``warmup_rate`` holds instead: it costs no teacher
    call, since the teacher answers everything then. It holds too, if it is more, while parity looks broken
    or was, until what is certified anew serves about as much as looks possible. ``concurrency`` bounds
    background answers.

    Audited requests are never trained on. So that training data still covers what the student
    serves, the teacher answers ``explore`` of the student's share instead of it.
    """

    rate: float = Field(0.02, ge=0, le=1)
    warmup_rate: float = Field(0.2, ge=0, le=1)
    explore: float = Field(0.01, ge=0, le=1)
    usd_per_day: Decimal = Field(Decimal(2), ge=0)
    concurrency: int = Field(1, gt=0)


class Accept(Part):
    """How the student's answers are chosen. ``routing``: the request's score decides whether the student is
    asked at all, else it is asked always; ``cascade``: its answer's own probability decides whether that leaves,
    else every answer does that is in order. At least one of them; a bundle holds for those it was fitted with.

    ``hold_tokens`` of a stream are seen before any of it leaves. Up to ``samples`` more answers are drawn where
    the first one's probability falls short and where agreement among them is likely enough to save a
    teacher's answer, by what both cost; 0: none. They take as long as the longest of them once more.
    """

    hold_tokens: int = Field(24, ge=0)
    routing: bool = True
    cascade: bool = True
    samples: int = Field(0, ge=0, le=4)

    @model_validator(mode="after")
    def one_look_at_least(self) -> Self:
        if not self.routing and not self.cascade:
            raise ValueError("accept: with neither 'routing' nor 'cascade' nothing would hold a student's answer back")
        if self.samples and not self.cascade:
            raise ValueError("accept: 'samples' belong to the cascade, so they need 'cascade: true'")
        return self


class ScorerPart(Part):
    """How the scorer reads text. ``static``: an embedding distilled from all-MiniLM-L6-v2, a table look-up;
    ``transformer``: that model itself. That costs about 20 ms of CPU a decision for a short message and 160 for 500
    tokens or more, where the other costs 0.1 to 0.3; as much again for every example in fitting; and 300 MB in each
    worker, which takes one such decision at a time, beside its event loop. Measured on MMLU it gained nothing (APGR
    .697, beside the static one .702). It holds from the next scorer that is fitted.
    """

    encoder: EncoderKind = "static"


class Conversation(Part):
    affinity: Literal["upward", "none"] = "upward"


class LimitsPart(Part):
    """How long a client waits: for a stream's first token, for the whole answer, and in how much silence
    before a stream under way is kept alive by a comment."""

    first_token_seconds: float = Field(120.0, gt=0)
    total_seconds: float = Field(600.0, gt=0)
    keep_alive_seconds: float = Field(15.0, gt=0)


class Rule(Part):
    """``when``: dotted path into the request -> the value it must have (a list: any of them)."""

    when: dict[str, Any]
    send: Literal["student", "teacher"]


class LogPart(Part):
    """What the log keeps. ``files``: images, sound and documents inside messages, once however many turns repeat them
    and as long as a record holds them; or their hashes alone; or nothing."""

    text: bool = True
    redact: tuple[Literal["email", "phone", "card", "iban", "ip", "secret"], ...] = ("email", "phone", "card", "secret")
    files: Literal["keep", "hash", "none"] = "keep"
    retention_days: int = Field(30, gt=0)


class Policy(Part):
    """One policy: what a client-visible model name means."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    aliases: tuple[str, ...] = ()
    student: StudentPart
    teacher: TeacherPart
    embeddings: EmbeddingsPart | None = None
    objective: Objective
    audit: AuditPart = AuditPart()
    scorer: ScorerPart = ScorerPart()
    accept: Accept = Accept()
    conversation: Conversation = Conversation()
    limits: LimitsPart = LimitsPart()
    rules: tuple[Rule, ...] = ()
    log: LogPart = LogPart()
    judge: Judge = Normalised()
    distil: Distil = Distil()

    @model_validator(mode="after")
    def share_by_routing(self) -> Self:
        if self.objective.student_share is not None and not self.accept.routing:
            raise ValueError("objective: a student_share is kept by routing, so it needs 'accept.routing: true'")
        return self

    @model_validator(mode="after")
    def logprobs_with_text(self) -> Self:
        if self.teacher.top_logprobs and not self.log.text:
            raise ValueError("teacher: 'top_logprobs' spell the answers, so they need 'log.text: true'")
        return self

    @field_validator("name")
    @classmethod
    def not_a_tier(cls, name: str) -> str:
        if name in ("student", "teacher"):
            raise ValueError("a policy cannot be called 'student' or 'teacher': those names force a tier")
        return name

    @property
    def version(self) -> str:
        """The first 12 hex digits of the SHA-256 over the policy's content, so that an edit is a new version."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    @property
    def may_train_on_teacher(self) -> bool:
        """Whether the teacher's answers may reach a training set: by its terms, or by the user's word, by name."""
        return (
            self.teacher.training_rights is Rights.ALLOWED
            or self.teacher.model in self.teacher.i_have_the_right_to_train_on
        )


def load_policy(path: Path) -> Policy:
    """Reads and validates one policy file.

    Raises:
        PolicyError: the file is missing, is no YAML, or breaks the model; the message says where.
    """
    try:
        return Policy.model_validate(yaml.safe_load(path.read_text()))
    except OSError as e:
        raise PolicyError(f"cannot read policy {path}: {e.strerror}") from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise PolicyError(f"{path} is not valid YAML: {e}") from e
    except ValidationError as e:
        where = "; ".join(f"{'.'.join(map(str, x['loc'])) or 'policy'}: {x['msg']}" for x in e.errors())
        raise PolicyError(f"{path}: {where}") from e


def json_schema() -> str:
    """The JSON schema of policy files, as ``policies/policy.schema.json`` keeps it for editors."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Policy.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
