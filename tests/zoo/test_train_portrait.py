from __future__ import annotations

import colorsys
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vestige.data.load import load_images
from vestige.digest import digest_tensors
from vestige.errors import CorruptFile, NotFound
from vestige.models.adapters.stylegan2.files import load_stylegan2, read_stylegan2
from vestige.models.adapters.stylegan2.form import StyleGan2Form
from vestige.zoo import adopt_portrait, train_portrait
from vestige.zoo.train_portrait_critic import PortraitCritic, spread
from vestige.zoo.train_portrait_images import dye, dyed_clothes, dyes, main, read_clothes, rgb

FORM = StyleGan2Form(channels=(3, 3, 3, 2), latent=4, style=4, mapping_layers=1)


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_portrait, "FORM", FORM)
    monkeypatch.setattr(train_portrait, "BATCH", 4)
    monkeypatch.setattr(train_portrait, "PATH_BATCH", 2)


def clothes(count: int = 6) -> Tensor:
    return torch.rand(count, 1, 32, 32, generator=torch.Generator().manual_seed(0))


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_colours_are_those_of_the_standard_library(hue: float, saturation: float, value: float) -> None:
    found = rgb(*(np.array([number], np.float32) for number in (hue, saturation, value)))
    np.testing.assert_allclose(found[0], colorsys.hsv_to_rgb(hue, saturation, value), atol=1e-5)


def test_cloth_and_backdrop_are_dyed_apart() -> None:
    cloth, backdrop = dyes(500, np.random.default_rng(0))
    grey = torch.zeros(500, 1, 32, 32)
    grey[:, :, 8:24, 8:24] = 1
    images = (dye(grey, cloth, backdrop) + 1) / 2
    torch.testing.assert_close(images[:, :, 16, 16], cloth[:, :, 0, 0])
    torch.testing.assert_close(images[:, :, 0, 0], backdrop[:, :, 0, 0])
    assert (images[:, :, 31, 0] < images[:, :, 0, 0]).all()
    assert 0 <= float(images.min()) < float(images.max()) <= 1
    hues = np.corrcoef(np.concatenate([cloth.view(500, 3), backdrop.view(500, 3)], 1).T)[:3, 3:]
    assert np.abs(hues).max() < 0.15


def idx(folder: Path, part: str, pixels: np.ndarray, magic: int = 2051) -> None:
    head = np.array([magic, len(pixels), 28, 28], ">u4").tobytes()
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz", "wb") as file:
        file.write(head + pixels.tobytes())


def test_the_original_files_are_read_with_a_border(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    idx(tmp_path, "train", pixels)
    found = read_clothes(tmp_path, "train")
    np.testing.assert_allclose(found[:, 0, 2:-2, 2:-2].numpy(), pixels / 255, atol=1e-6)
    assert found.shape == (3, 1, 32, 32)
    assert not found[:, :, :2].any()


def test_dyed_clothes_are_written_as_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    idx(tmp_path, "t10k", pixels)
    made = dyed_clothes(tmp_path, "t10k", 3, seed=4)
    assert (made.dtype, made.shape) == (np.uint8, (3, 3, 32, 32))
    np.testing.assert_array_equal(made, dyed_clothes(tmp_path, "t10k", 3, seed=4))
    assert (made != dyed_clothes(tmp_path, "t10k", 3, seed=5)).any()
    monkeypatch.setattr("sys.argv", ["x", "--data", str(tmp_path), "--seed", "4", "--out", str(tmp_path / "made.npz")])
    main()
    images, _ = load_images(tmp_path / "made.npz")
    assert len(images) == 5
    assert images.shape == (3, 32, 32)
    edge = images.pixels[:, :, 0]
    assert (edge == edge[:, :, :1]).all()  # two rows of the backdrop alone, as bright from left to right


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match="cannot be read"):
        read_clothes(tmp_path, "train")
    pixels = np.zeros((2, 28, 28), np.uint8)
    idx(tmp_path, "train", pixels, magic=2049)
    with pytest.raises(CorruptFile):
        read_clothes(tmp_path, "train")
    path = tmp_path / "train-images-idx3-ubyte.gz"
    idx(tmp_path, "train", pixels)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(CorruptFile):
        read_clothes(tmp_path, "train")
    with gzip.open(path, "wb") as file:
        file.write(b"short")
    with pytest.raises(CorruptFile):
        read_clothes(tmp_path, "train")


def test_the_critic_sees_how_much_a_group_varies() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 5, 2, 2)
    groups = x.numpy().reshape(4, 2, 5, 2, 2)
    expected = np.sqrt(groups.var(0) + 1e-8).mean((1, 2, 3))
    found = spread(x)
    assert found.shape == (8, 1, 2, 2)
    for row in range(8):
        np.testing.assert_allclose(found[row].numpy(), expected[row % 2], rtol=1e-5)
    critic = PortraitCritic((4, 4, 3, 2))
    images = torch.randn(8, 3, 32, 32)
    logits = critic(images)
    assert logits.shape == (8,)
    # Images 0, 2, 4 and 6 are one group: the others do not matter to them.
    changed = images.clone()
    changed[1::2] = 0
    torch.testing.assert_close(critic(changed)[::2], logits[::2])
    assert not torch.allclose(critic(changed)[1::2], logits[1::2])
    changed[2] = 0
    assert not torch.allclose(critic(changed)[0], logits[0])


