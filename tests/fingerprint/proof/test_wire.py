from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestige.errors import CorruptFile, InvalidInput
from vestige.fingerprint.proof.auditor import RowCommitment, RowKey
from vestige.fingerprint.proof.challenge import Challenge
from vestige.fingerprint.proof.commitment import Commitment, Opening, commit
from vestige.fingerprint.proof.group import ORDER
from vestige.fingerprint.proof.integers import IntegerModel, TermName
from vestige.fingerprint.proof.open_weights import FileDigest, Manifest
from vestige.fingerprint.proof.reading import (
    challenge_json,
    challenge_of,
    manifest_json,
    manifest_of,
    row_commitment_json,
    row_commitment_of,
    row_key_json,
    row_key_of,
)
from vestige.fingerprint.proof.sketch import IntegerSketch
from vestige.fingerprint.proof.wire import Reader, Writer
from vestige.fingerprint.proof.zero_knowledge import Proof, prove
from vestige.fingerprint.terms import Term
from vestige.fingerprint.words import Words

pytest.importorskip("py_arkworks_bls12381")

DIGESTS = st.binary(min_size=32, max_size=32)
CHALLENGES = st.tuples(
    st.binary(min_size=16, max_size=64),
    st.lists(DIGESTS, max_size=3, unique=True).map(lambda found: tuple(sorted(found))),
    st.integers(2, 4096),
)


@given(CHALLENGES, CHALLENGES)
def test_challenges_survive_and_differ(first, second):
    first, second = Challenge(*first), Challenge(*second)
    assert challenge_of(challenge_json(first).encode(), "it") == first
    assert (first.encode() == second.encode()) == (first == second)


@given(DIGESTS, DIGESTS)
def test_roots_and_keys_survive(root, secret):
    assert row_commitment_of(row_commitment_json(RowCommitment(root)).encode(), "it") == RowCommitment(root)
    key = row_key_of(row_key_json(RowKey(root, secret)).encode(), "it")
    assert (key.root, key.key) == (root, secret)


NAMES = st.lists(st.text(st.characters(codec=None), max_size=5), min_size=2, max_size=4, unique=True)


def _manifest(names, values):
    files = tuple(FileDigest(name, at, "ab" * 32) for at, name in enumerate(sorted(names)))
    terms = tuple(TermName(7, term, 3) for term in Term)
    return Manifest(files, tuple(names), False, IntegerSketch(terms, (values, values, values)))


@given(NAMES, st.lists(st.integers(-(2**126), 2**126), min_size=2, max_size=3))
def test_manifests_survive_with_any_token(names, values):
    manifest = _manifest(names, tuple(values))
    again = manifest_of(manifest_json(manifest).encode(), "it")
    assert again == manifest
    assert again.digest == manifest.digest


def test_the_digest_of_a_manifest_covers_everything():
    base = _manifest(["a", "b"], (1, 2))
    sketch = base.sketch
    others = [
        dataclasses.replace(base, names=("a", "c")),
        dataclasses.replace(base, names=("ab", "")),
        dataclasses.replace(base, by_row=True),
        dataclasses.replace(base, files=base.files[:1]),
        dataclasses.replace(base, files=(dataclasses.replace(base.files[0], size=9), base.files[1])),
        dataclasses.replace(base, sketch=dataclasses.replace(sketch, values=((1, 3), *sketch.values[1:]))),
        dataclasses.replace(
            base, sketch=dataclasses.replace(sketch, terms=(TermName(6, Term.SCORES, 3), *sketch.terms[1:]))
        ),
    ]
    assert len({manifest.digest for manifest in (base, *others)}) == len(others) + 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"format": "vestige manifest 1"', '"format": "vestige manifest 2"'),
        ('"by_row": false', '"by_row": 0'),
        ('"by_row": false', '"by_row": false, "more": 1'),
        ('"by_row": false', '"by_row": false, "by_row": false'),
        ('"by_row": false,', ""),
        ('"1"', "1"),
        ('"1"', '"01"'),
        ('"1"', '"1.0"'),
        ('"1"', '"' + "9" * 50 + '"'),
        ('"1"', '"٣"'),
        ('"c"', '"d"'),
        ("7", "-1"),
        ("7", "true"),
        ("7", "NaN"),
        ("7", "7.0"),
        ("abab", "ABAB"),
        ("abab", "ab"),
        ('"names"', '"Names"'),
        ("[", "{"),
    ],
)
def test_malformed_manifests_are_refused(old, new):
    text = manifest_json(_manifest(["a", "b"], (1, 2)))
    assert old in text
    with pytest.raises(CorruptFile):
        manifest_of(text.replace(old, new, 1).encode(), "it")


