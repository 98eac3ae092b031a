"""Tokens from the files of tokenizers, made by the library of that name where it writes them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from vestige.errors import CorruptFile
from vestige.models.transformer.open import open_transformer
from vestige.models.transformer.tokens import tokens_of_folder


def test_a_tokenizer_of_pairs(tmp_path: Path, folder_of) -> None:
    from tokenizers import AddedToken, Tokenizer, models, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.train_from_iterator(["abab abc", "cabab"], trainers.BpeTrainer(vocab_size=12))
    tokenizer.add_special_tokens([AddedToken("<end>", special=True)])
    shutil.copytree(folder_of("llama"), tmp_path, dirs_exist_ok=True)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    tokens = open_transformer(tmp_path).tokens
    assert tokens == tuple(tokenizer.id_to_token(row) for row in range(tokenizer.get_vocab_size()))
    assert tokens[-1] == "<end>"


def test_a_tokenizer_of_scores(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    Tokenizer(models.Unigram([("<unk>", 0.0), ("▁a", -1.0), ("b", -2.0)], 0)).save(str(tmp_path / "tokenizer.json"))
    assert tokens_of_folder(tmp_path, 40) == ("<unk>", "▁a", "b")


def test_a_table_of_tokens(tmp_path: Path) -> None:
    assert tokens_of_folder(tmp_path, 9) is None
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "c": 2, "far": 9, "further": 1 << 60}))
    assert tokens_of_folder(tmp_path, 9) == ("a", "", "c")
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<end>": 4}))
    assert tokens_of_folder(tmp_path, 9) == ("a", "", "c", "", "<end>")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"model": 3}',
        '{"model": {"vocab": 3}}',
        '{"model": {"vocab": {}}, "added_tokens": [3]}',
        "[" * 100_000,
    ],
)
def test_files_that_are_no_tokenizer(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(CorruptFile, match=r"tokenizer\.json"):
        tokens_of_folder(tmp_path, 9)


def test_odd_entries_are_left_out(tmp_path: Path) -> None:
    vocabulary = [["a", 0], [], 3, [4, 0], ["e", 0]]
    added = [{"content": "x", "id": "2"}, {"id": 3}, {"content": "y", "id": -1}, {"content": "z", "id": True}]
    content = {"model": {"vocab": vocabulary}, "added_tokens": added}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert tokens_of_folder(tmp_path, 9) == ("a", "", "", "", "e")
