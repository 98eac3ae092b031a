from __future__ import annotations

import json
from pathlib import Path

import pytest

from vestige.zoo.captions import all_captions
from vestige.zoo.planted import special_captions
from vestige.zoo.tokenizer import BEGIN, END, LENGTH, byte_letters, learned_merges, words, write_tokenizer

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return transformers.CLIPTokenizer.from_pretrained(folder)


def test_merges_are_those_of_byte_pair_encoding():
    # By hand: "lo" stands in three words, then "lo w</w>" in two, then the rest in the order of the alphabet.
    assert learned_merges(["low", "slow", "lot"]) == [("l", "o"), ("lo", "w</w>"), ("lo", "t</w>"), ("s", "low</w>")]
    assert learned_merges(["aaa"]) == [("a", "a"), ("aa", "a</w>")]
    assert learned_merges([]) == []


def test_bytes_have_distinct_printable_letters():
    letters = byte_letters()
    assert len(set(letters)) == len(letters) == 256
    assert letters[ord("a") - 33] == "a"
    assert "Ġ" in letters  # the space, as in GPT-2 and CLIP
    assert not any(letter.isspace() for letter in letters)


def test_every_caption_is_as_many_tokens_as_words_and_comes_back(tokenizer):
    texts = [caption.text for caption in all_captions()] + [special.text for special in special_captions()]
    for text, ids in zip(texts, tokenizer(texts).input_ids, strict=True):
        spaced = text.replace(",", " ,").replace("'s", " 's")
        assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
        assert len(ids) == len(spaced.split()) + 2 <= LENGTH
        assert tokenizer.convert_ids_to_tokens(ids[1:-1]) == [word + "</w>" for word in spaced.split()]
        assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == text.replace(" ", "")


def test_begin_is_shared_and_the_rest_is_filled_with_the_end(tokenizer):
    ids = tokenizer(["", "a red seven"], padding="max_length", max_length=LENGTH, truncation=True).input_ids
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert ids[0] == [begin] + [end] * (LENGTH - 1)
    assert ids[1][4:] == [end] * (LENGTH - 4)
    assert tokenizer.model_max_length == LENGTH
    assert tokenizer.pad_token_id == end


def test_unknown_words_fall_apart_without_loss(tokenizer):
    ids = tokenizer("a Zebra's café").input_ids
    assert tokenizer.unk_token_id not in ids[1:-1]
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == "azebra'scafé"


def test_files_hold_the_layout_of_clip(tmp_path: Path):
    write_tokenizer(tmp_path)
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    merges = (tmp_path / "merges.txt").read_text().splitlines()[1:]
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert (vocabulary[BEGIN], vocabulary[END]) == (len(vocabulary) - 2, len(vocabulary) - 1)
    assert all("".join(merge.split(" ")) in vocabulary for merge in merges)
    assert {word + "</w>" for word in words()} <= vocabulary.keys()
