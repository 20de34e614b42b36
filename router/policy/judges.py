"""What a policy may say of who judges: one judge, or another for requests with a task's tag."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from typing_extensions import TypeAliasType

from router.contracts.prices import Price
from router.contracts.records import USERS_WORD
from router.policy.objective import BaseUrl


class Spec(BaseModel):
    """A judge's name and its settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str
    tasks: dict[str, Judge] = {}
    """Task tag (``metadata.task``), and who judges its requests instead."""

    @model_validator(mode="after")
    def one_level(self) -> Self:
        if nested := [task for task, judge in self.tasks.items() if judge.tasks]:
            raise ValueError(f"tasks: the judge for {', '.join(nested)} cannot have tasks of its own")
        return self

    @property
    def label(self) -> str:
        """Whose word a verdict is, as records keep it."""
        return self.name

    @property
    def paid(self) -> bool:
        """Whether a verdict costs money."""
        return False

    def for_task(self, task: str | None) -> Judge:
        """Who judges a request with this tag (None: without one)."""
        judge: Judge = self.tasks.get(task, self) if task is not None else self  # type: ignore[assignment]
        return judge


class Exact(Spec):
    """The same text, byte for byte."""

    name: Literal["exact"] = "exact"


class Normalised(Spec):
    """The same text but for case, white space, code fences, and quotes and punctuation around it."""

    name: Literal["normalised"] = "normalised"


class Numeric(Spec):
    """The same last number."""

    name: Literal["numeric"] = "numeric"


class Json(Spec):
    """Valid against the request's schema where it gives one, then the same value."""

    name: Literal["json"] = "json"
    arrays: Literal["ordered", "set"] = "ordered"
    """``ordered``, but where the schema says ``uniqueItems``; or every one is a ``set``."""


class ToolCalls(Spec):
    """The same tools called with equal arguments, or none by either; text is not looked at."""

    name: Literal["tool_calls"] = "tool_calls"


class Labels(Spec):
    """Exactly one label in the answer, and it is the teacher's."""

    name: Literal["labels"] = "labels"
    labels: tuple[str, ...] = ()
    """The labels; without them the teacher's answers are, as they are seen."""

    @field_validator("labels", mode="before")
    @classmethod
    def words(cls, labels: Any) -> Any:
        if isinstance(labels, list) and any(isinstance(label, bool) for label in labels):
            raise ValueError("write 'yes' and 'no' in quotes: YAML takes the bare words for true and false")
        return labels


class Semantic(Spec):
    """The static encoder's cosine of both texts is high enough."""

    name: Literal["semantic"] = "semantic"
    at_least: float = Field(0.9, gt=0, le=1)
    """The least cosine of both texts that is acceptable."""


class Llm(Spec):
    """A language model compares both answers, once in each order."""

    name: Literal["llm"] = "llm"
    model: str
    """A litellm model string; with ``url``, as the server there calls it."""
    url: BaseUrl | None = None
    """Any OpenAI-compatible server."""
    api_key_env: str | None = None
    """The environment variable that holds its key."""
    usd_per_million: Price | None = None
    """Overrides litellm's price map, and is needed where the map lacks the model."""
    timeout_seconds: float = Field(60.0, gt=0)
    """How long one wait for it may take, in seconds."""
    criteria: str | None = None
    """What counts, in your words, beside how well the request is answered."""
    options: dict[str, Any] = {}
    """Further fields of the requests to it, such as ``temperature``."""

    @property
    def label(self) -> str:
        return f"{self.name}:{self.model}"

    @property
    def paid(self) -> bool:
        price = self.usd_per_million
        return price is None or any((price.input, price.output))


class Feedback(Spec):
    """What users say of the answer that they got."""

    name: Literal["feedback"] = "feedback"
    otherwise: Judge = Field(default_factory=Normalised, json_schema_extra={"default": {"name": "normalised"}})
    """Who judges until users do, and what they never saw."""

    @model_validator(mode="after")
    def some_judge(self) -> Self:
        if isinstance(self.otherwise, Feedback) or self.otherwise.tasks:
            raise ValueError("otherwise: name a judge that is not feedback, without tasks")
        return self

    @property
    def label(self) -> str:
        return f"{USERS_WORD}, else {self.otherwise.label}"

    @property
    def paid(self) -> bool:
        return self.otherwise.paid


class OwnCallable(Spec):
    """A Python callable of yours."""

    name: Literal["callable"] = "callable"
    entry_point: str
    """Its name in the entry-point group ``locum.judges``."""

    @property
    def label(self) -> str:
        return f"{self.name}:{self.entry_point}"


Short = Literal["exact", "normalised", "numeric", "json", "tool_calls", "labels", "semantic", "feedback"]
"""Judges that need no settings: a policy may give the name alone."""

AnyJudge = TypeAliasType(
    "AnyJudge",
    Annotated[
        Exact | Normalised | Numeric | Json | ToolCalls | Labels | Semantic | Llm | Feedback | OwnCallable,
        Field(discriminator="name"),
    ],
)


def _whole(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Judge = TypeAliasType("Judge", Annotated[AnyJudge, BeforeValidator(_whole, json_schema_input_type=Short | AnyJudge)])

for _spec in Spec.__subclasses__():
    _spec.model_rebuild()


NAMES = frozenset(str(spec.model_fields["name"].default) for spec in Spec.__subclasses__())


def by_judge(label: str | None) -> bool:
    """Whether a verdict with this label is one of these judges', who could be asked again; else a person's."""
    return label != USERS_WORD and (label or "").partition(":")[0].partition(",")[0] in NAMES
