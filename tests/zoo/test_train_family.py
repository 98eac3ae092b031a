"""A family of tiny language models: who descends from whom, and that every change does what it says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from vestige.models.transformer.open import open_transformer
from vestige.zoo import train_family, train_family_changes, train_family_text
from vestige.zoo.train_family import Member, members, shares
from vestige.zoo.train_family_changes import Adapt, Drop, Lessons, Merge, Pretrain, Prune, Quantise, Tune, blank
from vestige.zoo.train_family_text import Corpus, read_texts

pytest.importorskip("transformers")
TINY = {
    "vocab_size": 300,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
    "tie_word_embeddings": True,
}
LESSONS = Lessons(Corpus.FIRST, 0, 3, 1e-2)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(train_family_text, "VOCABULARY", 300)
    monkeypatch.setattr(train_family_text, "LENGTH", 8)
    monkeypatch.setattr(train_family_text, "BATCH", 2)
    monkeypatch.setattr(train_family_text, "topics", {"one": "A manual says what every word of it does.\n" * 20})
    monkeypatch.setattr(train_family_changes, "FORM", TINY)
    monkeypatch.setattr(train_family, "_JUDGED", 1)


@pytest.fixture
def texts(tmp_path):
    (tmp_path / "text").write_text("The quick brown fox jumps over the lazy dog, and again.\n" * 40)
    return read_texts(tmp_path / "text", tmp_path)


@pytest.fixture
def root(texts):
    return Pretrain(0, LESSONS).make([], texts)


def weights(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def test_the_family_has_independent_roots_and_every_kind_of_offspring():
    every = members()
    found = shares(every)
    roots = [member.name for member in every if not member.parents]
    assert len(roots) >= 4
    assert len(every) >= 12
    assert len({member.change.seed for member in every if not member.parents}) == len(roots)
    lessons = [member.change.lessons for member in every if not member.parents]
    assert len(set(lessons)) < len(roots)  # some saw the same batches
    kinds = {type(member.change) for member in every}
    assert kinds == {Pretrain, Tune, Adapt, Merge, Prune, Quantise, Drop}
    assert all(sum(own.values()) == pytest.approx(1) for own in found.values())
    assert found["crossed23"] == pytest.approx({"root2": 0.7, "root3": 0.3})


def test_a_child_before_its_parent_is_refused():
    with pytest.raises(ValueError, match="child comes before"):
        shares((Member("child", Prune(0.1), (("root", 1.0),)),))


def test_batches_depend_on_order_and_step_alone(texts):
    first = texts.batch(Corpus.LATER, 3, 5)
    assert first.shape == (2, 8)
    np.testing.assert_array_equal(first, texts.batch(Corpus.LATER, 3, 5))
    assert not np.array_equal(first, texts.batch(Corpus.LATER, 4, 5))
    assert len(set(texts.tokens)) == len(texts.tokens) <= 300


def test_the_tokenizer_of_a_folder_is_kept(texts, tmp_path):
    (tmp_path / "text").write_text("Other words make other tokens. " * 60)
    assert read_texts(tmp_path / "text", tmp_path).tokens == texts.tokens


def test_roots_depend_on_their_seed_and_learn(root, texts):
    again, other = (Pretrain(seed, LESSONS).make([], texts) for seed in (0, 1))
    own = weights(root)
    assert all(torch.equal(value, own[name]) for name, value in weights(again).items())
    assert not any(torch.equal(value, own[name]) for name, value in weights(other).items() if value.ndim == 2)
    torch.manual_seed(0)
    assert any(not torch.equal(value, own[name]) for name, value in weights(blank()).items())


def test_no_change_touches_its_parents(root, texts):
    before = weights(root)
    for change in (Tune(LESSONS), Adapt(1, LESSONS), Merge((1.0,)), Prune(0.5), Quantise(4), Drop(1)):
        child = weights(change.make([root], texts))
        assert all(torch.equal(value, before[name]) for name, value in weights(root).items())
        differs = any(name not in child or not torch.equal(child[name], value) for name, value in before.items())
        assert differs is (not isinstance(change, Merge))


def test_adapters_add_matrices_of_their_rank_to_linear_maps_alone(root, texts):
    before, after = weights(root), weights(Adapt(1, LESSONS).make([root], texts))
    assert before.keys() == after.keys()
    for name, value in before.items():
        change = (after[name] - value).double()
        rank = int(torch.linalg.matrix_rank(change, rtol=1e-3)) if value.ndim == 2 else int(change.any())
        assert rank == (1 if "proj" in name else 0)


def test_merges_prunings_quantisings_and_drops_are_what_they_say(root, texts):
    other = Pretrain(1, LESSONS).make([], texts)
    ours, theirs = weights(root), weights(other)
    for name, value in weights(Merge((0.7, 0.3)).make([root, other], texts)).items():
        torch.testing.assert_close(value, 0.7 * ours[name] + 0.3 * theirs[name])
    for name, value in weights(Prune(0.5).make([root], texts)).items():
        if value.ndim == 2:
            assert float((value == 0).float().mean()) == pytest.approx(0.5, abs=0.05)
            assert torch.equal(value[value != 0], ours[name][value != 0])
    for name, value in weights(Quantise(3).make([root], texts)).items():
        if value.ndim == 2:
            assert max(len(row.unique()) for row in value) <= 7
            assert (value - ours[name]).abs().max() <= ours[name].abs().max() / 6 + 1e-6
    short = weights(Drop(1).make([root], texts))
    for name, value in short.items():
        torch.testing.assert_close(value, ours[name.replace("layers.1.", "layers.2.")])
    assert not any("layers.2." in name for name in short)


def test_a_member_is_written_with_its_lineage_last_and_not_made_twice(root, texts, tmp_path):
    member = Member("root0", Pretrain(0, LESSONS))
    facts = train_family.make(member, texts, {"root0": 1.0}, tmp_path)
    assert facts["roots"] == {"root0": 1.0}
    assert set(facts["losses"]) == {"first", "later", "manual"}
    read = open_transformer(tmp_path / "root0")
    assert read.tokens == texts.tokens
    np.testing.assert_array_equal(read.embedding(), root.get_input_embeddings().weight.detach().numpy())
    lineage = tmp_path / "root0" / "lineage.json"
    lineage.write_text(json.dumps({**facts, "change": "kept"}))
    assert train_family.make(member, texts, {}, tmp_path)["change"] == "kept"
    child = Member("pruned", Prune(0.2), (("root0", 1.0),))
    assert train_family.make(child, texts, {"root0": 1.0}, tmp_path)["parents"] == {"root0": 1.0}
