from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vestige.audit.extraction.generate_and_filter import GenerateAndFilter
from vestige.audit.membership.denoising_loss import DenoisingLoss
from vestige.audit.membership.discriminator_loss import DiscriminatorLoss
from vestige.data.images import ImageSet
from vestige.data.split import Split, split
from vestige.errors import InvalidInput, NeedsAccess
from vestige.execute import Context
from vestige.models.adapters.gan import GanGenerator
from vestige.models.critic import Critic
from vestige.models.generator import SampleBank
from vestige.models.oracle import EmpiricalDenoiser
from vestige.models.sampler import DDIM
from vestige.models.subject import Subject
from vestige.record import Estimate
from vestige.store import Store


def images(seed: int, count: int = 40, labels: bool = False) -> ImageSet:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, 1, 4, 4), dtype=np.uint8)
    return ImageSet(pixels, np.arange(count) % 2 if labels else None)


def line(summary: tuple[Estimate, ...], name: str) -> Estimate:
    return next(part for part in summary if part.name == name)


def gan(critic: Critic | None) -> Subject:
    def network(z: Tensor, *labels: Tensor) -> Tensor:
        return z.tanh().view(-1, 1, 4, 4)

    return Subject.of_gan("toy-gan", GanGenerator(network, 16, identity="tanh"), critic)


def memory_of(train: Tensor) -> Critic:
    """A discriminator that knows its training images: minus the distance to the nearest."""
    flat = train.flatten(1)
    return Critic(lambda x: -torch.cdist(x.flatten(1), flat).min(1).values, (1, 4, 4), identity=f"memory {flat.sum()}")


@pytest.fixture(scope="module")
def who() -> Split:
    return split(images(0), images(1))


def test_a_discriminator_that_memorized_is_found_out(who: Split, tmp_path: Path) -> None:
    outcome = DiscriminatorLoss().run(gan(memory_of(who.members.floats())), who, Context(Store(tmp_path)))
    area = line(outcome.summary, "membership/auc")
    assert area.value == 1
    assert area.low is not None
    assert area.low > 0.7
    assert np.nanmean(outcome.member_scores) > np.nanmean(outcome.other_scores)
    assert line(outcome.summary, "membership/evaluations").value == 1


def test_one_that_saw_neither_side_gives_chance(tmp_path: Path) -> None:
    who = split(images(3, 150), images(4, 150))
    outcome = DiscriminatorLoss().run(gan(memory_of(images(5).floats())), who, Context(Store(tmp_path)))
    area = line(outcome.summary, "membership/auc")
    assert area.low is not None
    assert area.high is not None
    assert area.low < 0.5 < area.high


def test_scores_are_the_logits(who: Split, tmp_path: Path) -> None:
    critic = Critic(lambda x: x.mean((1, 2, 3)), (1, 4, 4), identity="mean")
    outcome = DiscriminatorLoss(rows=10).run(gan(critic), who, Context(Store(tmp_path)))
    looked = ~np.isnan(outcome.member_scores)
    assert looked.sum() == 10
    expected = who.members.floats().mean((1, 2, 3)).numpy()[looked]
    np.testing.assert_allclose(outcome.member_scores[looked], expected, rtol=1e-5)


def test_a_second_run_and_another_batch_size_change_nothing(who: Split, tmp_path: Path) -> None:
    critic = memory_of(who.members.floats())
    first = DiscriminatorLoss().run(gan(critic), who, Context(Store(tmp_path)))
    assert critic.evaluations == 80
    again = DiscriminatorLoss().run(gan(critic), who, Context(Store(tmp_path)))
    assert critic.evaluations == 80
    other = DiscriminatorLoss().run(gan(critic), who, Context(Store(tmp_path / "other"), batch_size=7))
    np.testing.assert_array_equal(first.member_scores, again.member_scores)
    np.testing.assert_allclose(first.other_scores, other.other_scores, rtol=1e-5, atol=1e-5)


def test_it_asks_only_discriminators_and_denoising_attacks_only_denoisers(who: Split, tmp_path: Path) -> None:
    attack = DiscriminatorLoss()
    diffusion = Subject.of_denoiser("ddpm", EmpiricalDenoiser(who.members.floats()), DDIM())
    bank = Subject.of_samples("samples.npz", SampleBank(images(6).pixels))
    silent, full = gan(None), gan(memory_of(who.members.floats()))
    reasons = {name: attack.refusal(s, who) for name, s in (("ddpm", diffusion), ("bank", bank), ("silent", silent))}
    assert all(reasons.values())
    assert "ddpm is a diffusion model" in reasons["ddpm"].reason  # type: ignore[union-attr]
    assert "grants samples" in reasons["bank"].reason  # type: ignore[union-attr]
    assert "comes without one" in reasons["silent"].reason  # type: ignore[union-attr]
    assert attack.refusal(full, who) is None
    assert (attack.concerns(diffusion), attack.concerns(full), attack.concerns(silent)) == (False, True, True)
    assert (DenoisingLoss().concerns(full), DenoisingLoss().concerns(diffusion)) == (False, True)
    assert GenerateAndFilter().concerns(full)
    for subject in (silent, full):
        refusal = DenoisingLoss().refusal(subject, who)
        assert refusal is not None
        assert "toy-gan is a GAN" in refusal.reason
        assert "DiscriminatorLoss" in refusal.remedy
        with pytest.raises(NeedsAccess, match="is a GAN"):
            subject.opened("Erasing")
    with pytest.raises(NeedsAccess, match="diffusion model"):
        attack.run(diffusion, who, Context(Store(tmp_path)))
    with pytest.raises(NeedsAccess, match="comes without one"):
        attack.collect(silent, who, Context(Store(tmp_path)))
    alone = attack.refusal(full, split(images(0)))
    assert alone is not None
    assert "--non-members" in alone.remedy


def test_a_conditional_discriminator_gets_the_images_labels(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    def network(x: Tensor, labels: Tensor) -> Tensor:
        seen.append(labels)
        return labels.float() + 0 * x.sum((1, 2, 3))

    subject = gan(Critic(network, (1, 4, 4), identity="label", classes=2))
    plain = DiscriminatorLoss().refusal(subject, split(images(0), images(1)))
    assert plain is not None
    assert "sub-folder" in plain.remedy
    labelled = split(images(0, labels=True), images(1, labels=True))
    outcome = DiscriminatorLoss().run(subject, labelled, Context(Store(tmp_path)))
    assert labelled.members.labels is not None
    np.testing.assert_array_equal(outcome.member_scores, labelled.members.labels)


def test_senseless_settings_are_refused() -> None:
    with pytest.raises(InvalidInput):
        DiscriminatorLoss(rows=1)
