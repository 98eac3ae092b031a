from __future__ import annotations

import dataclasses
import os
import stat

import numpy as np
import pytest

from vestige.errors import AlreadyExists, CorruptFile, DigestMismatch, NotFound, StorageFailed
from vestige.fingerprint.proof import files, reading
from vestige.fingerprint.proof.auditor import dense_product
from vestige.fingerprint.proof.challenge import Challenge
from vestige.fingerprint.proof.files import (
    audit_files,
    band_model,
    check_manifest_file,
    commit_model,
    commit_rows_model,
    draw_challenge,
    named_model,
    prove_files,
    read_challenge,
    verify_files,
    write_manifest,
)
from vestige.fingerprint.proof.open_weights import list_files
from vestige.fingerprint.proof.rejected import ProofRejected
from vestige.fingerprint.proof.sketch import sketch
from vestige.fingerprint.words import Everything, Listed, Sampled

ARKWORKS = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("py_arkworks_bls12381") is None, reason="needs the extra 'proof'"
)


def _answered(transformer, folder, size=4, band=None):
    """The owner's folder, a verifier's challenge and the owner's proof."""
    commit_model(band_model(transformer, band), folder)
    draw_challenge([folder / "commitment.bin"], folder / "challenge.json", size)
    prove_files(folder, folder / "challenge.json", folder / "proof.bin")
    return folder / "commitment.bin", folder / "proof.bin", folder / "challenge.json"


@ARKWORKS
def test_from_a_model_to_its_similarity_with_a_base(tmp_path, make_tiny):
    transformer = make_tiny()
    paths = _answered(transformer, tmp_path)
    alone = verify_files(*paths)
    assert alone.similarity is None
    assert alone.verification.after
    same = verify_files(*paths, reference=transformer)
    assert same.similarity.value == pytest.approx(1.0)
    other = verify_files(*paths, reference=make_tiny(seed=5))
    assert other.similarity.value < 0.99
    first = verify_files(*paths, reference=transformer, layers=(0, 1))
    assert first.similarity.value < 0.99
    assert alone.verification.sketch == sketch(band_model(transformer), read_challenge(paths[2]))


@ARKWORKS
def test_a_permuted_vocabulary_is_matched_by_name(tmp_path, make_tiny):
    transformer, shuffled = make_tiny(), make_tiny()
    paths = _answered(transformer, tmp_path, band=Sampled(9))
    order = np.random.default_rng(0).permutation(30)
    shuffled._embedding = shuffled._embedding[order]
    shuffled._tokens = tuple(shuffled._tokens[row] for row in order)
    assert verify_files(*paths, reference=shuffled).similarity.value == pytest.approx(1.0)
    shuffled._tokens = tuple(f"other-{row}" for row in range(30))
    with pytest.raises(NotFound, match="9 of 9 committed tokens"):
        verify_files(*paths, reference=shuffled)
    with pytest.raises(NotFound, match="9 of 9"):
        verify_files(*paths, reference=make_tiny(tokens=False))


@ARKWORKS
def test_two_owners_answer_one_challenge(tmp_path, make_tiny):
    """Neither shows weights; the verifier compares the two proven sketches."""
    from vestige.fingerprint.proof.sketch import similarity

    shown = []
    models = [make_tiny(), make_tiny()]
    for name, transformer in zip("ab", models, strict=True):
        commit_model(band_model(transformer, Everything()), tmp_path / name)
    draw_challenge([tmp_path / name / "commitment.bin" for name in "ab"], tmp_path / "challenge.json", 5)
    for name in "ab":
        shown.append(prove_files(tmp_path / name, tmp_path / "challenge.json", tmp_path / f"{name}.proof"))
    assert similarity(shown[0].sketch, shown[1].sketch).value == pytest.approx(1.0)
    with pytest.raises(ProofRejected):
        verify_files(tmp_path / "a/commitment.bin", tmp_path / "b.proof", tmp_path / "challenge.json")


@ARKWORKS
def test_secrets_are_private_and_never_replaced(tmp_path, make_tiny):
    model = band_model(make_tiny())
    before = os.umask(0)
    try:
        commit_model(model, tmp_path)
        commit_rows_model(model, tmp_path)
    finally:
        os.umask(before)
    for name in ("opening.secret", "rows.secret"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    kept = (tmp_path / "opening.secret").read_bytes()
    with pytest.raises(AlreadyExists):
        commit_model(model, tmp_path)
    with pytest.raises(AlreadyExists):
        commit_rows_model(model, tmp_path)
    with pytest.raises(AlreadyExists):
        reading.write_secret(tmp_path / "opening.secret", b"other")
    assert (tmp_path / "opening.secret").read_bytes() == kept
    # Nothing public holds a secret.
    public = (tmp_path / "commitment.bin").read_bytes()
    assert all(kept[at : at + 16] not in public for at in range(42, 42 + 32 - 16))


def test_a_secret_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reading.os, "fsync", full)
    with pytest.raises(StorageFailed, match="No space left"):
        reading.write_secret(tmp_path / "it", b"secret")
    assert not (tmp_path / "it").exists()
    (tmp_path / "file").touch()
    with pytest.raises(StorageFailed):
        reading.write_secret(tmp_path / "file" / "it", b"secret")


