"""Terms of the last two layers of a model of 7 billion weights: memory and time beside loading it and reading it.

python benchmarks/fingerprint_7b.py --folder DIR       # writes 13.5 GB there once; DIR must have room

The terms are taken over 1024 tokens. Shapes are those of LLaMA-2-7B in float16, eight shards with an index. Embedding,
head and the last two layers are random each on their own; the other layers hold the same random numbers, which only a
full load ever reads. Every part runs in a process of its own; memory is its largest resident set, pages of mapped
files included. The system's copies of the shards are dropped before each, so that all read from disk. Loading needs
15 GB of free memory and is left out where there is less; its memory is then the size of the weights. transformers maps
weights that need no conversion, so that loading alone takes little; the model is used for one token to load it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from table import RESULTS, Row, write

WIDTH, FEED, DEPTH, HEADS, VOCABULARY = 4096, 11008, 32, 32, 32000
SHARDS, TOKENS = 8, 1024
NEEDED = 14 << 30
LIMIT = 3 << 30


@dataclass(frozen=True)
class Took:
    """Wall and CPU seconds, and the largest resident set in bytes."""

    wall: float
    cpu: float
    peak: int


def _drawn(random: np.random.Generator, *shape: int) -> np.ndarray:
    return (random.standard_normal(shape, np.float32) * np.float32(0.02)).astype(np.float16)


def _layer(random: np.random.Generator) -> dict[str, np.ndarray]:
    square = {f"self_attn.{name}_proj.weight": _drawn(random, WIDTH, WIDTH) for name in "qkvo"}
    wide = {f"mlp.{name}_proj.weight": _drawn(random, FEED, WIDTH) for name in ("gate", "up")}
    norms = {name: 1 + _drawn(random, WIDTH) for name in ("input_layernorm.weight", "post_attention_layernorm.weight")}
    return {**square, **wide, "mlp.down_proj.weight": _drawn(random, WIDTH, FEED), **norms}


def _shards() -> Iterator[dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    common = _layer(random)
    for shard in range(SHARDS):
        held: dict[str, np.ndarray] = {}
        for index in range(shard * DEPTH // SHARDS, (shard + 1) * DEPTH // SHARDS):
            layer = common if index < DEPTH - 2 else _layer(random)
            held |= {f"model.layers.{index}.{name}": array for name, array in layer.items()}
        if shard == 0:
            held["model.embed_tokens.weight"] = _drawn(random, VOCABULARY, WIDTH)
        if shard == SHARDS - 1:
            held["lm_head.weight"] = _drawn(random, VOCABULARY, WIDTH)
            held["model.norm.weight"] = 1 + _drawn(random, WIDTH)
        yield held


def write_model(folder: Path) -> None:
    """Write the model; the index comes last, so a folder that has it is whole."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    where: dict[str, str] = {}
    for place, shard in enumerate(_shards(), 1):
        name = f"model-{place:05d}-of-{SHARDS:05d}.safetensors"
        save_file(shard, folder / name, {"format": "pt"})
        where |= dict.fromkeys(shard, name)
    configuration = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": WIDTH,
        "intermediate_size": FEED,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "vocab_size": VOCABULARY,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "max_position_embeddings": 4096,
        "torch_dtype": "float16",
    }
    (folder / "config.json").write_text(json.dumps(configuration), encoding="utf-8")
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}), encoding="utf-8")


