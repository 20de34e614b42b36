"""The policy file's model: what a user declares, validated whole, never changed after loading."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from router.contracts.bundles import FormName
from router.contracts.prices import Price
from router.contracts.records import Rights
from router.errors import PolicyError
from router.policy.distillation import Distil
from router.policy.engines import (
    ENGINES,
    EncoderKind,
    EngineName,
    EngineTraits,
    FormChoice,
    HeededFields,
    form_of,
    heeded_by,
)
from router.policy.judges import Judge, Normalised
from router.policy.objective import BaseUrl, Objective, Part


class UnfitFor(Part):
    """What the student is declared unable to do; such requests go to the teacher by *capability*."""

    images: bool = True
    """Requests with images."""
    tools: bool | None = None
    """Requests with tools. Without a word they are the teacher's until a bundle has proven on audited ones that its
    student calls what the teacher calls; ``false`` lets it try before, ``true`` never."""
    json_schema: bool = False
    """Requests that ask for an answer by a JSON schema."""
    context_tokens_over: int = Field(4096, gt=0)
    """Requests of more tokens than this."""
    languages: tuple[str, ...] = ()
    """Requests in these languages, by code (``de``)."""
    fields: tuple[str, ...] = ()
    """Fields of a request that its server would drop, beside those that its engine is known to."""


class StudentPart(Part):
    """The student tier: exactly one of ``engine`` and ``url`` says where it is."""

    model: str
    """Its name: a base student that Locum knows, a Hugging Face folder, or as the server at ``url`` calls it; of label
    heads any, ``label-head`` without one."""
    engine: EngineName | None = None
    """What starts it here: ``embedded`` (torch) or ``llama-server``. ``head``: no language model but label heads, which
    answer in the proxy itself, for kinds of requests whose answers are a closed set."""
    form: FormChoice = "auto"
    """What a round makes of a trained student, evaluates and serves. ``auto``: ``bf16`` for the embedded engine,
    ``q8_0`` for llama-server. The embedded engine reads ``int8`` too (a little over half the memory), llama-server
    ``q4_0`` (smaller still, and coarse). A student by URL is published as it was trained. What is live keeps the form
    that the gate saw; another one comes with the next trained student."""
    url: BaseUrl | None = None
    """Any OpenAI-compatible server, such as http://vllm:8000/v1, in the place of ``engine``."""
    api_key_env: str | None = None
    """The environment variable that holds its key."""
    usd_per_million: Price
    """What its tokens cost you: the machine's hour, spread over what it answers; of label heads nothing, unless you say
    otherwise."""
    unfit_for: UnfitFor = UnfitFor()
    """What it is declared unable to do."""
    may_ignore: tuple[str, ...] = ()
    """Fields of a request that it cannot heed and need not (a client that always sends ``reasoning_effort``, say): they
    are left out for the student, instead of sending all to the teacher."""
    temperature: float = Field(0.0, ge=0, le=2)
    """By what temperature it answers where the client says none; the client's word wins. 0 is greedy: the answer is the
    one that it was certified by. It is asked so wherever it is measured, and header and record tell of it."""
    timeout_seconds: float = Field(60.0, gt=0)
    """How long one wait for it may take, in seconds."""

    @model_validator(mode="before")
    @classmethod
    def heads_have_defaults(cls, said: Any) -> Any:
        if isinstance(said, dict) and said.get("engine") == "head":
            return {"model": "label-head", "usd_per_million": {"input": 0, "output": 0}, **said}
        return said

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

    @property
    def traits(self) -> EngineTraits:
        """What is to know of its engine."""
        return ENGINES[self.engine]

    @property
    def may_call(self) -> bool:
        """Whether it may ever be asked with tools, so that it learns and is measured with them."""
        return not self.unfit_for.tools and self.heeded.unheeded({"tools": [{}]}) is None

    @cached_property
    def heeded(self) -> HeededFields:
        """Which fields of a request this student heeds."""
        return heeded_by(self.engine, unfit=self.unfit_for.fields, ignored=self.may_ignore)


class TeacherPart(Part):
    """The teacher tier."""

    model: str
    """A litellm model string such as openai/gpt-6.1-sol; with ``url``, as the server there calls it."""
    url: BaseUrl | None = None
    """Any OpenAI-compatible server."""
    api_key_env: str | None = None
    """The environment variable that holds its key. OpenAI's and Anthropic's have their usual names where none is
    given."""
    usd_per_million: Price | None = None
    """Overrides litellm's price map, and is needed where the map lacks the model."""
    top_logprobs: int = Field(0, ge=0, le=20)
    """How many of its likeliest tokens to record at each position of its answers, to distil from; 0: none. It is asked
    for them beside what the client asks, where an answer of text alone may be learned from, and the client never sees
    them; a client that asks for its own gets those, and they are recorded. About 20 bytes a token and position on the
    disk: at 20, 190 KB for an answer of 500 tokens."""
    training_rights: Rights = Rights.UNKNOWN
    """May its answers be trained on, by its terms? ``unknown`` counts as ``forbidden``."""
    i_have_the_right_to_train_on: tuple[str, ...] = ()
    """Models whose answers you have the right to train on, by name, whatever the terms say."""
    fallbacks: tuple[str, ...] = ()
    """Litellm model strings, asked in turn where this one fails."""
    timeout_seconds: float = Field(120.0, gt=0)
    """How long one wait for it may take, in seconds."""


