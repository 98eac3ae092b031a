from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vestige.errors import CorruptFile, InvalidInput, ShapeMismatch
from vestige.features.scene_judge import SceneJudge, SceneNetwork, save_judge

ATTRIBUTES = {"shape": ("round", "square", "long"), "colour": ("red", "blue")}


def pictures(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)


@pytest.fixture
def judge(tmp_path) -> SceneJudge:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_judge(SceneNetwork(ATTRIBUTES), ATTRIBUTES, tmp_path / "judge.safetensors")
    return SceneJudge(tmp_path / "judge.safetensors")


def test_each_attribute_is_a_softmax_of_the_same_features(judge):
    pixels = pictures(5)
    features, probabilities = judge.features(pixels), judge.probabilities(pixels)
    assert features.shape == (5, 96)
    assert judge.attributes == ATTRIBUTES
    for name, values in ATTRIBUTES.items():
        head = judge.network.heads[name]
        logits = features @ head.weight.detach().double().numpy().T + head.bias.detach().double().numpy()
        odds = np.exp(logits - logits.max(1, keepdims=True))
        assert np.allclose(probabilities[name], odds / odds.sum(1, keepdims=True), rtol=0, atol=1e-6)
        assert judge.named(pixels, name) == [values[place] for place in probabilities[name].argmax(1)]


def test_batches_do_not_matter_and_none_is_allowed(judge):
    pixels = pictures(300)  # more than one internal batch
    together = judge.features(pixels)
    assert np.allclose(together[[0, 255, 256, 299]], judge.features(pixels[[0, 255, 256, 299]]), atol=1e-5)
    assert judge.features(pixels[:0]).shape == (0, 96)
    assert judge.probabilities(pixels[:0])["shape"].shape == (0, 3)
    assert judge.named(pixels[:0], "colour") == []


def test_other_pictures_attributes_and_files_are_refused(judge, tmp_path):
    with pytest.raises(ShapeMismatch, match=r"\(1, 28, 28\)"):
        judge.features(np.zeros((1, 1, 28, 28), np.uint8))
    with pytest.raises(InvalidInput, match=r"'size'.*shape, colour"):
        judge.named(pictures(1), "size")
    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    save_judge(SceneNetwork({"shape": ("a",)}), ATTRIBUTES, tmp_path / "other.safetensors")
    for name, why in (("plain", "no names"), ("text", "unreadable"), ("other", "another network")):
        with pytest.raises(CorruptFile, match=why):
            SceneJudge(tmp_path / f"{name}.safetensors")


def test_the_digest_names_weights_and_attributes(judge, tmp_path):
    digest = judge.digest
    assert SceneJudge(tmp_path / "judge.safetensors").digest == digest
    save_judge(judge.network, {**ATTRIBUTES, "colour": ("red", "green")}, tmp_path / "renamed.safetensors")
    assert SceneJudge(tmp_path / "renamed.safetensors").digest != digest
    judge.network.heads["shape"].bias.data += 1
    assert judge.digest != digest
    assert "shape, colour" in judge.name
