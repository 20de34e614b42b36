"""A student written as GGUF and read back by another program's reader answers as it did before."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.utils.quantization_config import GgufConfig

from distiller.forms.gguf import interleave, to_gguf
from router.errors import TrainingError
from router.policy.engines import GGUF_FORMS, GgufForm
from tests.distiller.tiny_student import TEMPLATE, student, words

TOKENS = torch.tensor([[1, 5, 20, 33, 47, 2, 1, 6, 99, 100, 3, 8]])


def base_file(folder: Path, hf_folder: Path, *, layers: int = 2, template: str | None = None) -> Path:
    """A GGUF as llama.cpp's converter would have made it of the tiny student, with other weights in it."""
    model = AutoModelForCausalLM.from_pretrained(hf_folder)
    config, path = model.config, folder / "base.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words())
    writer.add_token_types([1] * len(words()))
    writer.add_token_merges(["w 1", "w 2"])
    writer.add_bos_token_id(1)
    if template is not None:
        writer.add_chat_template(template)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, layers)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        to = names.get_name(name, try_suffixes=(".weight",))
        writer.add_tensor(to, np.zeros(tuple(weight.shape), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("tied", [True, False])
def test_the_written_file_gives_the_same_logits_read_back_by_transformers(tmp_path: Path, tied: bool) -> None:
    hf = student(tmp_path / "hf", tied=tied, seed=3)
    out = to_gguf(hf, base_file(tmp_path, hf), tmp_path / "deep" / "student.gguf")
    back = AutoModelForCausalLM.from_pretrained(
        out.parent, gguf_file=out.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    trained = AutoModelForCausalLM.from_pretrained(hf, dtype=torch.float32)
    with torch.no_grad():
        expected, found = trained(TOKENS).logits, back(TOKENS).logits
    assert (expected - found).abs().max() < 0.03 * expected.abs().max()
    assert torch.equal(expected.argmax(-1), found.argmax(-1))
    wrong = to_gguf_without_order(hf, tmp_path)
    with torch.no_grad():
        assert (expected - wrong(TOKENS).logits).abs().max() > 0.1 * expected.abs().max()


def to_gguf_without_order(hf: Path, folder: Path) -> torch.nn.Module:
    """What a file with the rows left in Hugging Face's order would be read as: the test above can tell."""
    model = AutoModelForCausalLM.from_pretrained(hf, dtype=torch.float32)
    for layer in model.model.layers:
        for part, heads in ((layer.self_attn.q_proj, 4), (layer.self_attn.k_proj, 2)):
            rows = part.weight.detach().numpy()
            width = rows.shape[0] // heads
            undone = rows.reshape(heads, width // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)
            part.weight.data = torch.tensor(undone)
    return model


def test_metadata_and_kinds_follow_the_base(tmp_path: Path) -> None:
    hf = student(tmp_path / "hf")
    base = gguf.GGUFReader(base_file(tmp_path, hf))
    out = gguf.GGUFReader(to_gguf(hf, tmp_path / "base.gguf", tmp_path / "out.gguf"))
    assert out.fields.keys() - base.fields.keys() == {"tokenizer.chat_template"}
    same = [n for n in base.fields if not n.startswith("GGUF.") and n != "general.file_type"]
    assert all(base.fields[n].contents() == out.fields[n].contents() for n in same)
    assert out.fields["general.file_type"].contents() == gguf.LlamaFileType.MOSTLY_Q8_0
    kinds = {t.name: t.tensor_type.name for t in out.tensors}
    assert kinds["blk.0.attn_q.weight"] == "Q8_0" and kinds["output_norm.weight"] == "F32"


def test_the_chat_template_is_the_one_that_the_student_was_trained_by(tmp_path: Path) -> None:
    hf = student(tmp_path / "hf")
    base = base_file(tmp_path, hf, template="{{ 'the base asks otherwise' }}")

    def written() -> object:
        out = gguf.GGUFReader(to_gguf(hf, base, tmp_path / "out.gguf"))
        return out.fields["tokenizer.chat_template"].contents()

    assert written() == TEMPLATE
    (hf / "chat_template.jinja").unlink()
    assert written() == "{{ 'the base asks otherwise' }}"
    older = json.loads((hf / "tokenizer_config.json").read_bytes())
    for told in ("{{ 1 }}", [{"name": "tool_use", "template": "{{ 2 }}"}, {"name": "default", "template": "{{ 1 }}"}]):
        (hf / "tokenizer_config.json").write_text(json.dumps(older | {"chat_template": told}))
        assert written() == "{{ 1 }}"


@pytest.mark.parametrize("form", GGUF_FORMS)
@pytest.mark.parametrize("tied", [True, False])
def test_matrices_are_in_the_form_and_what_answers_are_read_off_is_never_coarser_than_eight_bits(
    tmp_path: Path, form: GgufForm, tied: bool
) -> None:
    hf = student(tmp_path / "hf", tied=tied, seed=3)
    out = to_gguf(hf, base_file(tmp_path, hf), tmp_path / "student.gguf", form)
    written = gguf.GGUFReader(out)
    kinds = {t.name: t.tensor_type.name.lower() for t in written.tensors}
    head = "token_embd.weight" if tied else "output.weight"
    assert {k for name, k in kinds.items() if "norm" not in name and name != head} == {form}
    assert kinds[head] == "q8_0" and kinds["blk.1.attn_norm.weight"] == "f32"
    assert written.fields["general.file_type"].contents() == gguf.LlamaFileType[f"MOSTLY_{form.upper()}"]
    back = AutoModelForCausalLM.from_pretrained(
        out.parent, gguf_file=out.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    trained = AutoModelForCausalLM.from_pretrained(hf, dtype=torch.float32)
    with torch.no_grad():
        expected, found = trained(TOKENS).logits, back(TOKENS).logits
    assert (expected - found).norm() < {"q8_0": 0.03, "q4_0": 0.4}[form] * expected.norm()


def test_the_order_of_rows_is_llama_cpps() -> None:
    rows = np.arange(8, dtype=np.float32)  # two heads of four rows: halves (0, 1) and (2, 3)
    assert interleave(rows, 2).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_another_students_base_is_refused(tmp_path: Path) -> None:
    hf = student(tmp_path / "hf")
    small = base_file(tmp_path, student(tmp_path / "untied", tied=False))
    with pytest.raises(TrainingError, match=r"lacks weights that base.gguf has: output\.weight"):
        to_gguf(hf, small, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()
    tied = base_file(tmp_path, hf)
    with pytest.raises(TrainingError, match=r"has no tensor output\.weight"):
        to_gguf(tmp_path / "untied", tied, tmp_path / "out.gguf")
