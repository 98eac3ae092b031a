"""Tiny random networks, saved as transformers saves them, against transformers' own processor and model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from vestige.errors import BadWeights, CorruptFile, NotFound, Unsupported
from vestige.features.transformers import is_vision_folder, vision_features

transformers = pytest.importorskip("transformers")

SMALL = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "patch_size": 4}
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 3, 13, 17), dtype=np.uint8)
CROPPED = {"size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 16}}


def model_of(kind: str) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "vit":
            return transformers.ViTModel(transformers.ViTConfig(**SMALL, image_size=16))
        if kind == "dinov2":
            return transformers.Dinov2Model(transformers.Dinov2Config(**SMALL, image_size=16))
        text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        text |= {"vocab_size": 20, "bos_token_id": 0, "eos_token_id": 1}
        vision = {**SMALL, "image_size": 16}
        return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=6))


def processor_of(kind: str):
    if kind == "vit":
        return transformers.ViTImageProcessor(size={"height": 16, "width": 16})
    return (transformers.BitImageProcessor if kind == "dinov2" else transformers.CLIPImageProcessor)(**CROPPED)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("vision")
    for kind in ("vit", "dinov2", "clip"):
        model_of(kind).save_pretrained(root / kind)
        processor_of(kind).save_pretrained(root / kind)
    return {kind: root / kind for kind in ("vit", "dinov2", "clip")}


@pytest.mark.parametrize(("kind", "width"), [("vit", 8), ("dinov2", 8), ("clip", 6)])
def test_features_are_those_of_transformers(folders, kind, width):
    processed = processor_of(kind)(list(np.moveaxis(PIXELS, 1, -1)), return_tensors="pt")["pixel_values"]
    model = model_of(kind).eval()
    with torch.no_grad():
        if kind == "clip":
            expected = model.visual_projection(model.vision_model(processed).pooler_output)
        else:
            expected = model(processed).last_hidden_state[:, 0]
    found = vision_features(folders[kind])
    assert found.features(PIXELS).shape == (5, width)
    assert np.allclose(found.features(PIXELS), expected.numpy(), rtol=0, atol=1e-5)
    assert found.digest == vision_features(folders[kind]).digest
    assert kind in found.name
    assert is_vision_folder(folders[kind])


def copy(folder: Path, to: Path) -> Path:
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def edit(path: Path, **change: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


def test_digest_follows_preprocessing_and_configuration(folders, tmp_path):
    base, other = vision_features(folders["vit"]).digest, copy(folders["vit"], tmp_path / "other")
    edit(other / "config.json", transformers_version="0")
    assert vision_features(other).digest == base
    edit(other / "preprocessor_config.json", resample=3)
    resampled = vision_features(other).digest
    edit(other / "config.json", num_attention_heads=4)
    assert len({base, resampled, vision_features(other).digest}) == 3


def test_grey_images_are_taken(folders):
    grey = PIXELS[:, :1]
    found = vision_features(folders["vit"])
    assert np.allclose(found.features(grey), found.features(np.repeat(grey, 3, axis=1)), atol=1e-6)


def test_weights_that_are_missing_are_not_drawn_at_random(folders, tmp_path):
    damaged = copy(folders["dinov2"], tmp_path / "damaged")
    weights = load_file(damaged / "model.safetensors")
    weights.pop(next(name for name in weights if "layer.1" in name))
    save_file(weights, damaged / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadWeights, match=r"layer\.1"):
        vision_features(damaged)


def test_folders_that_cannot_be_read(folders, tmp_path):
    with pytest.raises(NotFound, match=r"config\.json"):
        vision_features(tmp_path)
    bare = copy(folders["vit"], tmp_path / "bare")
    (bare / "preprocessor_config.json").unlink()
    with pytest.raises(NotFound, match="preprocessor_config"):
        vision_features(bare)
    pickled = copy(folders["vit"], tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(NotFound, match="no safetensors"):
        vision_features(pickled)
    text = copy(folders["vit"], tmp_path / "text")
    edit(text / "config.json", model_type="bert")
    with pytest.raises(Unsupported, match="'bert'"):
        vision_features(text)
    cut = copy(folders["vit"], tmp_path / "cut")
    (cut / "model.safetensors").write_bytes(b"0" * 100)
    with pytest.raises(CorruptFile, match="ViTModel"):
        vision_features(cut)
    (cut / "config.json").write_text("[")
    with pytest.raises(CorruptFile, match="not JSON"):
        vision_features(cut)
