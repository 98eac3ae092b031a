"""Every architecture, read from a folder and from a module, computes what transformers computes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from vestige.errors import BadWeights, CorruptFile, InvalidInput, NotFound, Unsupported
from vestige.models.transformer.block import NormKind, Rotary
from vestige.models.transformer.forward import forward, states
from vestige.models.transformer.memory import InMemoryTransformer
from vestige.models.transformer.open import describe, known_architectures, open_transformer
from vestige.models.weights import open_weights

Config = dict[str, Any]


def test_forward_is_that_of_transformers(kind: str, tiny, folder_of, ids, logits_of) -> None:
    model = tiny(kind)
    expected = logits_of(model, ids)
    stored = open_transformer(folder_of(kind))
    logits = forward(stored, ids)
    assert logits.dtype == np.float64
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert expected.std() > 0.1
    from_module = open_transformer(model)
    np.testing.assert_array_equal(forward(from_module, ids), logits)
    held = InMemoryTransformer.of(stored)
    np.testing.assert_array_equal(forward(held, ids), logits)
    assert held.digest == InMemoryTransformer.of(from_module).digest
    single = forward(stored, ids, np.float32)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, logits, atol=2e-3)


def test_matrices_are_as_promised(kind: str, tiny, folder_of) -> None:
    stored = open_transformer(folder_of(kind))
    model = tiny(kind)
    embedding = stored.embedding()
    assert embedding.shape == (stored.vocabulary, stored.width)
    rows = np.array([7, 3, 7])
    np.testing.assert_array_equal(stored.embedding(rows), embedding[rows])
    np.testing.assert_allclose(
        embedding, model.get_input_embeddings().weight.detach().numpy() * stored.embedding_scale, rtol=1e-6
    )
    assert stored.tokens is None
    for index in range(stored.depth):
        part = stored.block(index).attention
        width = len(part.query) // part.heads
        assert part.query.shape == (part.heads * width, stored.width)
        assert part.key.shape == part.value.shape == (part.kv_heads * width, stored.width)
        assert part.output.shape == (stored.width, part.heads * width)
        for expert in stored.block(index).experts:
            assert expert.up.shape == expert.down.T.shape
            arrays = (expert.up, expert.down, part.query, part.key, part.value, part.output)
            assert all(array.dtype == np.float32 and array.flags.c_contiguous for array in arrays)
    for index in (-1, stored.depth):
        with pytest.raises(InvalidInput):
            stored.block(index)


def test_every_state_is_that_of_transformers(tiny, folder_of, ids) -> None:
    import torch

    with torch.no_grad():
        theirs = tiny("qwen3")(torch.from_numpy(ids)[None], output_hidden_states=True).hidden_states
    ours = list(states(open_transformer(folder_of("qwen3")), ids))
    assert len(ours) == len(theirs)
    for mine, other in zip(ours[:-1], theirs[:-1], strict=True):  # their last is normalised
        np.testing.assert_allclose(mine, other[0].numpy(), atol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "gemma3", "qwen2_moe", "bloom", "opt"])
def test_a_text_does_not_see_what_follows(kind: str, folder_of, ids) -> None:
    stored = open_transformer(folder_of(kind))
    np.testing.assert_allclose(forward(stored, ids[:5]), forward(stored, ids)[:5], atol=1e-9)


def older_names(config: Config) -> Config:
    """How configurations looked before transformers 5: the base and scaling of rotary positions by themselves."""
    rope = config.pop("rope_parameters")
    share = rope.pop("partial_rotary_factor", None)
    config["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    if kind != "default":
        config["rope_scaling"] = {"type" if kind == "linear" else "rope_type": kind, **rope}
    if share is not None:
        config["rotary_pct" if config["model_type"] == "gpt_neox" else "partial_rotary_factor"] = share
        if config["model_type"] == "gpt_neox":
            config["rotary_emb_base"] = config.pop("rope_theta")
    config.pop("layer_types", None)
    return config


def older_gemma3(config: Config) -> Config:
    rope = config.pop("rope_parameters")
    config["rope_theta"], config["rope_local_base_freq"] = (
        rope[name]["rope_theta"] for name in ("full_attention", "sliding_attention")
    )
    config.pop("layer_types")
    config["sliding_window_pattern"] = config.pop("_sliding_window_pattern")
    return config


def older_falcon(config: Config) -> Config:
    names = {"num_hidden_layers": "n_layer", "num_attention_heads": "n_head", "num_kv_heads": "n_head_kv"}
    config = {names.get(name, name): value for name, value in config.items() if name != "rope_parameters"}
    if config.pop("new_decoder_architecture"):
        return {**config, "model_type": "RefinedWeb"}
    return {**config, "model_type": "RefinedWebModel"}


def older_bloom(config: Config) -> Config:
    names = {"hidden_size": "n_embed", "n_head": "num_attention_heads", "n_layer": "num_hidden_layers"}
    return {names.get(name, name): value for name, value in config.items()}


def older_gemma(config: Config) -> Config:
    config.pop("hidden_act", None)
    return {**older_names(config), "hidden_act": "gelu", "hidden_activation": None}


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("llama-tied", older_names),
        ("llama-linear", older_names),
        ("llama-dynamic", older_names),
        ("llama-3", older_names),
        ("llama-yarn", older_names),
        ("mistral", older_names),
        ("qwen2", older_names),
        ("phi3", older_names),
        ("phi3-long", older_names),
        ("gemma", older_gemma),
        ("gemma2", older_names),
        ("gemma3", older_gemma3),
        ("gpt_neox", older_names),
        ("falcon-7b", older_falcon),
        ("falcon-40b", older_falcon),
        ("bloom", older_bloom),
    ],
)
def test_older_configurations(
    kind: str, change: Callable[[Config], Config], tiny, folder_of, ids, logits_of, tmp_path: Path
) -> None:
    shutil.copytree(folder_of(kind), tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(change(config)))
    np.testing.assert_allclose(forward(open_transformer(tmp_path), ids), logits_of(tiny(kind), ids), atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "trunk"),
    [
        ("llama", "model."),
        ("gpt2", "transformer."),
        ("gpt_neox", "gpt_neox."),
        ("opt", "model."),
        ("bloom", "transformer."),
        ("falcon-7b", "transformer."),
        ("phi", "model."),
    ],
)
def test_names_of_the_trunk_alone(kind: str, trunk: str, folder_of, ids, tmp_path: Path) -> None:
    shutil.copytree(folder_of(kind), tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({name.removeprefix(trunk): value for name, value in tensors.items()}, tmp_path / "model.safetensors")
    expected = forward(open_transformer(folder_of(kind)), ids)
    np.testing.assert_array_equal(forward(open_transformer(tmp_path), ids), expected)


def test_a_language_model_within_a_larger_one(folder_of, ids, tmp_path: Path) -> None:
    """Gemma 3 with pictures: settings under text_config that leave out the architecture's defaults."""
    folder = folder_of("gemma3")
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    outer = {"model_type": "gemma3", "vision_config": {"model_type": "siglip"}, "text_config": config}
    (tmp_path / "config.json").write_text(json.dumps(outer))
    tensors = {f"language_model.{name}": value for name, value in tensors.items()}
    tensors["vision_tower.patch.weight"] = np.zeros((3, 3), np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    expected = forward(open_transformer(folder), ids)
    np.testing.assert_array_equal(forward(open_transformer(tmp_path), ids), expected)


def test_buffers_of_older_files_are_passed_over(folder_of, ids, tmp_path: Path) -> None:
    for kind, names in (
        ("gpt2", ("transformer.h.0.attn.bias", "transformer.h.0.attn.masked_bias")),
        ("gpt_neox", ("gpt_neox.layers.0.attention.bias", "gpt_neox.layers.0.attention.rotary_emb.inv_freq")),
        ("llama", ("model.layers.0.self_attn.rotary_emb.inv_freq",)),
    ):
        folder = tmp_path / kind
        shutil.copytree(folder_of(kind), folder)
        tensors = load_file(folder / "model.safetensors")
        save_file({**tensors, **{name: np.ones(4, np.float32) for name in names}}, folder / "model.safetensors")
        expected = forward(open_transformer(folder_of(kind)), ids)
        np.testing.assert_array_equal(forward(open_transformer(folder), ids), expected)


def test_what_is_known_of_some_kinds(folder_of) -> None:
    def block(kind: str, index: int = 0) -> Any:
        return open_transformer(folder_of(kind)).block(index)

    assert [block("gemma3", i).attention.window for i in range(7)] == [3, 3, 3, 3, 3, None, 3]
    assert [block("gemma2", i).attention.window for i in range(3)] == [3, None, 3]
    assert [block("qwen2", i).attention.window for i in range(3)] == [None, 3, 3]
    assert block("gemma2").attention.cap == 50
    assert block("gemma2").attention.scale == pytest.approx(0.1)
    assert open_transformer(folder_of("gemma2")).logit_cap == 30
    assert block("gpt_neox").attention.rotary == Rotary(10000.0, 4)
    assert block("gpt_neox").parallel
    assert block("phi").before_feed is None
    assert block("falcon-7b").attention.kv_heads == 1
    assert block("falcon-40b").attention.kv_heads == 2
    assert block("bloom").attention.alibi
    assert block("bloom").attention.rotary is None
    assert block("smollm3", 1).attention.rotary is None
    assert open_transformer(folder_of("bloom")).embedding_norm().kind is NormKind.LAYER
    assert open_transformer(folder_of("llama-tied")).head() is None
    assert open_transformer(folder_of("llama")).head() is not None
    assert len(block("mixtral").experts) == 5
    assert len(block("qwen2_moe", 1).experts) == 1
    assert block("qwen2_moe", 1).router is None
    assert block("qwen2_moe").shared is not None
    np.testing.assert_array_equal(block("mixtral").experts[-1].up, tuple(block("mixtral").experts)[4].up)
    assert [e.up.shape for e in block("mixtral").experts[1:3]] == [(48, 32)] * 2
    with pytest.raises(IndexError):
        block("mixtral").experts[5]


class TestRefused:
    @pytest.fixture
    def folder(self, folder_of, tmp_path: Path) -> Path:
        shutil.copytree(folder_of("llama"), tmp_path / "m")
        return tmp_path / "m"

    def change(self, folder: Path, **values: object) -> Path:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
        return folder

    def test_an_unknown_architecture(self, folder: Path) -> None:
        with pytest.raises(Unsupported, match=r"'t5'.*bloom.*qwen3_moe"):
            open_transformer(self.change(folder, model_type="t5"))
        assert "llama" in known_architectures()

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("model_type", 3),
            ("hidden_size", "32"),
            ("hidden_size", True),
            ("hidden_size", 0),
            ("hidden_size", -32),
            ("hidden_size", 32.5),
            ("hidden_size", 1 << 40),
            ("num_key_value_heads", 3),
            ("rms_norm_eps", "small"),
            ("rms_norm_eps", -1),
            ("tie_word_embeddings", "no"),
            ("rope_parameters", [1]),
            ("rope_parameters", {"rope_theta": 0.5}),
            ("rope_parameters", {"rope_type": "linear", "factor": 0}),
            ("rope_parameters", {"rope_type": "longrope", "short_factor": ["a"]}),
            ("rope_parameters", {"rope_type": "longrope", "short_factor": [1.0]}),
            ("partial_rotary_factor", 1e9),
            ("hidden_act", 1),
        ],
    )
    def test_settings_that_cannot_be(self, folder: Path, name: str, value: object) -> None:
        with pytest.raises(CorruptFile, match=r"config\.json"):
            open_transformer(self.change(folder, **{name: value})).block(0)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("hidden_act", "relu6"),
            ("rope_parameters", {"rope_type": "proportional"}),
            ("quantization_config", {"quant_method": "gptq"}),
        ],
    )
    def test_settings_that_are_not_known(self, folder: Path, name: str, value: object) -> None:
        with pytest.raises(Unsupported):
            open_transformer(self.change(folder, **{name: value})).block(0)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("hidden_size", 64),
            ("num_hidden_layers", 2),
            ("num_hidden_layers", 4),
            ("num_hidden_layers", (1 << 31) - 1),
            ("num_attention_heads", 2),
            ("num_attention_heads", 1 << 30),
            ("head_dim", (1 << 31) - 2),
            ("num_key_value_heads", 1),
        ],
    )
    def test_settings_of_another_model(self, folder: Path, name: str, value: int) -> None:
        extra = {"num_key_value_heads": 1} if name == "num_attention_heads" else {}
        extra |= {"hidden_size": 1 << 30} if value == 1 << 30 else {}
        with pytest.raises(BadWeights):
            open_transformer(self.change(folder, **{name: value, **extra})).block(0)

    def test_a_fused_matrix_is_measured_before_it_is_split(self, folder_of, tmp_path: Path) -> None:
        shutil.copytree(folder_of("phi3"), tmp_path, dirs_exist_ok=True)
        with pytest.raises(BadWeights):
            open_transformer(self.change(tmp_path, head_dim=1 << 30)).block(0)

    def test_a_missing_tensor(self, folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        del tensors["model.layers.1.mlp.up_proj.weight"]
        save_file(tensors, folder / "model.safetensors")
        stored = open_transformer(folder)
        stored.block(0)
        with pytest.raises(BadWeights, match=r"layers\.1\.mlp\.up_proj"):
            stored.block(1)

    def test_a_missing_head_hurts_only_who_asks(self, folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        del tensors["lm_head.weight"]
        save_file(tensors, folder / "model.safetensors")
        stored = open_transformer(folder)
        stored.block(0)
        with pytest.raises(BadWeights, match="lm_head"):
            stored.head()

    def test_a_tensor_that_the_architecture_does_not_have(self, folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        tensors["model.layers.1.self_attn.q_proj.lora_A.weight"] = np.ones((2, 2), np.float32)
        save_file(tensors, folder / "model.safetensors")
        stored = open_transformer(folder)
        stored.block(0)
        with pytest.raises(Unsupported, match="lora_A"):
            stored.block(1)

    def test_no_settings(self, folder: Path) -> None:
        (folder / "config.json").unlink()
        with pytest.raises(NotFound, match=r"config\.json"):
            open_transformer(folder)
        (folder / "adapter_config.json").write_text("{}")
        with pytest.raises(Unsupported, match="adapter"):
            open_transformer(folder)

    @pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "\xff"])
    def test_settings_that_are_no_table(self, folder: Path, text: str) -> None:
        (folder / "config.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(CorruptFile, match=r"config\.json"):
            open_transformer(folder)

    def test_variants_of_opt_and_bloom(self, folder_of, tmp_path: Path) -> None:
        for kind, values in (
            ("opt", {"do_layer_norm_before": False}),
            ("opt", {"word_embed_proj_dim": 16}),
            ("bloom", {"apply_residual_connection_post_layernorm": True}),
        ):
            shutil.copytree(folder_of(kind), tmp_path / "m", dirs_exist_ok=True)
            with pytest.raises(Unsupported):
                open_transformer(self.change(tmp_path / "m", **values))

    def test_a_module_without_configuration(self) -> None:
        from torch import nn

        with pytest.raises(InvalidInput, match="describe"):
            open_transformer(nn.Linear(2, 2))

    @pytest.mark.parametrize("ids", [[], [-1], [40], [[1]]])
    def test_ids_outside(self, folder: Path, ids: list[int]) -> None:
        with pytest.raises(InvalidInput):
            forward(open_transformer(folder), np.array(ids, np.int64))

    def test_a_text_longer_than_the_positions(self, folder_of) -> None:
        with pytest.raises(InvalidInput, match="64"):
            forward(open_transformer(folder_of("opt")), np.zeros(65, np.int64))


def test_digest_follows_the_weights(folder_of, tiny, tmp_path: Path) -> None:
    first, other = open_transformer(folder_of("llama")), open_transformer(tiny("llama", 1))
    assert first.digest == open_weights(folder_of("llama")).digest == open_transformer(tiny("llama")).digest
    assert first.digest != other.digest
    held = InMemoryTransformer.of(first)
    assert held.digest == InMemoryTransformer.of(first).digest
    changed = held.blocks[1].attention.output_bias.copy()
    changed[3] += 1
    block = replace(held.blocks[1], attention=replace(held.blocks[1].attention, output_bias=changed))
    assert replace(held, blocks=(held.blocks[0], block, *held.blocks[2:])).digest != held.digest


def test_settings_can_be_given_apart(folder_of, ids) -> None:
    folder = folder_of("qwen3")
    settings = json.loads((folder / "config.json").read_text())
    model = describe(open_weights(folder), settings, tokens=lambda count: ("a",) * count)
    assert model.tokens == ("a",) * 40
    np.testing.assert_array_equal(forward(model, ids), forward(open_transformer(folder), ids))