class EmbeddingsPart(Part):
    """What answers ``/v1/embeddings``."""

    model: str
    """A litellm model string; with ``url``, as the server there calls it."""
    url: BaseUrl | None = None
    """Any OpenAI-compatible server."""
    api_key_env: str | None = None
    """The environment variable that holds its key."""
    usd_per_million: Decimal | None = Field(None, ge=0)
    """What a million input tokens cost: overrides litellm's price map, and is needed where the map lacks the model."""
    timeout_seconds: float = Field(60.0, gt=0)
    """How long one wait for it may take, in seconds."""


class AuditPart(Part):
    """Exploration: of some requests, drawn at random, the other tier answers too, after the client has its answer."""

    rate: float = Field(0.02, ge=0, le=1)
    """The share of the traffic that is drawn, whatever was decided."""
    warmup_rate: float = Field(0.2, ge=0, le=1)
    """Holds instead while nothing serves from the student yet: it costs no teacher call, since the teacher answers
    everything then. It holds too, if it is more, while parity looks broken or was, until what is certified anew serves
    about as much as looks possible."""
    explore: float = Field(0.01, ge=0, le=1)
    """The share of the student's requests that the teacher answers instead, so that training data still covers them:
    audited requests are never trained on."""
    usd_per_day: Decimal = Field(Decimal(2), ge=0)
    """What audits may cost a day, judges included."""
    concurrency: int = Field(1, gt=0)
    """How many are answered in the background at once."""


class AcceptPart(Part):
    """How the student's answers are chosen: by ``routing``, ``cascade`` or both; a bundle holds for those it was fitted
    with."""

    hold_tokens: int = Field(24, ge=0)
    """So many of a stream's tokens are seen before any of it leaves."""
    routing: bool = True
    """The request's score decides whether the student is asked at all, else it is asked always."""
    cascade: bool = True
    """The student's answer's own probability decides whether it leaves, else every answer does that is in order."""
    samples: int = Field(0, ge=0, le=4)
    """So many more answers are drawn at most where the first one's probability falls short and where agreement among
    them is likely enough to save a teacher's answer, by what both cost; 0: none. They take as long as the longest of
    them once more."""

    @model_validator(mode="after")
    def one_look_at_least(self) -> Self:
        if not self.routing and not self.cascade:
            raise ValueError("accept: with neither 'routing' nor 'cascade' nothing would hold a student's answer back")
        if self.samples and not self.cascade:
            raise ValueError("accept: 'samples' belong to the cascade, so they need 'cascade: true'")
        return self


class ScorerPart(Part):
    """How the scorer reads text. It holds from the next scorer that is fitted."""

    encoder: EncoderKind = "static"
    """``static``: an embedding distilled from all-MiniLM-L6-v2, a table look-up. ``transformer``: that model itself. It
    costs about 20 ms of CPU a decision for a short message and 160 for 500 tokens or more, where the other costs 0.1
    to 0.3; as much again for every example in fitting; and 300 MB in each worker, which takes one such decision at a
    time, beside its event loop. Measured on MMLU it gained nothing (APGR .697, beside the static one .702)."""


class Conversation(Part):
    """What later turns of a conversation owe to earlier ones."""

    affinity: Literal["upward", "none"] = "upward"
    """``upward``: one that escalated stays with the teacher. ``none``: each turn is decided by itself."""
    idle_seconds: float = Field(14_400.0, gt=0, le=2_592_000)
    """After so long without an answer of the teacher's (4 hours) it is decided anew: a name that a client gives to one
    conversation after another, or to all of them, does not keep them with the teacher for ever."""


class LimitsPart(Part):
    """How long a client waits, in seconds."""

    first_token_seconds: float = Field(120.0, gt=0)
    """For a stream's first token."""
    total_seconds: float = Field(600.0, gt=0)
    """For the whole answer."""
    keep_alive_seconds: float = Field(15.0, gt=0)
    """In silence, before a stream under way is kept alive by a comment."""


class Rule(Part):
    """Sends some requests to one tier."""

    when: dict[str, Any]
    """Dotted path into the request, and the value it must have there (a list: any of them); all of them must hold."""
    send: Literal["student", "teacher"]
    """Who answers such a request."""


PersonalKind = Literal["email", "phone", "card", "iban", "ip", "secret"]