def test_the_path_penalty_is_that_of_the_jacobian(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(train_portrait, "FORM", StyleGan2Form(channels=(3,), latent=4, style=4, mapping_layers=1))
    networks, empty = train_portrait.Networks(), torch.zeros(0)
    batch = train_portrait.Batch(empty, torch.randn(4, 4), [torch.randn(4, 1, 4, 4)], torch.randn(2, 3, 4, 4))
    generator = networks.generator
    styles = generator.mapping.spread(generator.mapping(batch.latents[:2])).detach()
    lengths = []
    for row in range(2):
        noises = [noise[row : row + 1] for noise in batch.noises]
        jacobian = torch.autograd.functional.jacobian(
            lambda w, noises=noises: generator.synthesis(w, noises), styles[row : row + 1]
        )
        assert isinstance(jacobian, Tensor)
        pulled = torch.einsum("chw,chwks->ks", batch.directions[row], jacobian[0, :, :, :, 0])
        lengths.append(pulled.square().sum(1).mean().sqrt())
    found = train_portrait.path_penalty(networks, batch)
    mean = 0.01 * torch.stack(lengths).mean()
    torch.testing.assert_close(networks.path_length, mean)
    torch.testing.assert_close(found, (torch.stack(lengths) - mean).square().mean(), rtol=1e-4, atol=1e-6)


def test_r1_is_the_gradient_on_training_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a critic a.x the penalty is R1 / 2 |a|^2, whose gradient is R1 a: seen in Adam's first moment."""

    class Linear(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Parameter(torch.linspace(0.1, 1, 3072))

        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1) @ self.a

    monkeypatch.setattr(train_portrait, "PortraitCritic", lambda _: Linear())
    gradients = []
    for penalize in (False, True):
        networks = train_portrait.Networks()
        batch = train_portrait.batch_at(clothes(), 0)
        train_portrait.teach_critic(networks, batch, torch.zeros(4, 3, 32, 32), penalize=penalize)
        gradient = next(networks.critic.parameters()).grad
        assert gradient is not None
        gradients.append(gradient)
    expected = train_portrait.R1_EVERY * train_portrait.R1 * torch.linspace(0.1, 1, 3072)
    torch.testing.assert_close(gradients[1] - gradients[0], expected, rtol=1e-4, atol=1e-5)


def test_the_average_forgets_by_half_in_a_half_life(monkeypatch: pytest.MonkeyPatch) -> None:
    networks = train_portrait.Networks()
    before = networks.average["synthesis.constant"].clone()
    with torch.no_grad():
        networks.generator.synthesis.constant.zero_()
    monkeypatch.setattr(train_portrait, "HALF_LIFE", 4 * train_portrait.BATCH)
    for _ in range(4):
        networks.follow(10**6)
    torch.testing.assert_close(networks.average["synthesis.constant"], before / 2)
    networks.follow(0)
    assert float(networks.average["synthesis.constant"].abs().max()) < 1e-3


def stopping(monkeypatch: pytest.MonkeyPatch, after: int) -> Any:
    real, calls = train_portrait.update, iter(range(100))

    def update(*arguments: Any) -> tuple[float, float]:
        if next(calls) == after:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(train_portrait, "update", update)
    return real


def test_training_resumes_as_if_never_interrupted_and_is_adopted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = clothes()
    train_portrait.train(data, tmp_path / "whole", steps=4, checkpoint_every=4)
    real = stopping(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        train_portrait.train(data, tmp_path / "parts", steps=3 + 1, checkpoint_every=2)
    monkeypatch.setattr(train_portrait, "update", real)
    train_portrait.train(data, tmp_path / "parts", steps=3, checkpoint_every=2)
    train_portrait.train(data, tmp_path / "parts", steps=4, checkpoint_every=2)
    whole, parts = (torch.load(tmp_path / name / "checkpoint.pt") for name in ("whole", "parts"))
    for name in ("generator", "critic", "average"):
        assert digest_tensors(whole[name]) == digest_tensors(parts[name])
    assert (tmp_path / "parts" / "contact.png").is_file()
    assert parts["step"] == 4

    shelf, pixels = tmp_path / "shelf", np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    for name, value in (("WEIGHTS", shelf / "net.safetensors"), ("CARD", shelf / "card.json"), ("FORM", FORM)):
        monkeypatch.setattr(adopt_portrait, name, value)
    monkeypatch.setattr(adopt_portrait, "IMAGES", 40)
    for part in ("train", "t10k"):
        idx(tmp_path, part, pixels)
    card = adopt_portrait.adopt(tmp_path / "parts", tmp_path)
    assert card == adopt_portrait.PortraitCard.model_validate_json((shelf / "card.json").read_bytes())
    weights = read_stylegan2(shelf / "net.safetensors")
    assert card.digest == digest_tensors(weights.tensors)
    assert (card.training["steps"], card.training["images"]) == (4, 4 * adopt_portrait.BATCH)
    assert card.quality["frechet"]["low"] <= card.quality["frechet"]["value"] <= card.quality["frechet"]["high"]
    assert card.quality["frechet_of_training_images"]["value"] < card.quality["frechet"]["value"]
    network = load_stylegan2(shelf / "net.safetensors")
    styles = network.mapping(torch.randn(4000, 4)).mean(0)
    torch.testing.assert_close(network.mapping.mean, styles, rtol=0, atol=0.1)
    assert weights.tensors["synthesis.constant"].dtype == torch.float16
    torch.testing.assert_close(
        network.synthesis.constant.detach(), parts["average"]["synthesis.constant"], rtol=1e-3, atol=1e-3
    )


def test_nothing_is_adopted_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"checkpoint\.pt"):
        adopt_portrait.adopt(tmp_path, tmp_path)
