"""Eight bits a weight: what is lost has a bound, and the embedded engine answers from them as from the whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from distiller.forms.int8 import quantised, to_int8
from router.contracts.bundles import INT8_SCALE, INT8_WEIGHTS
from router.engine.int8 import FEW_ROWS, _modules, aligned, load_int8
from router.engine.model import Model
from router.errors import EngineError
from tests.distiller.tiny_student import student


def test_each_row_has_its_own_scale() -> None:
    levels, scale = quantised(torch.tensor([[127.0, -63.5, 0.4], [0.0, 0.0, 0.0], [0.254, -0.1, 0.002]]))
    assert levels.tolist() == [[127, -64, 0], [0, 0, 0], [127, -50, 1]]  # -63.5 goes to the even one
    assert scale.tolist() == pytest.approx([1.0, 0.0, 0.002])


def test_no_weight_moves_by_more_than_half_a_level() -> None:
    torch.manual_seed(0)
    weight = torch.randn(50, 300) * torch.rand(50, 1)
    levels, scale = quantised(weight)
    assert ((levels * scale[:, None] - weight).abs() <= scale[:, None] * 0.5001).all()


@pytest.mark.parametrize("tied", [True, False])
def test_the_folder_is_smaller_and_its_network_computes_what_the_rounded_weights_give(
    tmp_path: Path, tied: bool
) -> None:
    hf = student(tmp_path / "hf", tied=tied, seed=3)
    out = to_int8(hf, tmp_path / "deep" / "int8")
    kept = load_file(out / INT8_WEIGHTS)
    assert kept["model.layers.0.self_attn.q_proj.weight"].dtype is torch.int8
    assert kept["model.norm.weight"].dtype is torch.bfloat16
    whole = sum(t.numel() * t.element_size() for t in load_file(hf / "model.safetensors").values())
    assert sum(t.numel() * t.element_size() for t in kept.values()) < 0.6 * whole
    rounded = AutoModelForCausalLM.from_pretrained(hf, dtype=torch.float32)
    values = {n.replace(INT8_SCALE, ".weight"): kept[n.replace(INT8_SCALE, ".weight")] * s[:, None]
              for n, s in kept.items() if n.endswith(INT8_SCALE)}  # fmt: skip
    rounded.load_state_dict(values, strict=False)
    network = load_int8(out, torch.float32)
    with torch.no_grad():
        for rows in (FEW_ROWS - 6, 3 * FEW_ROWS):  # one by torch's kernel, one written out
            tokens = torch.arange(rows)[None] % 50
            assert torch.allclose(rounded(tokens).logits, network(tokens).logits, atol=0.02)
    if tied:
        assert network.lm_head.levels.data_ptr() == network.model.embed_tokens.levels.data_ptr()
    assert sum(p.numel() for p in network.parameters()) == 5 * 64, "nothing but the norms is whole"


def test_the_engine_answers_from_them_as_from_the_whole(tmp_path: Path) -> None:
    hf = student(tmp_path / "hf", seed=3)
    models = [Model.load("whole", hf, "fp32"), Model.load("int8", to_int8(hf, tmp_path / "int8"), "fp32")]
    prompts = [[1, 5, 20, 33, 47, 2, 1, 6], [1, 5, 99]]
    with torch.no_grad():
        (first, packed), (other, also) = [m.prefill(prompts, None) for m in models]
        assert (first - other).abs().max() < 0.05 * first.abs().max()
        assert models[1].ends == models[0].ends and models[1].context == models[0].context
        assert packed.seen == also.seen
    messages = [{"role": "user", "content": "w1 w2"}]
    assert models[0].encode(messages) == models[1].encode(messages)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    out = to_int8(student(tmp_path / "hf"), tmp_path / "int8")
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(EngineError, match=r"is not this model's: model\.layers\.2"):
        load_int8(out, torch.float32)
    (out / "config.json").write_text(json.dumps(config))
    save_file(load_file(out / INT8_WEIGHTS) | {"model.extra": torch.zeros(1)}, out / INT8_WEIGHTS)
    with pytest.raises(EngineError, match=r"model\.extra"):
        load_int8(out, torch.float32)


@pytest.mark.parametrize("columns", [64, 40])
def test_weights_that_lie_at_odd_bytes_or_are_of_odd_width_compute_the_same(tmp_path: Path, columns: int) -> None:
    """A name of odd length shifts what follows it in the file; torch's kernel dies of that, or sums amiss."""
    levels = torch.randint(-127, 127, (413, columns), dtype=torch.int8)
    save_file({"a": torch.zeros(3, dtype=torch.int8), "levels": levels}, tmp_path / "odd.safetensors")
    linear, _ = _modules()
    whole = linear(aligned(load_file(tmp_path / "odd.safetensors")["levels"]), torch.rand(413), torch.bfloat16, None)
    x = torch.randn(2, columns, dtype=torch.bfloat16)
    expected = (x.float() @ levels.float().T) * whole.scale.float()
    assert (whole(x).float() - expected).abs().max() < 0.02 * expected.abs().max()
