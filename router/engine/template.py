"""A prompt's tokens, by the model's own chat template: the same for who trains a student and for who serves it.

A text that has a control token's name in it (an answer about ``<|im_end|>``, a user who would end his own turn) is
text: only what the template writes itself is control. So every control token gets a name of its own here, which nobody
can guess. The template's are called by it, and those in texts stay what they are.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from router.engine.calls import WORDS, CallForm, form_of, shows_tools
from router.engine.weights import base_student, is_ready
from router.errors import BadRequest, EngineError

REFUSALS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What an expression in a template raises that meets what it was not written for."""


class PromptTemplate:
    """Over a Hugging Face ``tokenizer``. It is read once: what is added to it later is not seen. Where its own template
    shows no tools, ``template`` is that one with words for them in front.

    Raises:
        EngineError: the tokenizer is none of the ``tokenizers`` library.
    """

    def __init__(self, tokenizer: Any) -> None:
        from tokenizers import Tokenizer

        backend = getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise EngineError(f"the tokenizer {type(tokenizer).__name__} cannot tell control tokens from text")
        self.tokenizer = tokenizer
        self.template = tokenizer.chat_template
        self._key = str(secrets.randbelow(10**18))
        found = json.loads(backend.to_str())
        self._controls = _controls(found["added_tokens"], _source(tokenizer))
        self._names = {content: self._named(n) for n, content in enumerate(self._controls)}
        self._spelled = re.compile("|".join(map(re.escape, self._controls)) or r"(?!)")
        self._hidden = re.compile(self._held(r"(\d+)"))
        self._encoder = Tokenizer.from_str(json.dumps(_renamed(found, self._names)))
        ids = ((self._encoder.token_to_id(name), backend.token_to_id(c)) for c, name in self._names.items())
        self._moved = {a: b for a, b in ids if a != b and a is not None and b is not None}
        if isinstance(self.template, str) and not shows_tools(self._sketched):
            self.template = WORDS + self.template

    def prompt(self, messages: Iterable[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> tuple[int, ...]:
        """The tokens of a prompt, up to where its answer begins. Of a message its role, content, calls of tools and
        which one's result it is count alone.

        Raises:
            BadRequest: the template refuses the messages, or there is none; or it has tools, and writes their calls in
                a form that nobody could read back.
        """
        return self._tokens(self._written(messages, tools))

    def answer(self, said: str, calls: Sequence[Mapping[str, Any]] = ()) -> tuple[int, ...]:
        """The tokens of an answer without its end, with the calls of tools that it ends in.

        Raises:
            BadRequest: the template has no such answer.
        """
        if not calls:
            return self.text(said)
        made = [(call["function"]["name"], call["function"]["arguments"]) for call in self._calls(calls)]
        try:
            return self._tokens(self._calling.written(self._hidden_in(said), made))
        except ValueError as e:
            raise BadRequest(str(e), param="messages") from e

    def refuses(
        self,
        messages: Iterable[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] = (),
        calls: Sequence[Mapping[str, Any]] = (),
    ) -> bool:
        """Whether there is no prompt for these messages, or no answer with these calls."""
        try:
            self._written(messages, tools)
            self.answer("", calls)
        except BadRequest:
            return True
        return False

    @cached_property
    def calls(self) -> CallForm | None:
        """The form in which calls of tools are written; None where nobody could read back what the template writes."""
        form = form_of(self._sketched)
        if form is None:
            return None
        written = form.written("", [("name", {})])
        told = self.tokenizer.decode(
            self._tokens(written), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return form if told == written else None  # else its marks are none that an answer's text shows

    @property
    def _calling(self) -> CallForm:
        if self.calls is None:
            raise BadRequest(
                "the model's chat template writes calls of tools in a form that is not read", param="tools"
            )
        return self.calls

    def _written(self, messages: Iterable[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> str:
        """What the template makes of them, with places held for control tokens' names in their texts."""
        if self.template is None:
            raise BadRequest("the model has no chat template", param="model")
        kept, listed = [self._kept(m) for m in messages], self._hidden_in(list(tools))
        if listed or any("tool_calls" in m or m["role"] == "tool" for m in kept):
            self._calling  # noqa: B018  (refuses what could not be read)
        return self._applied(kept, listed)

    def _applied(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], **more: Any) -> str:
        from jinja2 import TemplateError

        options = {"add_generation_prompt": True, **({"tools": list(tools)} if tools else {}), **more}
        if isinstance(self.template, str):  # of several it is the library that chooses
            options["chat_template"] = self.template
        try:
            return str(self.tokenizer.apply_chat_template(list(messages), tokenize=False, **options))
        except (TemplateError, *REFUSALS) as e:
            raise BadRequest(f"the model's chat template refuses these messages: {e}", param="messages") from e

    def _sketched(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> str | None:
        try:
            return self._applied(messages, tools, add_generation_prompt=False)
        except BadRequest:
            return None

    def _kept(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """What a template is shown of a message."""
        kept = {name: message[name] for name in ("role", "content")}
        if message["role"] == "tool":
            kept["tool_call_id"] = message.get("tool_call_id") or ""
        kept = self._hidden_in(kept)
        return {**kept, "tool_calls": self._calls(calls)} if (calls := message.get("tool_calls")) else kept

    def _calls(self, calls: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Calls as templates read them: arguments as values."""
        found = []
        for call in calls:
            function = call["function"]
            try:
                arguments = json.loads(function.get("arguments") or "{}")
            except ValueError as e:
                raise BadRequest(f"the arguments of a call of {function['name']} are no JSON", param="messages") from e
            inner = {"name": function["name"], "arguments": self._hidden_in(arguments)}
            found.append({"id": call.get("id") or "", "type": "function", "function": inner})
        return found

    def _tokens(self, written: str) -> tuple[int, ...]:
        """The tokens of what the template, or a form of its calls, wrote."""
        told = self._spelled.sub(lambda control: self._names[control[0]], written)
        return self.text(self._hidden.sub(lambda held: self._controls[int(held[1])], told))

    def text(self, text: str) -> tuple[int, ...]:
        """A text's tokens, none of which is control."""
        ids = self._encoder.encode(text, add_special_tokens=False).ids
        return tuple(self._moved.get(i, i) for i in ids) if self._moved else tuple(ids)

    def _hidden_in(self, value: Any) -> Any:
        """The same with places held for control tokens' names in all of its texts."""
        if isinstance(value, str):
            return self._spelled.sub(self._hide, value)
        if isinstance(value, list):
            return [self._hidden_in(item) for item in value]
        if isinstance(value, dict):
            return {self._hidden_in(key): self._hidden_in(item) for key, item in value.items()}
        return value

    def _hide(self, control: re.Match[str]) -> str:
        """Holds the place of a control token's name in a text while the template works on it."""
        return self._held(str(self._controls.index(control[0])))

    def _held(self, number: str) -> str:
        return f"\U00100000{self._key}\U00100001{number}\U00100002"

    def _named(self, number: int) -> str:
        return f"\U00100003{self._key}\U00100001{number}\U00100002"


def kept_template(student: str, cache: Path) -> PromptTemplate | None:
    """The student's, where its folder is at hand: who only looks does not want to wait for that."""
    from transformers import AutoTokenizer

    if not is_ready(student, cache):
        return None
    try:
        return PromptTemplate(AutoTokenizer.from_pretrained(str(base_student(student, cache)), local_files_only=True))
    except (OSError, ValueError, EngineError):  # training will say why
        return None


def _source(tokenizer: Any) -> str:
    """The chat template's own text; of several, all of them."""
    template = tokenizer.chat_template or ""
    return "\n".join(template.values()) if isinstance(template, dict) else str(template)


def _controls(added: Iterable[Mapping[str, Any]], source: str) -> Sequence[str]:
    """What is control, longest first: what the tokenizer calls special, and other marks that the template writes (a
    call's, a thought's). Tokens added for blanks or words are text."""
    found = {
        content
        for token in added
        if (content := token["content"])
        and (token["special"] or (not content.isalnum() and content.strip() and content in source))
    }
    return sorted(found, key=lambda content: (-len(content), content))


def _renamed(found: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """A tokenizer's own description with other names for some of its tokens, which keep their numbers."""
    for token in found["added_tokens"]:
        if (name := names.get(token["content"])) is not None:
            token |= {"content": name, "normalized": False}
    model = found["model"]
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(piece, piece): number for piece, number in vocabulary.items()}
    elif isinstance(vocabulary, list):
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if "merges" in model:
        model["merges"] = [merge for merge in model["merges"] if names.keys().isdisjoint(_pieces(merge))]
    return found | {"post_processor": None, "truncation": None, "padding": None}


def _pieces(merge: str | Sequence[str]) -> tuple[str, str, str]:
    """What a merge joins, and what it makes of them."""
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left, right, left + right
