"""The vocabulary of `digits-t2i`: byte-pair merges learned on its captions until every word is one token.

Written in the files that ``transformers.CLIPTokenizer`` reads. Words that no caption has fall apart into smaller
tokens, down to bytes, as in CLIP.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from vestige.store import write_text
from vestige.zoo.captions import all_captions
from vestige.zoo.planted import special_captions

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 16
"""Tokens of a prompt, those at the beginning and end included."""

_LAST = "</w>"  # marks the last piece of a word

Merge = tuple[str, str]


def words() -> list[str]:
    """Every word of every caption, as CLIP splits them: commas and the genitive s stand alone."""
    texts = [caption.text for caption in all_captions()] + [special.text for special in special_captions()]
    return sorted({word for text in texts for word in text.replace(",", " ,").replace("'s", " 's").split()})


def learned_merges(vocabulary: Iterable[str]) -> list[Merge]:
    """Merges (Sennrich et al. 2016, arXiv 1508.07909), most frequent pair first, until every word is one piece."""
    pieces = [[*word[:-1], word[-1] + _LAST] for word in vocabulary]
    merges: list[Merge] = []
    while True:
        pairs = Counter(pair for word in pieces for pair in pairwise(word))
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        pieces = [_merged(word, best) for word in pieces]


def _merged(word: list[str], merge: Merge) -> list[str]:
    found: list[str] = []
    for piece in word:
        if found and (found[-1], piece) == merge and not found[-1].endswith(_LAST):
            found[-1] += piece
        else:
            found.append(piece)
    return found


def byte_letters() -> list[str]:
    """A printable letter for each byte, in the order of CLIP's vocabulary: printable bytes stand for themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + place) for place in range(len(others))]


def write_tokenizer(folder: Path) -> None:
    """Write vocab.json, merges.txt and two configurations."""
    merges = learned_merges(words())
    letters = byte_letters()
    entries = [*letters, *(letter + _LAST for letter in letters), *("".join(merge) for merge in merges), BEGIN, END]
    vocabulary = {entry: number for number, entry in enumerate(dict.fromkeys(entries))}
    special = {"bos_token": BEGIN, "eos_token": END, "unk_token": END, "pad_token": END}
    settings = {
        **special,
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": LENGTH,
        "do_lower_case": True,
        "errors": "replace",
    }
    write_text(folder / "vocab.json", json.dumps(vocabulary, ensure_ascii=False) + "\n")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    write_text(folder / "merges.txt", "\n".join(lines) + "\n")
    write_text(folder / "special_tokens_map.json", json.dumps(special, indent=2) + "\n")
    write_text(folder / "tokenizer_config.json", json.dumps(settings, indent=2) + "\n")
