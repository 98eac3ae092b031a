from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from vestige.errors import BadWeights, CorruptFile, InvalidInput, NotFound, ShapeMismatch, Unsupported
from vestige.models.access import Access
from vestige.models.adapters.dcgan import Dcgan
from vestige.models.adapters.gan import GanGenerator, load_gan, load_weights, save_gan
from vestige.models.critic import Critic
from vestige.models.network import PixelRange
from vestige.models.subject import Subject
from vestige.randomness import Stream, normal

FORM = Dcgan(latent=5, classes=3, shape=(1, 8, 8), width=8, critic_width=2, embedding=2)


def spread(z: Tensor) -> Tensor:
    """The closed form of these tests: pixel i of an image is the hyperbolic tangent of latent i."""
    return z.tanh().view(-1, 1, 2, 2)


def wrapped(function: Callable[..., Tensor] = spread, latent: int = 4, **settings: object) -> GanGenerator:
    return GanGenerator(function, latent, identity="test", **settings)


@pytest.fixture
def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return FORM.generator(), FORM.critic()


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=9), st.integers(1, 9), st.integers(0, 2**32))
def test_a_row_is_the_image_of_its_own_latent_at_any_batch_size(rows: list[int], batch: int, seed: int) -> None:
    found = wrapped(batch_size=batch).sample(np.array(rows), seed)
    latents = normal(seed, Stream.SAMPLE, rows, (4,))
    expected = np.round((np.tanh(latents.astype(np.float64)) + 1) * 127.5)
    assert np.abs(found.reshape(-1, 4) - expected).max() <= 1
    for place, row in enumerate(rows):
        np.testing.assert_array_equal(wrapped().sample(np.array([row]), seed)[0], found[place])


@settings(max_examples=5)
@given(st.permutations(range(7)), st.integers(1, 7))
def test_a_network_row_is_one_image_up_to_rounding(order: list[int], batch: int) -> None:
    torch.manual_seed(0)
    generator = GanGenerator(FORM.generator(), 5, identity="dcgan", classes=3, batch_size=batch)
    found = generator.sample(np.array(order), 1)
    alone = np.concatenate([generator.sample(np.array([row]), 1) for row in order])
    assert np.abs(found.astype(int) - alone).max() <= 1
    assert len({image.tobytes() for image in found}) == 7
    assert generator.evaluations == 14


def test_pixels_are_read_in_the_declared_range() -> None:
    unit, wide = PixelRange(0.0, 1.0), PixelRange(0.0, 255.0)
    rows = np.arange(6)
    plain = wrapped().sample(rows, 0)
    for pixels in (unit, wide):

        def moved(z: Tensor, pixels: PixelRange = pixels) -> Tensor:
            return pixels.outward(spread(z))

        found = wrapped(moved, pixels=pixels).sample(rows, 0)
        assert np.abs(found.astype(int) - plain).max() <= 1
    assert float(unit.inward(torch.tensor(0.25))) == -0.5
    assert float(wide.outward(torch.tensor(0.0))) == 127.5
    with pytest.raises(InvalidInput, match="low below high"):
        PixelRange(1.0, 1.0)


def test_classes_go_in_turn() -> None:
    def labelled(z: Tensor, labels: Tensor) -> Tensor:
        return (labels.float() - 1).view(-1, 1, 1, 1).expand(-1, 1, 2, 2) + 0 * z.sum()

    generator = wrapped(labelled, classes=3)
    rows = np.array([0, 1, 2, 5, 9])
    asked = generator.condition_of(rows)
    assert asked is not None
    assert asked.tolist() == [0, 1, 2, 2, 0]
    assert generator.sample(rows, 0)[:, 0, 0, 0].tolist() == [0, 128, 255, 255, 0]
    assert (generator.classes, generator.implicit, generator.shape) == (3, True, (1, 2, 2))
    assert wrapped().condition_of(rows) is None
    assert wrapped().sample(np.arange(0), 0).shape == (0, 1, 2, 2)


