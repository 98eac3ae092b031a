from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy.signal import convolve2d, correlate2d
from torch import Tensor

from vestige.data.images import to_uint8
from vestige.errors import BadWeights, CorruptFile, InvalidInput, NotFound
from vestige.models.adapters.stylegan2.files import StyleGan2Weights, load_stylegan2, read_stylegan2, shapes
from vestige.models.adapters.stylegan2.form import StyleGan2Form, config_f
from vestige.models.adapters.stylegan2.gan import stylegan2_gan
from vestige.models.adapters.stylegan2.layers import Modulated, smooth, upsample
from vestige.models.adapters.stylegan2.names import official_names, ported_names
from vestige.models.adapters.stylegan2.network import StyleGan2, Truncation
from vestige.randomness import Stream, normal

FORM = StyleGan2Form(channels=(4, 3, 2), latent=5, style=6, mapping_layers=3)
LABELLED = dataclasses.replace(FORM, classes=3, clamp=0.9, image_channels=1, mapping_rate=0.5)
TAPS = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 16


def made(form: StyleGan2Form = FORM, seed: int = 0) -> StyleGan2:
    """A generator in float64 whose every tensor, also those that start at zero, matters."""
    torch.manual_seed(seed)
    network = StyleGan2(form).double().eval()
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.add_(0.3 * torch.randn_like(tensor))
    return network


