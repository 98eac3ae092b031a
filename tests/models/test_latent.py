from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vestige.data.images import to_uint8
from vestige.errors import BadWeights, InvalidInput, ShapeMismatch, Unsupported
from vestige.models.adapters.dcgan import Dcgan
from vestige.models.adapters.gan import GanGenerator
from vestige.models.latent import Calls, LatentGenerator
from vestige.models.network import PixelRange
from vestige.randomness import Stream, normal

FORM = Dcgan(latent=5, classes=3, shape=(1, 8, 8), width=8, critic_width=2, embedding=2)


def spread(z: Tensor) -> Tensor:
    """The closed form of these tests: pixel i is the hyperbolic tangent of latent i."""
    return z.tanh().view(-1, 1, 2, 2)


def wrapped(network: Callable[..., Tensor] = spread, latent: tuple[int, ...] = (4,), **more: object) -> LatentGenerator:
    return LatentGenerator(network, latent, identity="test", **more)


class Restless(nn.Module):
    """Never leaves training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(4, 4)

    def train(self, mode: bool = True) -> Restless:
        return super().train(True)

    def forward(self, z: Tensor) -> Tensor:
        return spread(self.part(z))


def broken_weights() -> nn.Module:
    module = nn.Linear(4, 4)
    with torch.no_grad():
        module.weight[0, 0] = torch.nan
    return module


@pytest.mark.parametrize(
    ("network", "error", "words"),
    [
        (lambda z: z.sum(), InvalidInput, "one output a latent"),
        (lambda z: spread(z)[:2], InvalidInput, "one output a latent"),
        (lambda z: spread(z) / 0 * 0, BadWeights, "answer holds NaN"),
        (broken_weights(), BadWeights, "weight weight holds NaN"),
        (lambda z: 127.5 * (spread(z) + 1), InvalidInput, "PixelRange"),
        (lambda z: spread(z + 0.1 * torch.randn(1)), InvalidInput, "from call to call"),
        (lambda z: spread(z - z.mean(0)), InvalidInput, "alone and in a batch"),
        (Restless(), InvalidInput, "training mode"),
        (lambda z: spread(z).detach(), Unsupported, "no derivative"),
        (lambda z: torch.from_numpy(spread(z.detach()).numpy()), Unsupported, "no derivative"),
        (lambda z: spread(z).detach() + 0 * spread(z), InvalidInput, "derivative of zero"),
        (lambda z: spread(z) + 0 * (z - z.detach()).abs().sqrt().sum(1).view(-1, 1, 1, 1), BadWeights, "derivative"),
    ],
    ids="scalar few nan weights range random batch training detached numpy flat infinite".split(),
)
def test_what_cannot_be_searched_is_refused_by_name(
    network: Callable[..., Tensor], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        wrapped(network)


@pytest.mark.parametrize("wrong", [{"latent": ()}, {"latent": (0,)}, {"classes": -1}, {"batch_size": 0}])
def test_senseless_declarations_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        wrapped(**wrong)


def test_a_zero_mean_generator_has_a_derivative() -> None:
    def centred(z: Tensor) -> Tensor:
        images = spread(z) / 2
        return images - images.mean((1, 2, 3), keepdim=True)

    assert wrapped(centred).shape == (1, 2, 2)


@pytest.mark.parametrize("pixels", [PixelRange(0.0, 1.0), PixelRange(0.0, 255.0), PixelRange()])
def test_outputs_are_in_the_range_of_vestige(pixels: PixelRange) -> None:
    generator = wrapped(lambda z: pixels.outward(spread(z)), pixels=pixels)
    z = generator.latents(np.arange(6), 0)
    torch.testing.assert_close(generator.outputs(z), spread(z))


def test_outputs_without_a_range_are_left_alone() -> None:
    generator = wrapped(lambda z: 100 * z, pixels=None)
    z = generator.latents(np.arange(6), 0)
    assert torch.equal(generator.outputs(z), 100 * z)
    assert generator.shape == (4,)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=9), st.integers(1, 9), st.integers(0, 2**32))
@settings(max_examples=20)
def test_a_row_is_the_output_of_its_own_latent_at_any_batch_size(rows: list[int], batch: int, seed: int) -> None:
    generator = wrapped(batch_size=batch)
    z = generator.latents(np.array(rows), seed)
    np.testing.assert_array_equal(z.numpy(), normal(seed, Stream.SAMPLE, rows, (4,)))
    torch.testing.assert_close(generator.made(z), spread(z))
    assert generator.calls == Calls(images=len(rows))


def test_images_and_gradients_are_counted() -> None:
    generator = wrapped()
    assert generator.calls == Calls()
    z = generator.latents(np.arange(5), 0).requires_grad_()
    generator.outputs(z).sum().backward()
    generator.outputs(z)
    generator.made(z)
    assert generator.calls == Calls(images=15, gradients=5)
    assert generator.calls.forward_equivalents == 25
    assert generator.calls.since(Calls(images=10, gradients=5)) == Calls(images=5)


def test_weights_collect_no_gradient_of_a_search_in_latents() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Unflatten(1, (1, 2, 2)))
    generator = wrapped(module)
    z = generator.latents(np.arange(3), 0).requires_grad_()
    torch.autograd.grad(generator.outputs(z).sum(), z)
    assert all(p.grad is None for p in module.parameters())


def test_a_gan_of_the_zoo_is_the_same_generator_in_both_contracts() -> None:
    torch.manual_seed(0)
    gan = GanGenerator(FORM.generator(), 5, identity="dcgan", classes=3)
    generator = LatentGenerator.of_gan(gan)
    rows = np.array([0, 1, 2, 7, 30])
    made = generator.made(generator.latents(rows, 3), generator.labels_of(rows))
    assert np.abs(to_uint8(made).astype(int) - gan.sample(rows, 3)).max() <= 1
    assert (generator.shape, generator.classes, generator.latent_size) == (gan.shape, 3, 5)


def test_batch_statistics_are_off_and_watched() -> None:
    body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Tanh(), nn.Unflatten(1, (1, 2, 2)))
    generator = wrapped(body)
    z = generator.latents(np.arange(5), 0)
    torch.testing.assert_close(generator.outputs(z)[:2], generator.outputs(z[:2]))
    body.train()
    with pytest.raises(InvalidInput, match="training mode"):
        generator.outputs(z)


def test_latents_and_labels_have_to_fit() -> None:
    generator = wrapped()
    with pytest.raises(ShapeMismatch, match=r"Latents of shape \(2, 5\)"):
        generator.outputs(torch.zeros(2, 5))
    with pytest.raises(InvalidInput, match="no labels"):
        generator.outputs(torch.zeros(2, 4), torch.zeros(2, dtype=torch.long))
    labelled = wrapped(lambda z, y: spread(z) * y.view(-1, 1, 1, 1) / 3 + spread(z) / 9, classes=3)
    with pytest.raises(InvalidInput, match="one label a latent"):
        labelled.outputs(torch.zeros(2, 4))
    with pytest.raises(InvalidInput, match="one label a latent"):
        labelled.outputs(torch.zeros(2, 4), torch.zeros(3, dtype=torch.long))
    asked = labelled.labels_of(np.array([0, 4, 5]))
    assert asked is not None
    assert asked.tolist() == [0, 1, 2]


def test_an_answer_that_stops_being_finite_is_an_error_when_it_happens() -> None:
    generator = wrapped(lambda z: spread(z) * torch.where(z.abs().sum(1) > 100, torch.nan, 1.0).view(-1, 1, 1, 1))
    with pytest.raises(BadWeights, match="answer holds NaN"):
        generator.outputs(torch.full((1, 4), 50.0))


def test_a_generator_that_can_only_be_called() -> None:
    generator = wrapped(lambda z: torch.from_numpy(spread(z).numpy()), differentiable=False)
    assert not generator.outputs(torch.zeros(2, 4).requires_grad_()).requires_grad
    with pytest.raises(Unsupported, match="Rejection"):
        generator.need_gradient("A search")
    wrapped().need_gradient("A search")


def test_the_digest_follows_everything_that_changes_an_answer() -> None:
    def of(weight: float, **more: object) -> str:
        module = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Tanh())
        nn.init.constant_(module[0].weight, weight)
        return wrapped(module, **more).digest

    assert of(0.5) == of(0.5)
    assert len({of(0.5), of(0.6), of(0.5, pixels=None), of(0.5, pixels=PixelRange(-2, 2))}) == 4
    assert wrapped().key() == {"latent-generator": wrapped().digest}


def test_spatial_latents() -> None:
    generator = wrapped(lambda z: z.tanh(), latent=(1, 3, 2))
    assert generator.latents(np.arange(2), 0).shape == (2, 1, 3, 2)
    assert generator.latent_size == 6
