"""Training of small models: exact resumption, lengths that share a training, privacy."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vestige.data.images import ImageSet
from vestige.errors import AlreadyExists, InvalidInput, Unsupported
from vestige.models.adapters.diffusers import load_folder
from vestige.train import trainer
from vestige.train.network import new_network
from vestige.train.recipe import Augmentation, Recipe, Target
from vestige.train.trainer import train

SMALL = Recipe(channels=(4, 8), steps=6, batch=4, warmup=2, seed=3)


@pytest.fixture(scope="module")
def images() -> ImageSet:
    rng = np.random.default_rng(0)
    return ImageSet(rng.integers(0, 256, (12, 1, 8, 8), dtype=np.uint8), np.arange(12) % 3)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")


def equal(one: Path, two: Path) -> bool:
    a, b = weights(one), weights(two)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_shorter_length_is_the_longer_training_stopped_early(images: ImageSet, tmp_path: Path) -> None:
    three, six = train(SMALL, images, tmp_path / "both", lengths=(3, 6))
    alone = train(dataclasses.replace(SMALL, steps=3), images, tmp_path / "short")[0]
    assert (three.steps, six.steps, six.null_condition) == (3, 6, 3)
    assert equal(three.folder, alone.folder)
    assert not equal(three.folder, six.folder)


@pytest.mark.parametrize("noise", [0.0, 0.7])
def test_an_interrupted_training_ends_with_the_same_weights(images: ImageSet, tmp_path: Path, noise: float) -> None:
    if noise:
        pytest.importorskip("opacus")
    recipe = dataclasses.replace(SMALL, privacy_noise=noise)
    whole = train(recipe, images, tmp_path / "whole")[0]

    class Stop(Exception):
        pass

    real, steps = trainer._State.advance, []

    def advance(state: trainer._State) -> None:
        if len(steps) == 4:
            raise Stop
        steps.append(1)
        real(state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer._State, "advance", advance)
        with pytest.raises(Stop):
            train(recipe, images, tmp_path / "broken", checkpoint_every=3)
    resumed = train(recipe, images, tmp_path / "broken", checkpoint_every=3)[0]
    assert equal(whole.folder, resumed.folder)


def test_a_finished_training_is_read_and_not_repeated(images: ImageSet, tmp_path: Path) -> None:
    first = train(SMALL, images, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "_train", lambda *_: pytest.fail("trained again"))
        assert train(SMALL, images, tmp_path) == first


def test_the_result_is_a_folder_that_opens(images: ImageSet, tmp_path: Path) -> None:
    made = train(SMALL, images, tmp_path)[0]
    denoiser = load_folder(made.folder, null_condition=made.null_condition)
    assert (denoiser.shape, denoiser.classes) == ((1, 8, 8), 3)


def test_training_lowers_the_loss(images: ImageSet) -> None:
    state = trainer._State(dataclasses.replace(SMALL, learning_rate=3e-3, batch=16, target=Target.NOISE), images)
    losses = []
    for _ in range(60):
        rng = np.random.default_rng(1)
        with torch.no_grad():
            losses.append(float(state._loss(state.network, np.arange(12), rng).mean()))
        state.advance()
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_another_training_does_not_share_the_folder(images: ImageSet, tmp_path: Path) -> None:
    train(SMALL, images, tmp_path)
    with pytest.raises(AlreadyExists, match="another recipe"):
        train(dataclasses.replace(SMALL, seed=4), images, tmp_path)
    with pytest.raises(AlreadyExists):
        train(SMALL, images.take(np.arange(6)), tmp_path)


def test_more_steps_continue_a_training(images: ImageSet, tmp_path: Path) -> None:
    train(SMALL, images, tmp_path / "grown")
    grown = train(dataclasses.replace(SMALL, steps=8), images, tmp_path / "grown")[0]
    whole = train(dataclasses.replace(SMALL, steps=8), images, tmp_path / "whole")[0]
    assert equal(grown.folder, whole.folder)


def test_a_length_that_training_has_passed_is_trained_again(images: ImageSet, tmp_path: Path) -> None:
    train(SMALL, images, tmp_path / "late")
    late = train(SMALL, images, tmp_path / "late", lengths=(3, 6))
    both = train(SMALL, images, tmp_path / "both", lengths=(3, 6))
    assert [equal(one.folder, two.folder) for one, two in zip(late, both, strict=True)] == [True, True]


@pytest.mark.parametrize("lengths", [(0, 3), (7,)])
def test_lengths_beyond_the_steps_are_refused(images: ImageSet, tmp_path: Path, lengths: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="lengths"):
        train(SMALL, images, tmp_path, lengths=lengths)
    assert not any(tmp_path.iterdir())


def test_a_shift_moves_by_at_most_one_pixel() -> None:
    clean = torch.zeros(200, 1, 7, 7)
    clean[:, 0, 3, 3] = 1
    moved = trainer._augmented(clean, Augmentation.SHIFT, np.random.default_rng(0))
    places = {tuple(place) for place in moved.nonzero()[:, 2:].tolist()}
    assert places == {(y, x) for y in (2, 3, 4) for x in (2, 3, 4)}


def test_a_flip_mirrors_about_half() -> None:
    clean = torch.arange(3.0).expand(400, 1, 1, 3)
    moved = trainer._augmented(clean, Augmentation.FLIP, np.random.default_rng(0))
    assert 150 < int((moved[:, 0, 0, 0] == 2).sum()) < 250
    assert (moved[:, 0, 0, 1] == 1).all()


def test_private_gradients_are_clipped_row_by_row(images: ImageSet) -> None:
    """Without noise, the update's gradient is the sum of single gradients, each cut to the bound, over the batch."""
    pytest.importorskip("opacus")
    recipe = dataclasses.replace(SMALL, privacy_noise=1e-9, clip=0.05)
    state = trainer._State(recipe, images)
    assert state.private is not None
    rows = np.array([0, 5, 7])
    plain = new_network((1, 8, 8), 3, recipe.channels, recipe.seed).train()
    total = [torch.zeros_like(p) for p in plain.parameters()]
    for place in range(len(rows)):
        plain.zero_grad()
        state._loss(plain, rows, np.random.default_rng(9))[place].backward()
        norm = torch.sqrt(sum((p.grad.square().sum() for p in plain.parameters()), torch.zeros(())))
        for part, parameter in zip(total, plain.parameters(), strict=True):
            part += parameter.grad * min(1.0, recipe.clip / float(norm))
    state.private.step(lambda network: state._loss(network, rows, np.random.default_rng(9)), 0)
    for part, parameter in zip(total, state.parameters, strict=True):
        torch.testing.assert_close(parameter.grad, part / recipe.batch, rtol=1e-3, atol=1e-6)