def latents(count: int, form: StyleGan2Form = FORM) -> Tensor:
    return torch.randn(count, form.latent, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Literal:
    """The paper's formulas to the letter, for one latent at a time, from tensors of the official names."""

    def __init__(self, network: StyleGan2) -> None:
        state = network.state_dict()
        self.form = network.form
        self.of = {its: state[ours].numpy() for ours, its in official_names(network.form).items()}

    def dense(self, x: np.ndarray, name: str, rate: float = 1.0) -> np.ndarray:
        weight, bias = self.of[f"{name}.weight"], self.of[f"{name}.bias"]
        return weight @ x * rate / np.sqrt(len(x)) + bias * rate

    def leaky(self, x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, x, 0.2 * x) * np.sqrt(2)

    def cut(self, x: np.ndarray) -> np.ndarray:
        return x if self.form.clamp is None else np.clip(x, -self.form.clamp, self.form.clamp)

    def mapping(self, z: np.ndarray, label: int | None) -> np.ndarray:
        x = z / np.sqrt(np.mean(z**2) + 1e-8)
        if label is not None:
            embedded = self.dense(np.eye(self.form.classes)[label], "mapping.embed")
            x = np.concatenate([x, embedded / np.sqrt(np.mean(embedded**2) + 1e-8)])
        for layer in range(self.form.mapping_layers):
            x = self.leaky(self.dense(x, f"mapping.fc{layer}", self.form.mapping_rate))
        return x

    def spaced(self, x: np.ndarray) -> np.ndarray:
        wide = np.zeros((2 * x.shape[0] - 1, 2 * x.shape[1] - 1))
        wide[::2, ::2] = x
        return wide

    def convolution(self, x: np.ndarray, w: np.ndarray, name: str, *, up: bool, demodulate: bool) -> np.ndarray:
        style, weight = self.dense(w, f"{name}.affine"), self.of[f"{name}.weight"]
        if not demodulate:
            style = style / np.sqrt(weight[0].size)
        weight = weight * style[None, :, None, None]
        if demodulate:
            weight = weight / np.sqrt((weight**2).sum(axis=(1, 2, 3), keepdims=True) + 1e-8)
        out = []
        for kernels in weight:
            if up:
                stamped = sum(convolve2d(self.spaced(a), k) for a, k in zip(x, kernels, strict=True))
                out.append(convolve2d(stamped, TAPS)[2:-2, 2:-2])
            else:
                out.append(sum(correlate2d(a, k, mode="same") for a, k in zip(x, kernels, strict=True)))
        return np.stack(out)

    def layer(self, x: np.ndarray, w: np.ndarray, name: str, *, up: bool) -> np.ndarray:
        x = self.convolution(x, w, name, up=up, demodulate=True)
        x = x + self.of[f"{name}.noise_const"] * self.of[f"{name}.noise_strength"]
        return self.cut(self.leaky(x + self.of[f"{name}.bias"][:, None, None]))

    def image(self, z: np.ndarray, label: int | None = None) -> np.ndarray:
        w = self.mapping(z, label)
        x, image = self.of["synthesis.b4.const"], None
        for index in range(len(self.form.channels)):
            block = f"synthesis.b{4 << index}"
            if index:
                x = self.layer(x, w, f"{block}.conv0", up=True)
            x = self.layer(x, w, f"{block}.conv1", up=False)
            drawn = self.convolution(x, w, f"{block}.torgb", up=False, demodulate=False)
            drawn = self.cut(drawn + self.of[f"{block}.torgb.bias"][:, None, None])
            before = 0 if image is None else np.stack([convolve2d(self.spaced(a), TAPS)[1:-1, 1:-1] for a in image])
            image = before + drawn
        return image


@pytest.mark.parametrize("form", [FORM, LABELLED], ids=["plain", "labels, clamp, grey"])
def test_images_are_those_of_the_papers_formulas(form: StyleGan2Form) -> None:
    network, z = made(form), latents(3, form)
    labels = [0, 2, 1] if form.classes else [None] * 3
    expected = np.stack([Literal(network).image(a, b) for a, b in zip(z.numpy(), labels, strict=True)])
    found = network(z, torch.tensor(labels) if form.classes else None).detach().numpy()
    assert found.shape == (3, form.image_channels, 16, 16)
    np.testing.assert_allclose(found, expected, atol=1e-10 * np.abs(expected).max())
    free = StyleGan2(dataclasses.replace(form, clamp=None)).double()
    free.load_state_dict(network.state_dict())
    matters = not np.allclose(free(z, torch.tensor(labels) if form.classes else None).detach().numpy(), expected)
    assert matters == (form.clamp is not None)


def test_every_tensor_has_a_name_in_each_format_and_no_two_the_same() -> None:
    for form in (FORM, LABELLED):
        official = official_names(form)
        assert set(official) == set(shapes(form))
        assert len(set(official.values())) == len(official)
    ported = ported_names(FORM)
    assert set(ported) == set(shapes(FORM)) - {"mapping.mean"}
    assert len(set(ported.values())) == len(ported)


@settings(max_examples=5)
@given(st.permutations(range(6)), st.integers(1, 6))
def test_a_row_has_one_image_whatever_else_is_in_its_batch(order: list[int], size: int) -> None:
    network, z = made(), latents(6)[order]
    with torch.no_grad():
        batched = torch.cat([network(part) for part in z.split(size)])
        alone = torch.cat([network(row[None]) for row in z])
    torch.testing.assert_close(batched, alone, rtol=0, atol=1e-12)
    single = network.float()
    with torch.no_grad():
        pixels = [to_uint8(single(part.float())) for part in z.split(size)]
    assert np.abs(np.concatenate(pixels).astype(int) - to_uint8(alone)).max() <= 1


def test_gradients_are_those_of_finite_differences() -> None:
    network, z = made(), latents(1).requires_grad_()
    direction = torch.randn(1, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert torch.autograd.gradcheck(lambda value: (network(value) * direction).sum(), z)


def test_only_the_direction_of_a_latent_counts() -> None:
    network, z = made(), latents(2)
    torch.testing.assert_close(network(z), network(z * 7), rtol=0, atol=1e-6)


def test_truncation_pulls_the_first_styles_to_the_mean() -> None:
    network, z = made(), latents(2)
    mapping = network.mapping
    w = mapping(z)
    assert torch.equal(mapping.spread(w), w[:, None].expand(2, 6, 6))
    half = mapping.spread(w, Truncation(0.5))
    torch.testing.assert_close(half, ((w + mapping.mean) / 2)[:, None].expand(2, 6, 6))
    cut = mapping.spread(w, Truncation(0.0, cutoff=2))
    torch.testing.assert_close(cut[:, :2], mapping.mean.expand(2, 2, 6))
    torch.testing.assert_close(cut[:, 2:], w[:, None].expand(2, 4, 6))
    assert torch.equal(mapping.spread(w, Truncation(0.3, cutoff=0)), mapping.spread(w))
    torch.testing.assert_close(mapping.spread(w, Truncation(0.3, cutoff=99)), mapping.spread(w, Truncation(0.3)))
    mean_image = network.synthesis(mapping.mean.expand(1, 6, 6))
    torch.testing.assert_close(network(z, truncation=Truncation(0.0)), mean_image.expand(2, -1, -1, -1))


def test_given_noises_take_the_place_of_the_stored_ones() -> None:
    network, z = made(), latents(2)
    styles = network.mapping.spread(network.mapping(z))
    stored = [value.expand(2, 1, -1, -1) for name, value in network.named_buffers() if name.endswith(".noise")]
    assert tuple(noise.shape[-1] for noise in stored) == FORM.noise_sides == (4, 8, 8, 16, 16)
    torch.testing.assert_close(network.synthesis(styles, stored), network(z))
    for place in range(5):
        other = [noise + (index == place) for index, noise in enumerate(stored)]
        assert not torch.allclose(network.synthesis(styles, other), network(z))


def test_demodulation_makes_outputs_of_unit_scale_and_forgets_the_weights_scale() -> None:
    torch.manual_seed(3)
    part = Modulated(64, 32, 8, side=3, demodulate=True).double()
    x, w = torch.randn(16, 64, 8, 8, dtype=torch.float64), torch.randn(16, 8, dtype=torch.float64)
    first = part(x, w)
    assert first[:, :, 1:-1, 1:-1].var().item() == pytest.approx(1, rel=0.1)
    with torch.no_grad():
        part.weight.mul_(10)
    torch.testing.assert_close(part(x, w), first, rtol=1e-6, atol=1e-6)


def test_blur_and_upsampling_keep_a_flat_image_flat() -> None:
    flat = torch.ones(1, 2, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(upsample(flat)[..., 1:-1, 1:-1], torch.ones(1, 2, 14, 14, dtype=torch.float64))
    assert smooth(flat).shape == (1, 2, 7, 7)
    torch.testing.assert_close(smooth(flat)[..., 1:-1, 1:-1], torch.ones(1, 2, 5, 5, dtype=torch.float64))
    ramp = torch.arange(8, dtype=torch.float64).expand(1, 1, 8, 8)
    steps = upsample(ramp)[0, 0, 4].diff()
    torch.testing.assert_close(steps[2:-2], torch.full((11,), 0.5, dtype=torch.float64))


def test_config_f_is_the_papers() -> None:
    assert config_f(1024) == (512, 512, 512, 512, 512, 256, 128, 64, 32)
    form = StyleGan2Form(channels=config_f(256))
    assert (form.resolution, form.styles, form.noise_sides[-1]) == (256, 14, 256)
    count = sum(int(np.prod(shape)) for name, shape in shapes(StyleGan2Form(channels=config_f(1024))).items())
    assert 30.0e6 < count - sum(side * side for side in StyleGan2Form(channels=config_f(1024)).noise_sides) < 30.6e6
    for wrong in (3, 48, 8192):
        with pytest.raises(InvalidInput, match="power of two"):
            config_f(wrong)
    with pytest.raises(InvalidInput, match="resolution is 64"):
        config_f(64, base=32)


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": ()},
        {"channels": (4, 0)},
        {"channels": (1,) * 12},
        {"latent": 0},
        {"style": 1 << 40},
        {"classes": -1},
        {"mapping_layers": 65},
        {"mapping_rate": 0.0},
        {"mapping_rate": float("nan")},
        {"image_channels": 2},
        {"clamp": -1.0},
    ],
)
def test_senseless_sizes_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="sizes of a StyleGAN2"):
        dataclasses.replace(FORM, **wrong)