def _shard_paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def forget(folder: Path) -> None:
    """Have the system drop its copies of the shards."""
    for path in _shard_paths(folder):
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def read_once(folder: Path) -> None:
    """Every byte of every shard, 16 MiB at a time."""
    buffer = bytearray(16 << 20)
    for path in _shard_paths(folder):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def terms(folder: Path) -> None:
    """The vector of the three terms of the last two layers over a sample of tokens."""
    from vestige.fingerprint.encoder import Sketch
    from vestige.fingerprint.similarity import Layer
    from vestige.fingerprint.terms import BlockTerms, Entry, Term
    from vestige.fingerprint.words import Sampled, Words
    from vestige.models.transformer.open import open_transformer

    model, sketch = open_transformer(folder), Sketch()
    words = Words.of(model)
    words = words.at(Sampled(TOKENS).choose(words))
    entry, directions = Entry(model, words.rows), iter(sketch.directions(words, 2 * len(Term)))

    def encode(index: int) -> None:  # lets its block go before the next is read
        layer = Layer(BlockTerms.of(model.block(index)), entry)
        for term in Term:
            vector = sketch.encode(layer, term, next(directions))
            if not np.isfinite(vector).all() or not vector.any():
                raise SystemExit("The terms are not finite or zero.")

    for index in (DEPTH - 2, DEPTH - 1):
        encode(index)


def card(folder: Path) -> None:
    """The whole card of these layers, which hashes every byte of the file to name the model."""
    from vestige.fingerprint.card import Plan, fingerprint
    from vestige.fingerprint.words import Sampled
    from vestige.models.transformer.open import open_transformer

    fingerprint(open_transformer(folder), Plan(bands=(Sampled(TOKENS),), every_layer=False))


def load(folder: Path) -> None:
    """The whole model, as transformers loads it, and one token through it: until then weights are only mapped."""
    import torch
    from transformers import AutoModelForCausalLM

    resource.setrlimit(resource.RLIMIT_DATA, (NEEDED, NEEDED))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16)
    if sum(weight.numel() for weight in model.parameters()) < 6e9:
        raise SystemExit("Not the whole model was loaded.")
    with torch.no_grad():
        model(input_ids=torch.zeros(1, 1, dtype=torch.long))


def _measured(work: Callable[[Path], None], folder: Path) -> Took:
    wall, cpu = time.perf_counter(), time.process_time()
    work(folder)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Took(wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def alone(work: Callable[[Path], None], folder: Path) -> Took:
    """The work in a process of its own, with nothing of the shards in memory."""
    forget(folder)
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (work, folder))


def free_memory() -> int:
    """Bytes that could be had without swapping."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the 13.5 GB lie, or are written to")
    parser.add_argument("--card", action="store_true", help="time the card too, which hashes the whole file")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    write_model(given.folder)
    size = sum(path.stat().st_size for path in _shard_paths(given.folder))
    ours, reading = alone(terms, given.folder), alone(read_once, given.folder)
    whole_card = alone(card, given.folder) if given.card else None
    loading = alone(load, given.folder) if free_memory() > NEEDED + (1 << 30) else None
    whole, loader = (
        (size, "size of the weights") if loading is None else (loading.peak, "loading with transformers, one token")
    )
    n = TOKENS
    rows = [
        Row("terms_7b/peak_memory", ours.peak / 1e9, whole / 1e9, loader, whole / ours.peak, "GB", n),
        Row("terms_7b/peak_memory_limit", ours.peak / 1e9, LIMIT / 1e9, "limit", LIMIT / ours.peak, "GB", n),
        Row("terms_7b/seconds", ours.wall, reading.wall, "one read of the file", reading.wall / ours.wall, "s", n),
        Row("terms_7b/cpu_seconds", ours.cpu, None, "", None, "CPU s", n),
        Row("terms_7b/file", size / 1e9, None, "", None, "GB", n),
    ]
    if whole_card is not None:
        rows.append(Row("card_7b/seconds", whole_card.wall, reading.wall, "one read of the file", None, "s", n))
        rows.append(Row("card_7b/peak_memory", whole_card.peak / 1e9, LIMIT / 1e9, "limit", None, "GB", n))
    if loading is not None:
        rows.append(Row("terms_7b/load_seconds", loading.wall, None, "", None, "s", n))
    write("fingerprint_7b", "Terms of the last two layers of a 7B model", rows, given.out)


if __name__ == "__main__":
    main()