class LogPart(Part):
    """What the log keeps."""

    text: bool = True
    """Whether what was asked and answered is kept. Without it nothing is trained on."""
    redact: tuple[PersonalKind, ...] = ("email", "phone", "card", "secret")
    """What is replaced by a mark before it is written. A request that this changes, or whose answer it changes, is
    neither trained on nor measured by, since nothing would be learnt of what was said; `locum status` counts them."""
    redact_except: Mapping[str, tuple[PersonalKind, ...]] = Field(default_factory=dict)
    """By task tag (``metadata.task``), what of ``redact`` is kept as it was said, so that a task can be learnt whose
    answers are personal data: ``{extract-email: [email]}``. Where a parity is promised, a student's answers that hold
    any other are the teacher's to give."""
    files: Literal["keep", "hash", "none"] = "keep"
    """Images, sound and documents inside messages: kept, once however many turns repeat them and as long as a record
    holds them; or their hashes alone; or nothing."""
    retention_days: int = Field(30, gt=0)
    """How long a record is kept."""

    @model_validator(mode="after")
    def exempts_what_it_redacts(self) -> Self:
        for task, kinds in self.redact_except.items():
            if not task or not kinds or (idle := set(kinds) - set(self.redact)):
                what = f"{', '.join(sorted(idle))} is not in 'redact'" if task and kinds else "say which task, and what"
                raise ValueError(f"log: 'redact_except' of {task!r}: {what}")
        return self

    def kinds(self, task: str | None) -> tuple[PersonalKind, ...]:
        """What is redacted of requests with this task tag (None: without one)."""
        kept = self.redact_except.get(task, ()) if task is not None else ()
        return tuple(kind for kind in self.redact if kind not in kept) if kept else self.redact


class Policy(Part):
    """One policy: what a client-visible model name means."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """Clients reach it as ``locum/NAME``; not ``student`` or ``teacher``, which force a tier."""
    aliases: tuple[str, ...] = ()
    """Further names for it, such as the one that your client asks for already."""
    student: StudentPart
    """The tier that stands in."""
    teacher: TeacherPart
    """The tier that is stood in for."""
    embeddings: EmbeddingsPart | None = None
    """What answers ``/v1/embeddings``; without it nothing does."""
    objective: Objective
    """What routing aims at."""
    audit: AuditPart = AuditPart()
    """How much is checked by asking the other tier too."""
    scorer: ScorerPart = ScorerPart()
    """How requests are read."""
    accept: AcceptPart = AcceptPart()
    """When a student's answer may leave."""
    conversation: Conversation = Conversation()
    """What later turns owe to earlier ones."""
    limits: LimitsPart = LimitsPart()
    """How long a client waits."""
    fallback: Literal["certified", "any", "none"] = "certified"
    """Who stands in where every teacher failed. ``certified``: where a parity is promised, the student only while it
    serves by a threshold that audits certified for it; under the other objectives, which certify nothing, whichever
    student is there. ``any``: whichever is there. ``none``: nobody, and the client is told of the failure."""
    rules: tuple[Rule, ...] = ()
    """Your own: the first that holds decides, before any score."""
    log: LogPart = LogPart()
    """What is kept of requests and answers."""
    judge: Judge = Normalised()
    """Who says whether the student's answer is as good as the teacher's: a name, or a name with settings."""
    distil: Distil = Distil()
    """When and how the student is trained anew."""

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

    @model_validator(mode="after")
    def other_label_teacher(self) -> Self:
        labels, teacher = self.distil.labels_from, self.teacher
        if labels is None:
            return self
        if is_model(labels.model, teacher.model) and labels.url == teacher.url and not self.may_train_on_teacher:
            raise ValueError(
                f"distil: 'labels_from' names the served teacher, {teacher.model}, whose answers may not be trained on "
                f"(training_rights: {teacher.training_rights.value}): name another, or state the right in 'teacher'"
            )
        if not self.log.text:
            raise ValueError("distil: 'labels_from' has logged prompts answered, so it needs 'log.text: true'")
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
        return self.teacher.training_rights is Rights.ALLOWED or any(
            is_model(self.teacher.model, name) for name in self.teacher.i_have_the_right_to_train_on
        )


_SNAPSHOT = r"(-\d{4}-?\d{2}-?\d{2})?"


def is_model(answered: str, named: str) -> bool:
    """Whether the model that answered is the one that a policy names.

    A provider that only one of them gives in front (``openai/gpt-5``), and the date of a snapshot
    behind (``gpt-5-2025-08-07``), don't make another model; another provider or anything else does.
    """
    if "/" not in answered or "/" not in named:
        answered, named = answered.rsplit("/", 1)[-1], named.rsplit("/", 1)[-1]
    return re.fullmatch(re.escape(named) + _SNAPSHOT, answered) is not None


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