def test_senseless_requests_are_refused() -> None:
    with pytest.raises(InvalidInput, match="psi=nan"):
        Truncation(float("nan"))
    with pytest.raises(InvalidInput, match="cutoff=-1"):
        Truncation(1.0, -1)
    network = made(LABELLED)
    with pytest.raises(InvalidInput, match="no labels"):
        network(latents(1, LABELLED))
    with pytest.raises(InvalidInput, match="5 styles and 5 noises"):
        made().synthesis(torch.zeros(1, 5, 6, dtype=torch.float64))
    with pytest.raises(InvalidInput, match="6 styles and 0 noises"):
        made().synthesis(torch.zeros(1, 6, 6, dtype=torch.float64), [])


@pytest.mark.parametrize("form", [FORM, dataclasses.replace(LABELLED, clamp=None)], ids=["plain", "labels"])
def test_it_is_a_gan_like_any_other(form: StyleGan2Form) -> None:
    network = made(form).float()
    gan, half = stylegan2_gan(network), stylegan2_gan(network, Truncation(0.5), batch_size=2)
    assert (gan.shape, gan.classes) == ((form.image_channels, 16, 16), form.classes)
    rows = np.array([4, 0, 9])
    z = torch.from_numpy(normal(3, Stream.SAMPLE, rows, (form.latent,)))
    labels = torch.from_numpy(rows % 3) if form.classes else None
    for found, truncation in ((gan, Truncation()), (half, Truncation(0.5))):
        with torch.no_grad():
            expected = to_uint8(network(z, labels, truncation))
        assert np.abs(found.sample(rows, 3).astype(int) - expected).max() <= 1
    assert gan.digest != half.digest


