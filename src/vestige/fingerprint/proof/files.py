"""Whole jobs from a model and paths to files, for each tier; commands are thin shells over these.

The order of events is what a proof rests on: the owner publishes the commitment, then the verifier draws a challenge
for it, then the owner answers. ``docs/proof.md`` says who keeps which file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vestige.errors import NotFound
from vestige.fingerprint.proof.auditor import Audit, ProductClaim, audit, commit_rows
from vestige.fingerprint.proof.challenge import Challenge
from vestige.fingerprint.proof.commitment import Commitment, Opening, commit
from vestige.fingerprint.proof.integers import IntegerModel, integer_model, last_layers
from vestige.fingerprint.proof.open_weights import Manifest, check_manifest, make_manifest
from vestige.fingerprint.proof.reading import (
    MOST_JSON,
    challenge_json,
    challenge_of,
    manifest_json,
    manifest_of,
    read_bounded,
    refuse_existing,
    row_commitment_json,
    row_commitment_of,
    row_key_json,
    row_key_of,
    write_secret,
)
from vestige.fingerprint.proof.sketch import IntegerSketch, similarity, sketch
from vestige.fingerprint.proof.zero_knowledge import Proof, Verification, prove, verify
from vestige.fingerprint.words import Band, Sampled, Words
from vestige.metrics.interval import Interval
from vestige.models.transformer.block import Transformer
from vestige.store import write_bytes, write_text

COMMITMENT, OPENING = "commitment.bin", "opening.secret"
ROOT, KEY = "rows.json", "rows.secret"
MOST_PROOF = 1 << 24
_TOKENS = 1024


@dataclass(frozen=True)
class Verified:
    """A proof that holds, and the similarity it shows to a reference, where one was given."""

    verification: Verification
    similarity: Interval | None


def band_model(transformer: Transformer, band: Band | None = None, layers: int = 2) -> IntegerModel:
    """The last blocks of a model and the tokens of a band (1024 with the smallest hashes by default), as integers."""
    words = Words.of(transformer)
    chosen = words.at((band or Sampled(_TOKENS)).choose(words))
    return integer_model(transformer, chosen, last_layers(transformer, layers))


def named_model(transformer: Transformer, names: Sequence[str], by_row: bool, layers: Sequence[int]) -> IntegerModel:
    """The tokens of these names and these blocks of a model, as integers.

    Raises
    ------
    NotFound : the model has no such tokens; the message says how many.
    """
    words = Words.of(transformer)
    where = {name: place for place, name in enumerate(words.names)} if words.by_row == by_row else {}
    missing = [name for name in names if name not in where]
    if missing:
        raise NotFound(
            f"{len(missing)} of {len(names)} committed tokens are not in the model, such as {missing[0]!r}.",
            expected="a model whose tokenizer has all of them.",
            remedy="ask for a commitment over tokens that both models share.",
        )
    return integer_model(transformer, words.at(np.array([where[name] for name in names], np.int64)), layers)


def commit_model(model: IntegerModel, folder: Path) -> Commitment:
    """Write ``commitment.bin``, to publish, and ``opening.secret``, to keep.

    Raises
    ------
    AlreadyExists : the folder holds an opening.
    """
    refuse_existing(folder / OPENING)
    commitment, opening = commit(model)
    write_secret(folder / OPENING, opening.encode())
    write_bytes(folder / COMMITMENT, commitment.encoded)
    return commitment


def draw_challenge(commitments: Sequence[Path], out: Path, size: int = 85) -> Challenge:
    """Draw a challenge to the owners of these commitments and write it as JSON; their points are not checked here."""
    digests = [hashlib.sha256(read_bounded(path)).digest() for path in commitments]
    challenge = Challenge.draw(digests, size)
    write_text(out, challenge_json(challenge))
    return challenge


def read_challenge(path: Path) -> Challenge:
    """The challenge in a file."""
    return challenge_of(read_bounded(path, MOST_JSON), str(path))


def prove_files(folder: Path, challenge: Path, out: Path) -> Verification:
    """Answer a challenge with the commitment and opening of a folder; the proof is verified before it is written."""
    commitment = _commitment(folder / COMMITMENT)
    opening = Opening.decode(read_bounded(folder / OPENING), str(folder / OPENING))
    asked = read_challenge(challenge)
    proof = prove(commitment, opening, asked)
    shown = verify(commitment, proof, asked)
    write_bytes(out, proof.encode())
    return shown


def verify_files(
    commitment: Path, proof: Path, challenge: Path, reference: Transformer | None = None, layers: Sequence[int] = ()
) -> Verified:
    """Verify a proof against a challenge of one's own and, where a reference is given, compare the sketch with its own.

    ``layers`` are the reference's blocks to compare with, as many as the commitment has; its last ones by default.

    Raises
    ------
    ProofRejected : it does not hold. CorruptFile : a file is not what it should be.
    NotFound : a file, or a token of the reference, does not exist.
    """
    committed, asked = _commitment(commitment), read_challenge(challenge)
    shown = verify(committed, Proof.decode(read_bounded(proof, MOST_PROOF), str(proof)), asked)
    if reference is None:
        return Verified(shown, None)
    depth = len({name.layer for name in committed.terms})
    model = named_model(reference, committed.names, committed.by_row, layers or last_layers(reference, depth))
    return Verified(shown, similarity(shown.sketch, sketch(model, asked)))


def commit_rows_model(model: IntegerModel, folder: Path) -> None:
    """Write ``rows.json``, to publish, and ``rows.secret``, for the auditor alone.

    Raises
    ------
    AlreadyExists : the folder holds a key.
    """
    refuse_existing(folder / KEY)
    commitment, key = commit_rows(model)
    write_secret(folder / KEY, row_key_json(key).encode())
    write_text(folder / ROOT, row_commitment_json(commitment))


def audit_files(
    commitment: Path,
    key: Path,
    model: IntegerModel,
    products: tuple[ProductClaim, ...] = (),
    sketches: tuple[tuple[Challenge, IntegerSketch], ...] = (),
) -> Audit:
    """Audit a root and claims against a model that the auditor read from the weights."""
    root = row_commitment_of(read_bounded(commitment, MOST_JSON), str(commitment))
    return audit(root, row_key_of(read_bounded(key, MOST_JSON), str(key)), model, products, sketches)


def write_manifest(path: Path, model: IntegerModel, out: Path) -> Manifest:
    """Write the manifest of a model's file or folder as JSON, outside of the folder."""
    manifest = make_manifest(path, model)
    write_text(out, manifest_json(manifest))
    return manifest


def check_manifest_file(manifest: Path, path: Path, transformer: Transformer) -> Manifest:
    """Check a manifest against a model's files and what is read from them; raises as :func:`check_manifest`."""
    stated = manifest_of(read_bounded(manifest, MOST_JSON), str(manifest))
    check_manifest(stated, path, named_model(transformer, stated.names, stated.by_row, stated.layers))
    return stated


def _commitment(path: Path) -> Commitment:
    return Commitment.decode(read_bounded(path), str(path))
