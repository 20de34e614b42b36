"""A tiny transformer that reads text as the real one does: the same code around random weights."""

from __future__ import annotations

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from router.scoring.text.transformer import TransformerEncoder

DIM = 16
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def tiny_transformer(kind: type[TransformerEncoder] = TransformerEncoder) -> TransformerEncoder:
    """One layer, a token for each letter, the real one's name."""
    import torch
    from transformers import BertConfig, BertModel

    pieces = ["[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    torch.manual_seed(0)
    sizes = {"hidden_size": DIM, "intermediate_size": DIM, "num_hidden_layers": 1, "num_attention_heads": 1}
    return kind(BertModel(BertConfig(vocab_size=len(pieces), **sizes)).eval(), tokenizer)