class Restless(nn.Module):
    """Never leaves training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(4, 4)

    def train(self, mode: bool = True) -> Restless:
        return super().train(True)

    def forward(self, z: Tensor) -> Tensor:
        return self.part(z).tanh().view(-1, 1, 2, 2)


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (lambda z: z.tanh(), InvalidInput, "one image a latent"),
        (lambda z: spread(z)[:2], InvalidInput, "one image a latent"),
        (lambda z: spread(z) / 0 * 0, BadWeights, "NaN or infinity"),
        (lambda z: 127.5 * (spread(z) + 1), InvalidInput, "declare the right PixelRange"),
        (lambda z: spread(z + 0.1 * torch.randn(1)), InvalidInput, "noise_mode"),
        (lambda z: spread(z - z.mean(0)), InvalidInput, "batch statistics"),
        (Restless(), InvalidInput, "training mode"),
    ],
    ids=["no image", "too few", "not finite", "out of range", "random", "batch", "training"],
)
def test_networks_that_cannot_be_audited_are_refused(
    function: Callable[..., Tensor], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        wrapped(function)


def test_dropout_and_batch_statistics_are_switched_off_and_watched() -> None:
    body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Tanh(), nn.Unflatten(1, (1, 2, 2)))
    generator = wrapped(body)
    first = generator.sample(np.arange(5), 0)
    np.testing.assert_array_equal(first, generator.sample(np.arange(5), 0))
    body.train()
    with pytest.raises(InvalidInput, match="training mode"):
        generator.sample(np.arange(5), 0)


@pytest.mark.parametrize("wrong", [{"latent": 0}, {"classes": -1}, {"batch_size": 0}])
def test_senseless_settings_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidInput):
        wrapped(**wrong)


def brightness(images: Tensor) -> Tensor:
    return images.mean((1, 2, 3))


def test_a_critic_judges_every_image_for_itself_and_counts() -> None:
    critic = Critic(brightness, (1, 2, 2), identity="mean", pixels=PixelRange(0, 1))
    images = torch.linspace(-1, 1, 5).view(5, 1, 1, 1).expand(5, 1, 2, 2)
    np.testing.assert_allclose(critic.logits(images), [0, 0.25, 0.5, 0.75, 1])
    assert critic.evaluations == 5
    column = Critic(lambda x: brightness(x)[:, None], (1, 2, 2), identity="mean", pixels=PixelRange(0, 1))
    np.testing.assert_allclose(column.logits(images), critic.logits(images))


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (lambda x: x, InvalidInput, "one logit an image"),
        (lambda x: brightness(x) / 0, BadWeights, "NaN or infinity"),
        (lambda x: brightness(x) + torch.randn(1), InvalidInput, "call to call"),
        (lambda x: brightness(x) - brightness(x).mean(), InvalidInput, "one row at a time"),
    ],
    ids=["no logit", "not finite", "random", "batch"],
)
def test_critics_that_cannot_be_asked_are_refused(
    function: Callable[..., Tensor], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Critic(function, (1, 2, 2), identity="test")


def test_a_conditional_critic_wants_labels(networks: tuple[nn.Module, nn.Module]) -> None:
    critic = Critic(networks[1], FORM.shape, identity="dcgan", classes=3)
    images = torch.zeros(2, 1, 8, 8)
    assert critic.logits(images, torch.tensor([0, 1])).shape == (2,)
    with pytest.raises(InvalidInput, match="without labels"):
        critic.logits(images)


def test_a_subject_adds_up_what_its_networks_were_asked(networks: tuple[nn.Module, nn.Module]) -> None:
    generator = GanGenerator(networks[0], 5, identity="dcgan", classes=3)
    critic = Critic(networks[1], FORM.shape, identity="dcgan", classes=3)
    subject = Subject.of_gan("gan", generator, critic)
    assert (subject.access, subject.is_gan, subject.classes) == (Access.LOSSES, True, 3)
    assert Subject.of_gan("gan", generator).access is Access.SAMPLES
    assert Subject.of_gan("gan", generator).digest != subject.digest
    generator.sample(np.arange(3), 0)
    critic.logits(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]))
    assert subject.evaluations == 5
    with pytest.raises(ShapeMismatch):
        Subject.of_gan("gan", generator, Critic(brightness, (1, 2, 2), identity="mean"))


def test_digests_tell_networks_and_declarations_apart(networks: tuple[nn.Module, nn.Module]) -> None:
    base = GanGenerator(networks[0], 5, identity="dcgan", classes=3)
    again = GanGenerator(networks[0], 5, identity="dcgan", classes=3, batch_size=2)
    assert base.key() == again.key()
    digest = base.digest
    other = GanGenerator(networks[0], 5, identity="other", classes=3)
    with torch.no_grad():
        next(networks[0].parameters()).add_(0.01)
    assert len({digest, base.digest, other.digest}) == 3


def test_a_folder_gives_back_both_networks(tmp_path: Path, networks: tuple[nn.Module, nn.Module]) -> None:
    save_gan(tmp_path, FORM, *networks)
    found = load_gan(tmp_path, batch_size=3)
    rows = np.arange(5)
    own = GanGenerator(networks[0], 5, identity="dcgan", classes=3)
    assert found.generator.digest == own.digest
    assert np.abs(found.generator.sample(rows, 0).astype(int) - own.sample(rows, 0)).max() <= 1
    assert found.critic is not None
    assert found.critic.digest == Critic(networks[1], FORM.shape, identity="dcgan", classes=3).digest
    (tmp_path / "critic.safetensors").unlink()
    assert load_gan(tmp_path).critic is None
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_folders_that_cannot_be_read_are_named(tmp_path: Path, networks: tuple[nn.Module, nn.Module]) -> None:
    with pytest.raises(NotFound, match=r"gan\.json"):
        load_gan(tmp_path)
    save_gan(tmp_path, FORM, *networks)
    note = tmp_path / "gan.json"
    held = json.loads(note.read_text())
    for content, error in (
        ("{", CorruptFile),
        ("[]", CorruptFile),
        (json.dumps({**held, "architecture": "stylegan"}), Unsupported),
        (json.dumps({**held, "depth": 3}), CorruptFile),
        (json.dumps({**held, "shape": 3}), CorruptFile),
        (json.dumps({**held, "width": "wide"}), CorruptFile),
        (json.dumps({**held, "width": 7}), InvalidInput),
        (json.dumps({**held, "width": 16}), BadWeights),
    ):
        note.write_text(content)
        with pytest.raises(error):
            load_gan(tmp_path)
    note.write_text(json.dumps(held))
    (tmp_path / "generator.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CorruptFile):
        load_gan(tmp_path)
    (tmp_path / "generator.safetensors").unlink()
    with pytest.raises(NotFound):
        load_gan(tmp_path)


class Trap:
    """Unpickling it leaves a mark."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, ("trap.txt",))