@ARKWORKS
def test_mixed_up_files_are_named(tmp_path, make_tiny):
    first = _answered(make_tiny(), tmp_path / "a")
    second = _answered(make_tiny(seed=1), tmp_path / "b")
    with pytest.raises(ProofRejected, match="other commitments"):
        verify_files(first[0], second[1], second[2])
    with pytest.raises(CorruptFile, match=r"proof\.bin is another kind of file"):
        verify_files(first[1], first[1], first[2])
    with pytest.raises(NotFound, match="nowhere"):
        verify_files(first[0], tmp_path / "nowhere", first[2])
    os.replace(tmp_path / "a/opening.secret", tmp_path / "b/opening.secret")
    with pytest.raises(DigestMismatch):
        prove_files(tmp_path / "b", second[2], tmp_path / "new.proof")
    assert not (tmp_path / "new.proof").exists()


@ARKWORKS
def test_a_proof_that_fails_is_not_written(tmp_path, make_tiny, monkeypatch):
    folder = tmp_path / "a"
    paths = _answered(make_tiny(), folder)
    made = files.prove

    def damaged(*given):
        proof = made(*given)
        return dataclasses.replace(proof, known=proof.known + proof.known)

    monkeypatch.setattr(files, "prove", damaged)
    with pytest.raises(ProofRejected):
        prove_files(folder, paths[2], tmp_path / "new.proof")
    assert not (tmp_path / "new.proof").exists()


def test_oversized_files_are_refused(tmp_path):
    path = tmp_path / "it"
    path.write_bytes(bytes(11))
    assert reading.read_bounded(path, 11) == bytes(11)
    with pytest.raises(CorruptFile, match="larger than 10"):
        reading.read_bounded(path, 10)
    with pytest.raises(NotFound):
        reading.read_bounded(tmp_path, 10)


def test_an_auditor_works_from_files(tmp_path, make_tiny):
    transformer = make_tiny()
    model = band_model(transformer)
    commit_rows_model(model, tmp_path)
    claim = dense_product(model, model.terms[0].name)
    challenge = Challenge.public(4)
    paths = tmp_path / "rows.json", tmp_path / "rows.secret"
    again = named_model(transformer, model.words.names, False, (1, 2))
    found = audit_files(*paths, again, (claim,), ((challenge, sketch(model, challenge)),))
    assert (found.products, found.entries) == (1, 24)
    with pytest.raises(ProofRejected):
        audit_files(*paths, band_model(make_tiny(seed=1)))


@pytest.fixture
def shipped(tmp_path):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"weights")
    (folder / "sub/config.json").write_bytes(b"{}")
    (folder / ".cache").write_bytes(b"ignored")
    return folder


def test_a_manifest_holds_for_its_files_alone(tmp_path, shipped, make_tiny):
    transformer = make_tiny()
    written = write_manifest(shipped, band_model(transformer, Sampled(9)), tmp_path / "manifest.json")
    assert [file.name for file in written.files] == ["sub/config.json", "weights.bin"]
    assert check_manifest_file(tmp_path / "manifest.json", shipped, transformer) == written
    changes = [
        (lambda: (shipped / "weights.bin").write_bytes(b"weightz"), "weights.bin is another file"),
        (lambda: (shipped / "weights.bin").unlink(), "weights.bin is missing"),
        (lambda: (shipped / "new").touch(), "new is not in the manifest"),
    ]
    for change, message in changes:
        change()
        with pytest.raises(ProofRejected, match=message):
            check_manifest_file(tmp_path / "manifest.json", shipped, transformer)
        (shipped / "weights.bin").write_bytes(b"weights")
        (shipped / "new").unlink(missing_ok=True)
    with pytest.raises(ProofRejected, match="sketch of these files"):
        check_manifest_file(tmp_path / "manifest.json", shipped, make_tiny(seed=1))
    check_manifest_file(tmp_path / "manifest.json", shipped, transformer)


def test_a_manifest_of_one_file_and_of_none(tmp_path, shipped):
    (listed,) = list_files(shipped / "weights.bin")
    assert (listed.name, listed.size) == ("weights.bin", 7)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound):
        list_files(tmp_path / "empty")
    with pytest.raises(NotFound):
        list_files(tmp_path / "nowhere")


def test_a_band_chooses_the_tokens(make_tiny):
    model = band_model(make_tiny(), Listed(tokens=("token-3", "token-1", "nothing")), layers=1)
    assert model.words.names == ("token-1", "token-3")
    assert [block.layer for block in model.blocks] == [2]