def test_manifests_with_impossible_contents_are_refused():
    good = _manifest(["a", "b"], (1, 2))
    sketch = good.sketch
    wrong = [
        dataclasses.replace(good, files=good.files[::-1]),
        dataclasses.replace(good, files=(good.files[0], good.files[0])),
        dataclasses.replace(good, names=("a", "a")),
        dataclasses.replace(good, names=("a",)),
        dataclasses.replace(good, sketch=dataclasses.replace(sketch, values=sketch.values[:2])),
        dataclasses.replace(good, sketch=dataclasses.replace(sketch, values=((1, 2), (1, 2), (1, 2, 3)))),
        dataclasses.replace(good, sketch=dataclasses.replace(sketch, values=((), (), ()))),
        dataclasses.replace(good, sketch=IntegerSketch((), ())),
    ]
    for manifest in wrong:
        with pytest.raises(CorruptFile):
            manifest_of(manifest_json(manifest).encode(), "it")


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace")))
def test_no_bytes_make_a_json_reader_fail_in_another_way(data):
    for read in (challenge_of, row_commitment_of, row_key_of, manifest_of):
        with pytest.raises(CorruptFile):
            read(data, "it")


def test_deep_nesting_is_refused():
    with pytest.raises(CorruptFile):
        challenge_of(b"[" * 100_000, "it")


@pytest.fixture(scope="module")
def written(committed, challenge, make_entropy):
    commitment, opening = committed
    proof = prove(commitment, opening, challenge, make_entropy())
    return [
        (commitment.encoded, lambda data: Commitment.decode(data).encoded),
        (opening.encode(), lambda data: Opening.decode(data).encode()),
        (proof.encode(), lambda data: Proof.decode(data).encode()),
    ]


@pytest.mark.parametrize("kind", [0, 1, 2])
@given(data=st.data())
def test_a_reader_accepts_nothing_but_what_would_be_written(written, kind, data):
    """Bytes that were cut, extended, overwritten or mixed either are refused or come back as they were."""
    whole, again = written[kind]
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, min(start + 40, len(whole))))
    changed = whole[:start] + data.draw(st.binary(max_size=40)) + whole[stop:]
    try:
        found = again(changed)
    except CorruptFile:
        found = None
    assert found == changed or (found is None and changed != whole)


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_cut_files_are_refused(written, kind):
    whole, again = written[kind]
    assert again(whole) == whole
    for wrong in (*(whole[:length] for length in range(0, len(whole), 31)), whole + b"\0"):
        with pytest.raises(CorruptFile):
            again(wrong)
    for other in range(3):
        if other != kind:
            with pytest.raises(CorruptFile, match="another kind"):
                again(written[other][0])
    with pytest.raises(CorruptFile, match="version 2"):
        again(whole[:8] + b"\0\2" + whole[10:])


def test_a_huge_stated_size_takes_no_memory(written):
    import tracemalloc

    whole, again = written[0]
    tracemalloc.start()
    for at in (10, 14):  # number of tokens, width
        for size in (b"\0\1\0\0", b"\0\0\x80\0", b"\xff\xff\xff\xff"):
            with pytest.raises(CorruptFile):
                again(whole[:at] + size + whole[at + 4 :])
    whole, again = written[2]
    with pytest.raises(CorruptFile):
        again(whole[:10] + b"\xff\xff\0\0\x10\0" + whole[16:])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_tokens_with_any_characters_survive(make_integers, make_entropy):
    base = make_integers(layers=(0,))
    names = ("", "\udc80", "\U0001f600", "a\0b", "Ġthe", "#1")
    model = IntegerModel(Words(names, np.arange(6)), base.rows, base.blocks)
    commitment, _ = commit(model, make_entropy())
    again = Commitment.decode(commitment.encoded)
    assert again.names == names
    assert again.digest == commitment.digest
    assert again.matches(model)
    assert not again.matches(make_integers())
    twice = commitment.encoded.replace(b"\0\x02#1", b"\0\0")
    with pytest.raises(CorruptFile, match="twice"):
        Commitment.decode(twice)


def test_terms_are_listed_once_and_in_order(committed):
    commitment = committed[0]
    fields = {field.name: getattr(commitment, field.name) for field in dataclasses.fields(commitment)}
    for terms in (commitment.terms[::-1], (commitment.terms[0],) * 6):
        with pytest.raises(CorruptFile, match="terms"):
            Commitment.decode(Commitment(**(fields | {"terms": terms})).encoded)


def test_scalars_and_text_are_canonical():
    writer = Writer(b"12345678")
    writer.raw(ORDER.to_bytes(32, "big"))
    reader = Reader(writer.whole(), b"12345678", "it")
    with pytest.raises(CorruptFile, match="reduced"):
        reader.scalars(1)
    writer = Writer(b"12345678")
    writer.raw(b"\0\2\xc0\x80")
    with pytest.raises(CorruptFile, match="UTF-8"):
        Reader(writer.whole(), b"12345678", "it").text()


def test_challenges_with_impossible_fields_are_refused():
    good = challenge_json(Challenge(b"n" * 16, (b"a" * 32, b"b" * 32), 3))
    swapped = good.replace("61" * 32, "63" * 32)
    for text in (swapped, good.replace('"size": 3', '"size": 1'), good.replace('"size": 3', '"size": true')):
        assert text != good
        with pytest.raises(CorruptFile):
            challenge_of(text.encode(), "it")
    with pytest.raises(InvalidInput):
        Challenge(b"", (), 3)