def test_privacy_spent_grows_with_steps_and_falls_with_noise(images: ImageSet, tmp_path: Path) -> None:
    pytest.importorskip("opacus")
    loud = train(dataclasses.replace(SMALL, privacy_noise=2.0), images, tmp_path / "loud", lengths=(2, 6))
    quiet = train(dataclasses.replace(SMALL, privacy_noise=1.0), images, tmp_path / "quiet")[0]
    spent = [model.epsilon for model in loud]
    assert spent[0] is not None
    assert spent[1] is not None
    assert quiet.epsilon is not None
    assert 0 < spent[0] < spent[1] < quiet.epsilon
    assert json.loads((quiet.folder / "training.json").read_text())["epsilon"] == quiet.epsilon


def test_a_private_batch_beyond_the_rows_is_refused(images: ImageSet) -> None:
    pytest.importorskip("opacus")
    with pytest.raises(Unsupported, match="batch of 64"):
        trainer._State(dataclasses.replace(SMALL, privacy_noise=1.0, batch=64), images)


@pytest.mark.parametrize(
    "change", [{"channels": ()}, {"channels": (6,)}, {"steps": 0}, {"ema_decay": 1.0}, {"privacy_noise": -1.0}]
)
def test_a_bad_recipe_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        dataclasses.replace(SMALL, **change)


def test_an_image_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(InvalidInput, match="divisible by 4"):
        new_network((1, 6, 6), 0, (4, 8, 8), 0)