def weights_of(form: StyleGan2Form = FORM) -> StyleGan2Weights:
    return StyleGan2Weights(form, {name: tensor.float() for name, tensor in made(form).state_dict().items()})


def test_a_file_brings_the_same_network_back(tmp_path: Path) -> None:
    for form in (FORM, LABELLED):
        weights = weights_of(form)
        weights.save(tmp_path / "net.safetensors", origin="test")
        found = load_stylegan2(tmp_path / "net.safetensors")
        assert found.form == form
        assert not any(parameter.requires_grad for parameter in found.parameters())
        z, labels = latents(2, form).float(), torch.tensor([0, 1]) if form.classes else None
        assert torch.equal(found(z, labels), weights.network()(z, labels))
    halves = StyleGan2Weights(FORM, {name: tensor.half() for name, tensor in weights_of().tensors.items()})
    halves.save(tmp_path / "half.safetensors", origin="test")
    assert load_file(tmp_path / "half.safetensors")["mapping.mean"].dtype == torch.float16
    assert load_stylegan2(tmp_path / "half.safetensors").mapping.mean.dtype == torch.float32


def test_weights_that_do_not_fit_are_named() -> None:
    tensors = dict(weights_of().tensors)
    mean = tensors["mapping.mean"]
    for change, words in (
        ({"mapping.mean": mean[1:]}, r"mapping\.mean is \[5\] instead of \[6\]"),
        ({"mapping.mean": mean / 0}, "mapping.mean is not finite"),
        ({"mapping.mean": mean.long()}, "mapping.mean is not finite"),
        ({"other": mean}, "other is unknown"),
        ({f"other{i}": mean for i in range(9)}, "and 4 more"),
    ):
        with pytest.raises(BadWeights, match=words):
            StyleGan2Weights(FORM, {**tensors, **change})
    del tensors["mapping.mean"]
    with pytest.raises(BadWeights, match=r"mapping\.mean is missing"):
        StyleGan2Weights(FORM, tensors)


def test_files_that_are_no_generators_are_refused(tmp_path: Path) -> None:
    weights = weights_of()
    with pytest.raises(InvalidInput, match="safetensors"):
        weights.save(tmp_path / "net.pt", origin="test")
    with pytest.raises(NotFound):
        read_stylegan2(tmp_path / "absent.safetensors")
    path = tmp_path / "net.safetensors"
    path.write_bytes(b"\x80\x04.")
    with pytest.raises(CorruptFile, match="cannot be read"):
        read_stylegan2(path)
    key = FORM.key()
    headers: list[tuple[Any, type[Exception]]] = [
        (None, CorruptFile),
        ({"stylegan2.json": "{"}, CorruptFile),
        ({"stylegan2.json": "[" * 10_000}, CorruptFile),
        ({"stylegan2.json": json.dumps({**key, "more": 1})}, CorruptFile),
        ({"stylegan2.json": json.dumps({**key, "latent": True})}, CorruptFile),
        ({"stylegan2.json": json.dumps({**key, "channels": [4, 3.0, 2]})}, CorruptFile),
        ({"stylegan2.json": json.dumps({**key, "clamp": "1"})}, CorruptFile),
        ({"stylegan2.json": json.dumps({**key, "latent": 10**9})}, InvalidInput),
        ({"stylegan2.json": json.dumps({**key, "channels": [8192] * 11})}, BadWeights),
    ]
    for header, error in headers:
        save_file(dict(weights.tensors), path, header)
        with pytest.raises(error):
            read_stylegan2(path)
