"""Open weights: publish the digest of every file and a sketch; anybody with the files computes both again.

This is the strongest tier, since nothing is left to believe: the sketch is that of the listed files. It does not show
that these files are what is deployed, nor that rare rows were not overwritten before they were published, and the
sketch's directions are public, so compare whole terms rather than this sketch where somebody may have fitted it.
Every step is exact or rounds the same way on every machine where norms keep the mean (RMS); a LayerNorm's mean and a
head norm's length are summed in an order that may differ between processors, and may turn single roundings.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from vestige.digest import digest_file, digest_json
from vestige.errors import NotFound
from vestige.fingerprint.proof.challenge import Challenge
from vestige.fingerprint.proof.integers import IntegerModel
from vestige.fingerprint.proof.rejected import ProofRejected
from vestige.fingerprint.proof.sketch import IntegerSketch, sketch


@dataclass(frozen=True)
class FileDigest:
    """A file by its name below the model's folder, its bytes and their SHA-256 in hexadecimal."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True)
class Manifest:
    """``files`` in order of names; tokens ``names`` (``by_row``: row numbers) and the sketch over them.

    ``size`` entries a term are under :meth:`Challenge.public`.
    """

    files: tuple[FileDigest, ...]
    names: tuple[str, ...]
    by_row: bool
    sketch: IntegerSketch

    @property
    def layers(self) -> tuple[int, ...]:
        """The blocks of the sketch."""
        return tuple(sorted({name.layer for name in self.sketch.terms}))

    @property
    def digest(self) -> str:
        """SHA-256 in hexadecimal over everything the manifest states: what to print beside a model."""
        names = hashlib.sha256()
        for name in self.names:
            data = name.encode("utf-8", "surrogatepass")
            names.update(len(data).to_bytes(4, "big") + data)
        terms = [[name.layer, name.term.value, name.inner] for name in self.sketch.terms]
        values = [[str(value) for value in row] for row in self.sketch.values]
        files = [[file.name, file.size, file.digest] for file in self.files]
        return digest_json([1, files, names.hexdigest(), self.by_row, terms, values])


def list_files(path: Path) -> tuple[FileDigest, ...]:
    """Digests of a file, or of every file below a folder, in order of names; links are followed, hidden ones left out.

    Raises
    ------
    NotFound : nothing is there.
    """
    found = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    top = path.parent if path.is_file() else path
    named = [(file.relative_to(top).as_posix(), file) for file in found]
    listed = [(name, file) for name, file in named if not any(part.startswith(".") for part in name.split("/"))]
    if not listed:
        raise NotFound(f"{path} holds no file.", expected="a model's file or folder.", remedy="check the path.")
    return tuple(FileDigest(name, file.stat().st_size, digest_file(file)) for name, file in sorted(listed))


def make_manifest(path: Path, model: IntegerModel, size: int = 85) -> Manifest:
    """The manifest of a model's files and of what was read from them."""
    return Manifest(list_files(path), model.words.names, model.words.by_row, sketch(model, Challenge.public(size)))


def check_manifest(manifest: Manifest, path: Path, model: IntegerModel) -> None:
    """Compare files and sketch with those here; ``model`` is read from ``path`` with the manifest's tokens and layers.

    Raises
    ------
    ProofRejected : a file differs, is missing or is new, or the sketch differs; the message names it.
    """
    here, stated = ({file.name: file for file in files} for files in (list_files(path), manifest.files))
    for name in sorted(here.keys() | stated.keys()):
        if here.get(name) != stated.get(name):
            raise _rejected(f"{name} is {_how(name, here, stated)}.", "exactly the files of the manifest")
    if (model.words.names, model.words.by_row) != (manifest.names, manifest.by_row):
        raise _rejected("The sketch was taken over other tokens.", "the tokens of the manifest")
    if sketch(model, Challenge.public(manifest.sketch.size)) != manifest.sketch:
        raise _rejected("The sketch of these files is another one.", "the sketch of the manifest")


def _how(name: str, here: dict[str, FileDigest], stated: dict[str, FileDigest]) -> str:
    if name not in here:
        return "missing"
    return "another file than the manifest's" if name in stated else "not in the manifest"


def _rejected(found: str, expected: str) -> ProofRejected:
    return ProofRejected(
        found,
        expected=f"{expected}.",
        remedy="fetch the files again, or do not trust the fingerprint.",
    )