def test_nothing_is_ever_unpickled(tmp_path: Path) -> None:
    module = nn.Linear(2, 2)
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(Unsupported, match="save_file"):
        load_weights(module, tmp_path / "weights.pt")
    torch.save(Trap(), tmp_path / "weights.safetensors")
    with pytest.raises(CorruptFile):
        load_weights(module, tmp_path / "weights.safetensors")


def test_weights_must_fit_and_be_finite(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    source = nn.Linear(2, 2)
    save_file(source.state_dict(), path)
    assert load_weights(nn.Linear(2, 2), path).state_dict()["weight"].equal(source.weight)
    for other in (nn.Linear(3, 2), nn.Linear(2, 2, bias=False)):
        with pytest.raises(BadWeights, match="does not fit"):
            load_weights(other, path)
    save_file({"weight": torch.full((2, 2), torch.nan), "bias": torch.zeros(2)}, path)
    with pytest.raises(BadWeights, match="NaN"):
        load_weights(nn.Linear(2, 2), path)


@pytest.mark.parametrize("classes", [0, 2])
def test_the_networks_make_and_judge_images_of_their_shape(classes: int) -> None:
    form = Dcgan(latent=3, classes=classes, shape=(3, 8, 12), width=4, critic_width=2, embedding=2)
    labels = torch.tensor([0, 1]) if classes else None
    images = form.generator()(torch.zeros(2, 3), labels)
    assert images.shape == (2, 3, 8, 12)
    assert form.critic()(images, labels).shape == (2,)
    assert Dcgan.read(json.loads(json.dumps(form.key()))) == form
