"""Cost of a zero-knowledge proof of a sketch for a 135M-parameter model of LLaMA's kind, beside its limits.

python benchmarks/fingerprint_proof.py                  # 1024 tokens
python benchmarks/fingerprint_proof.py --tokens 4096    # more

Two blocks of width 576 with 9 heads over 3 of width 64 and a feed-forward part of 1536, as in SmolLM2-135M. Weights
are random: no step depends on their values but for a few per cent. The work is done in one thread, so that CPU seconds
are what an idle core needs; they are compared with the limits. Wall seconds are longer on a machine that is busy with
something else. Each part runs in a process of its own, so that nothing is counted that another part had prepared.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from table import RESULTS, Row, write

from vestige.fingerprint.proof.auditor import audit, commit_rows, dense_product
from vestige.fingerprint.proof.files import commit_model, draw_challenge, prove_files, read_challenge, verify_files
from vestige.fingerprint.proof.integers import IntegerBlock, IntegerModel, on_grid
from vestige.fingerprint.proof.sketch import sketch
from vestige.fingerprint.words import Words

PROVE_LIMIT, VERIFY_LIMIT, BYTES_LIMIT = 180.0, 20.0, 1_000_000.0


@dataclass(frozen=True)
class Shape:
    """Of the model and of the challenge."""

    tokens: int = 1024
    size: int = 85
    width: int = 576
    heads: int = 9
    kv: int = 3
    inner: int = 64
    feed: int = 1536

    def model(self) -> IntegerModel:
        """Random matrices on their grids."""
        random = np.random.default_rng(0)

        def drawn(*shape: int) -> np.ndarray:
            return on_grid(random.standard_normal(shape, np.float32), "random")

        def block(layer: int) -> IntegerBlock:
            query, output = (drawn(self.heads, self.inner, self.width) for _ in range(2))
            key, value = (drawn(self.kv, self.inner, self.width) for _ in range(2))
            return IntegerBlock(layer, query, key, value, output, *(drawn(self.feed, self.width) for _ in range(2)))

        words = Words(tuple(f"token {row}" for row in range(self.tokens)), np.arange(self.tokens))
        return IntegerModel(words, drawn(self.tokens, self.width), (block(28), block(29)))


@dataclass(frozen=True)
class Took:
    """Wall and CPU seconds."""

    wall: float
    cpu: float

    def __add__(self, other: Took) -> Took:
        return Took(self.wall + other.wall, self.cpu + other.cpu)


def timed(work: Callable[[], object]) -> Took:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Took(time.perf_counter() - wall, time.process_time() - cpu)


def commit_part(shape: Shape, folder: Path) -> Took:
    model = shape.model()
    return timed(lambda: commit_model(model, folder))


def answer_part(shape: Shape, folder: Path) -> Took:
    draw_challenge([folder / "commitment.bin"], folder / "challenge.json", shape.size)
    return timed(lambda: prove_files(folder, folder / "challenge.json", folder / "proof.bin"))


def verify_part(shape: Shape, folder: Path) -> Took:
    paths = folder / "commitment.bin", folder / "proof.bin", folder / "challenge.json"
    shown = []
    took = timed(lambda: shown.append(verify_files(*paths)))
    if shown[0].verification.sketch != sketch(shape.model(), read_challenge(paths[2])):
        raise SystemExit("The proven sketch is not that of the weights.")
    return took


def audit_part(shape: Shape, folder: Path) -> Took:
    model = shape.model()
    commitment, key = commit_rows(model)
    claims = tuple(dense_product(model, term.name) for term in model.terms)
    return timed(lambda: audit(commitment, key, model, claims))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=Shape.tokens)
    parser.add_argument("--size", type=int, default=Shape.size, help="entries a term")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    shape = Shape(tokens=given.tokens, size=given.size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = {}
        for part in (commit_part, answer_part, verify_part, audit_part):
            with get_context("spawn").Pool(1) as pool:
                parts[part] = pool.apply(part, (shape, folder))
        sizes = {name: (folder / f"{name}.bin").stat().st_size for name in ("commitment", "proof")}
    prover, verifier, n = parts[commit_part] + parts[answer_part], parts[verify_part], 6 * shape.size

    def limited(name: str, ours: float, limit: float, unit: str) -> Row:
        return Row(name, ours, limit, "limit", limit / ours, unit, n)

    def alone(name: str, ours: float, unit: str) -> Row:
        return Row(name, ours, None, "", None, unit, n)

    rows = [
        limited("prove/seconds", prover.cpu, PROVE_LIMIT, "CPU s"),
        alone("prove/commit_seconds", parts[commit_part].cpu, "CPU s"),
        alone("prove/answer_seconds", parts[answer_part].cpu, "CPU s"),
        alone("prove/wall_seconds", prover.wall, "s"),
        limited("verify/seconds", verifier.cpu, VERIFY_LIMIT, "CPU s"),
        alone("verify/wall_seconds", verifier.wall, "s"),
        limited("proof/bytes", sizes["proof"], BYTES_LIMIT, "B"),
        alone("commitment/bytes", sizes["commitment"], "B"),
        alone("audit/seconds", parts[audit_part].cpu, "CPU s"),
    ]
    write("fingerprint_proof", f"Proof of a sketch: {shape.tokens} tokens, {n} entries", rows, given.out)


if __name__ == "__main__":
    main()
