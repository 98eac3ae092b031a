"""``vestige prove`` and ``vestige verify-proof``: that a fingerprint is honest, in three tiers.

Each tier ends in a :class:`Shown`: what a stranger knows afterwards, and what nobody knows from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vestige.fingerprint.card import Fingerprint, Plan, fingerprint
from vestige.fingerprint.encoder import Sketch
from vestige.fingerprint.fold import Doubles
from vestige.fingerprint.proof.files import (
    COMMITMENT,
    KEY,
    OPENING,
    ROOT,
    Verified,
    audit_files,
    band_model,
    check_manifest_file,
    commit_model,
    commit_rows_model,
    draw_challenge,
    prove_files,
    verify_files,
    write_manifest,
)
from vestige.fingerprint.proof.integers import IntegerModel
from vestige.fingerprint.proof.reading import refuse_existing
from vestige.fingerprint.proof.rejected import ProofRejected
from vestige.fingerprint.words import Sampled
from vestige.jobs.fingerprint import refuse_to_replace
from vestige.jobs.fingerprint_open import Watched, open_model, read_card_file
from vestige.metrics.interval import Interval
from vestige.models.transformer.block import Transformer
from vestige.progress import Progress, Silent

DEPLOYED = "which model is deployed: every tier speaks of files or of a commitment"
BEFORE = "that rare rows were not overwritten before it was made"
_CLOSE = 1e-3
"""Relative difference of two cards of one model that rounding on another machine may bring about."""


@dataclass(frozen=True)
class Scope:
    """What a proof is about: the last ``layers`` blocks over ``tokens`` tokens with the smallest hashes."""

    tokens: int = 1024
    layers: int = 2

    def read(self, transformer: Transformer, progress: Progress, label: str) -> IntegerModel:
        """These blocks and tokens of a model, as integers."""
        with progress.task(label, self.layers) as task:
            return band_model(Watched(transformer, task.advance), Sampled(self.tokens), self.layers)


@dataclass(frozen=True)
class Shown:
    """What somebody who checked it knows, what stays unknown, and the files in play."""

    shows: tuple[str, ...]
    not_shown: tuple[str, ...]
    publish: tuple[Path, ...] = ()
    keep: tuple[Path, ...] = ()
    similarity: Interval | None = None


def prove_manifest(
    model: str | Path,
    *,
    out: str | Path,
    scope: Scope | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Shown:
    """Open weights: write the digest of every file and the sketch under public directions.

    Raises
    ------
    AlreadyExists : ``out`` exists. NotFound, CorruptFile, BadWeights, Unsupported : the model cannot be read.
    """
    refuse_to_replace(out, overwrite)
    integers = (scope or Scope()).read(open_model(model), progress or Silent(), f"Reading {model}")
    manifest = write_manifest(Path(model), integers, Path(out))
    return Shown(
        (f"once the files are public, anybody can check that they are the ones of digest {manifest.digest}",),
        (DEPLOYED, BEFORE),
        publish=(Path(out),),
    )


def verify_manifest(
    manifest: str | Path, model: str | Path, *, card: str | Path | None = None, progress: Progress | None = None
) -> Shown:
    """Check a manifest, and a published card if one is given, against the files of a model.

    Raises
    ------
    ProofRejected : a file, the sketch or the card is not that of these files; the message names it.
    """
    transformer = open_model(model)
    stated = check_manifest_file(Path(manifest), Path(model), transformer)
    shows = [
        f"the {len(stated.files)} files are those of the manifest, byte for byte (digest {stated.digest})",
        f"the sketch is that of these files, over {len(stated.names):,} tokens",
    ]
    if card is not None:
        shows.append(_card_holds(Path(card), transformer, progress or Silent()))
    return Shown(tuple(shows), (DEPLOYED, BEFORE))


def prove_rows(
    model: str | Path, *, out: str | Path, scope: Scope | None = None, progress: Progress | None = None
) -> Shown:
    """Auditor: write ``rows.json``, the root over all rows, to publish, and ``rows.secret`` for the auditor alone.

    Raises
    ------
    AlreadyExists : ``out`` holds a key. NotFound, CorruptFile, BadWeights, Unsupported : the model cannot be read.
    """
    out = Path(out)
    refuse_existing(out / KEY)
    integers = (scope or Scope()).read(open_model(model), progress or Silent(), f"Reading {model}")
    commit_rows_model(integers, out)
    return Shown(
        ("by itself nothing: it fixes the rows that an auditor, who gets weights and key, can check",),
        (DEPLOYED, BEFORE, "anything to whoever does not trust the auditor"),
        publish=(out / ROOT,),
        keep=(out / KEY,),
    )


def verify_rows(
    rows: str | Path,
    key: str | Path,
    model: str | Path,
    *,
    scope: Scope | None = None,
    card: str | Path | None = None,
    progress: Progress | None = None,
) -> Shown:
    """As the auditor: check a root, and a published card if one is given, against the weights.

    Raises
    ------
    ProofRejected : the root or the card is not that of these weights.
    """
    transformer, listens = open_model(model), progress or Silent()
    integers = (scope or Scope()).read(transformer, listens, f"Reading {model}")
    checked = audit_files(Path(rows), Path(key), integers)
    shows = [f"the root {checked.root.hex()} is that of these weights, fixed when it was published"]
    if card is not None:
        shows.append(_card_holds(Path(card), transformer, listens))
    return Shown(tuple(shows), (DEPLOYED, BEFORE, "anything to whoever does not trust you, the auditor"))


def prove_commit(
    model: str | Path, *, out: str | Path, scope: Scope | None = None, progress: Progress | None = None
) -> Shown:
    """Zero knowledge, step 1, the owner: write ``commitment.bin`` to publish and ``opening.secret`` to keep.

    Raises
    ------
    AlreadyExists : ``out`` holds an opening. MissingExtra : the curve library is not installed.
    NotFound, CorruptFile, BadWeights, Unsupported : the model cannot be read.
    """
    out, listens = Path(out), progress or Silent()
    refuse_existing(out / OPENING)
    integers = (scope or Scope()).read(open_model(model), listens, f"Reading {model}")
    with listens.task("Committing", 1) as task:
        commit_model(integers, out)
        task.advance()
    return Shown(
        ("by itself nothing: it fixes the matrices before anybody knows the challenge",),
        (DEPLOYED, BEFORE),
        publish=(out / COMMITMENT,),
        keep=(out / OPENING,),
    )


def prove_challenge(
    commitments: Sequence[str | Path], *, out: str | Path, size: int = 85, overwrite: bool = False
) -> Shown:
    """Zero knowledge, step 2, the verifier: draw directions that nobody could know before.

    Raises
    ------
    AlreadyExists : ``out`` exists. InvalidInput : ``size`` is not 2 to 4096. NotFound : a commitment is absent.
    """
    refuse_to_replace(out, overwrite)
    draw_challenge([Path(path) for path in commitments], Path(out), size)
    return Shown(
        (f"nothing yet: it asks for {size} entries a term of {len(commitments)} commitments",), (), publish=(Path(out),)
    )


def prove_answer(
    folder: str | Path,
    challenge: str | Path,
    *,
    out: str | Path,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Shown:
    """Zero knowledge, step 3, the owner: prove the sketch under a challenge; it is verified before it is written.

    Raises
    ------
    AlreadyExists : ``out`` exists. NotFound, CorruptFile, DigestMismatch : files are missing, damaged or mixed up.
    """
    refuse_to_replace(out, overwrite)
    listens = progress or Silent()
    with listens.task("Proving", 1) as task:
        shown = prove_files(Path(folder), Path(challenge), Path(out))
        task.advance()
    return Shown((_sketch_shown(shown.sketch.size, len(shown.sketch.terms)),), (DEPLOYED, BEFORE), publish=(Path(out),))


def verify_answer(
    commitment: str | Path,
    proof: str | Path,
    challenge: str | Path,
    *,
    reference: str | Path | None = None,
    progress: Progress | None = None,
) -> Shown:
    """Zero knowledge, step 4, the verifier: check a proof against one's own challenge.

    With a reference model, whose weights the verifier has, the similarity of both is shown.

    Raises
    ------
    ProofRejected : it does not hold. NotFound, CorruptFile : a file, or a token of the reference, is not there.
    """
    listens = progress or Silent()
    base = None if reference is None else open_model(reference)
    with listens.task("Verifying", 1) as task:
        found: Verified = verify_files(Path(commitment), Path(proof), Path(challenge), base)
        task.advance()
    sketch = found.verification.sketch
    shows = [_sketch_shown(sketch.size, len(sketch.terms))]
    not_shown = [DEPLOYED, BEFORE, "the gated feed-forward term, or that the whole model is what was committed to"]
    if not found.verification.after:
        not_shown.append("that matrices were fixed before the directions: this challenge names no commitment")
    return Shown(tuple(shows), tuple(not_shown), similarity=found.similarity)


def _sketch_shown(size: int, terms: int) -> str:
    return f"{size} numbers of each of {terms} terms are those of the committed matrices, and nothing else of them"


def _card_holds(path: Path, transformer: Transformer, progress: Progress) -> str:
    """Compare a published card with one made from the weights now."""
    stated = read_card_file(path)
    plan = Plan(
        sketch=Sketch(stated.sketch_size, stated.sketch_seed),
        last=stated.last,
        layer_sketch=Sketch(size=stated.layers.shape[2]),
        every_layer=len(stated.layers) > 0,
    )
    with progress.task("Making the card", transformer.depth) as task:
        made = fingerprint(Watched(transformer, task.advance), plan)
    fault = _difference(stated, made)
    if fault:
        raise ProofRejected(
            f"{path}: {fault}.",
            expected="the card of these weights.",
            remedy="ask the owner for weights and card of one model; if these are, do not trust the card.",
        )
    return f"the card {path.name} is that of these weights, every vector of it (up to rounding)"


def _difference(stated: Fingerprint, made: Fingerprint) -> str:
    if stated.digest != made.digest:
        return "its digest is not that of these weights"
    if [(b.band, b.count, b.tokens) for b in stated.bands] != [(b.band, b.count, b.tokens) for b in made.bands]:
        return "its bands hold other tokens"
    vectors = zip(stated.bands, made.bands, strict=True)
    pairs = {f"the vector of the band {ours.band}": (ours.vector, theirs.vector) for ours, theirs in vectors}
    pairs |= {
        "the sketches of its layers": (stated.layers, made.layers),
        "the spectra": (stated.spectra, made.spectra),
        "the strengths": (stated.strengths, made.strengths),
    }
    wrong = [name for name, (ours, theirs) in pairs.items() if not _near(ours, theirs)]
    return f"{wrong[0]} is not what these weights give" if wrong else ""


def _near(ours: Doubles, theirs: Doubles) -> bool:
    if ours.shape != theirs.shape:
        return False
    return float(np.abs(ours - theirs).max(initial=0)) <= _CLOSE * float(np.abs(theirs).max(initial=0))
