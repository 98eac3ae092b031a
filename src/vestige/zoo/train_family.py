"""Train a family of tiny language models of one architecture and tokenizer whose descent is known.

    python -m vestige.zoo.train_family --text TEXT --out DIR

Five roots of LLaMA's form with random weights of their own, three of which see the same batches of the same text in
the same order, and twenty-one offspring by fine-tuning, continued pretraining, adapters, merging, pruning, quantising
and dropping a layer. One continues a root on what another root was trained on. Batches and starting weights depend on
seeds alone; another number of threads changes rounding, which training magnifies.

Every member is a folder of transformers with ``lineage.json``, which is written last: a member that has it is not made
again, so an interrupted run goes on where it stopped. ``family.json`` lists all.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from vestige.dependencies import need
from vestige.models.transformer.memory import InMemoryTransformer
from vestige.models.transformer.open import open_transformer
from vestige.models.transformer.write import write_llama
from vestige.zoo.train_family_changes import (
    Adapt,
    Change,
    Drop,
    Lessons,
    Merge,
    Pretrain,
    Prune,
    Quantise,
    Tune,
    loss_of,
)
from vestige.zoo.train_family_text import Corpus, Texts, read_texts, write_facts

STEPS, RATE = 300, 3e-3
_JUDGED, _HELD_OUT = 8, 10**6
"""Batches, and their order, that every member is judged by."""
LINEAGE, FAMILY = "lineage.json", "family.json"


@dataclass(frozen=True)
class Member:
    """One model: its parents with their shares, none for a root, and how it is made of them."""

    name: str
    change: Change
    parents: tuple[tuple[str, float], ...] = ()


def _root(number: int, corpus: Corpus, order: int) -> Member:
    return Member(f"root{number}", Pretrain(number, Lessons(corpus, order, STEPS, RATE)))


def _tuned(number: int, corpus: Corpus) -> Member:
    lessons = Lessons(corpus, 100 + number, STEPS // 5, RATE / 5)
    return Member(f"tuned{number}", Tune(lessons), ((f"root{number}", 1.0),))


def _continued(number: int, corpus: Corpus) -> Member:
    lessons = Lessons(corpus, 200 + number, STEPS * 3 // 5, RATE / 2)
    return Member(f"continued{number}", Tune(lessons), ((f"root{number}", 1.0),))


def _adapted(number: int) -> Member:
    lessons = Lessons(Corpus.LATER, 300 + number, STEPS // 5, RATE)
    return Member(f"adapted{number}", Adapt(4, lessons), ((f"root{number}", 1.0),))


def _of(name: str, change: Change, parent: str) -> Member:
    return Member(name, change, ((parent, 1.0),))


def _merged(name: str, *parents: tuple[str, float]) -> Member:
    return Member(name, Merge(tuple(share for _, share in parents)), parents)


def members() -> tuple[Member, ...]:
    """The whole family, parents first."""
    return (
        _root(0, Corpus.FIRST, 0),
        _root(1, Corpus.FIRST, 0),
        _root(2, Corpus.FIRST, 0),
        _root(3, Corpus.FIRST, 3),
        _root(4, Corpus.MANUAL, 4),
        *(_tuned(number, Corpus.LATER) for number in range(4)),
        _tuned(4, Corpus.FIRST),
        _continued(0, Corpus.MANUAL),
        _continued(1, Corpus.LATER),
        _adapted(0),
        _adapted(2),
        _merged("merged0", ("tuned0", 0.5), ("continued0", 0.5)),
        _merged("merged1", ("tuned1", 0.7), ("continued1", 0.3)),
        _merged("crossed23", ("tuned2", 0.7), ("tuned3", 0.3)),
        _of("pruned1", Prune(0.5), "tuned1"),
        _of("pruned3", Prune(0.2), "root3"),
        _of("quantised2", Quantise(4), "tuned2"),
        _of("quantised4", Quantise(4), "root4"),
        _of("shorter0", Drop(3), "root0"),
        _of("shorter3", Drop(2), "tuned3"),
        _of("pruned4", Prune(0.5), "tuned4"),
        _of("pruned_quantised4", Quantise(5), "pruned4"),
        _of("continued_pruned0", Prune(0.3), "continued0"),
    )


def _in_order(every: tuple[Member, ...]) -> tuple[Member, ...]:
    """Raises ValueError where a parent does not come before its child."""
    known: set[str] = set()
    for member in every:
        if missing := {name for name, _ in member.parents} - known:
            raise ValueError(f"{member.name} comes before {sorted(missing)}")
        known.add(member.name)
    return every


def shares(every: tuple[Member, ...]) -> dict[str, dict[str, float]]:
    """Share of every root in every member."""
    found: dict[str, dict[str, float]] = {}
    for member in _in_order(every):
        own: dict[str, float] = {} if member.parents else {member.name: 1.0}
        for parent, share in member.parents:
            for root, part in found[parent].items():
                own[root] = own.get(root, 0.0) + share * part
        found[member.name] = own
    return found


def _load(folder: Path) -> nn.Module:
    transformers = cast("Any", need("text", "transformers"))
    return cast("nn.Module", transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32))


def _judge(model: nn.Module, texts: Texts) -> dict[str, float]:
    """Loss on batches of every corpus that no member learnt from in this order."""
    with torch.no_grad():
        found = {
            corpus.value: sum(float(loss_of(model, texts, corpus, _HELD_OUT, step)) for step in range(_JUDGED))
            / _JUDGED
            for corpus in Corpus
        }
    return {name: round(value, 4) for name, value in found.items()}


def make(member: Member, texts: Texts, roots: dict[str, float], out: Path) -> dict[str, Any]:
    """Make one member, or read what is known of it where it was made before."""
    folder = out / member.name
    lineage = folder / LINEAGE
    if lineage.is_file():
        return cast("dict[str, Any]", json.loads(lineage.read_text(encoding="utf-8")))
    started = time.process_time()
    model = member.change.make([_load(out / parent) for parent, _ in member.parents], texts)
    held = InMemoryTransformer.of(open_transformer(model))
    write_llama(replace(held, strings=texts.tokens), folder)
    facts: dict[str, Any] = {
        "name": member.name,
        "change": type(member.change).__name__,
        "parents": dict(member.parents),
        "roots": roots,
        "losses": _judge(model, texts),
        "cpu_seconds": round(time.process_time() - started, 1),
    }
    write_facts(lineage, facts)
    return facts


def train(text: Path, out: Path) -> None:
    """Make every member that is not there yet."""
    every, texts = members(), read_texts(text, out)
    roots, facts = shares(every), list[dict[str, Any]]()
    for member in every:
        facts.append(make(member, texts, roots[member.name], out))
        losses = "  ".join(f"{name} {loss:.3f}" for name, loss in facts[-1]["losses"].items())
        print(f"{member.name:<20} {losses}  {facts[-1]['cpu_seconds']:.0f} s", flush=True)
    write_facts(out / FAMILY, {"members": facts})


def main() -> None:
    """Read options and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="plain text, about a million characters")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    train(options.text, options.out)


if __name__ == "__main__":
    main()
