"""The GGUF reader against the package gguf, and against files that lie."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from vestige.errors import BadWeights, CorruptFile, MissingExtra, NotFound, Unsupported, VestigeError
from vestige.models.weights import open_weights
from vestige.models.weights.formats import GGUF

WRITABLE = [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1]
READABLE = sorted(
    kind for kind in gguf.GGML_QUANT_SIZES if kind in gguf.quants._type_traits and not kind.name.startswith("I")
) + [kind for kind in sorted(gguf.GGML_QUANT_SIZES) if kind.name.startswith("IQ")]


def test_the_table_of_formats_is_that_of_the_package() -> None:
    ours = {number: (format.name, format.elements, format.size) for number, format in GGUF.items()}
    theirs = {int(kind): (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert ours == theirs


@pytest.mark.parametrize("kind", WRITABLE, ids=lambda kind: kind.name)
def test_every_written_format(tmp_path: Path, kind: Kind, write_gguf, numbers) -> None:
    values = numbers((40, 64))
    path = write_gguf(tmp_path / "x.gguf", {"x": (values.astype(np.float16) if kind == Kind.F16 else values, kind)})
    weights = open_weights(path)
    theirs = gguf.GGUFReader(path).tensors[0]
    expected = gguf.quants.dequantize(theirs.data, kind)
    assert weights.entry("x").shape == (40, 64)
    assert weights.entry("x").dtype == kind.name
    np.testing.assert_array_equal(weights.read("x"), expected)
    rows = np.array([39, 0, 0, 17])
    np.testing.assert_array_equal(weights.read("x", rows), expected[rows])
    assert np.abs(expected - values).max() < 0.5


def blocks_of(kind: Kind, count: int, seed: int) -> np.ndarray:
    """Random blocks whose half-precision numbers are finite: exponents that are all ones are avoided everywhere."""
    raw = np.random.default_rng(seed).integers(0, 256, (count, gguf.GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
    return raw & 0xBB


@pytest.mark.parametrize("kind", READABLE, ids=lambda kind: kind.name)
def test_every_quantisation_that_the_package_reads(tmp_path: Path, kind: Kind, forge) -> None:
    elements, _ = gguf.GGML_QUANT_SIZES[kind]
    raw = blocks_of(kind, 12, 0)
    expected = gguf.quants.dequantize(raw.reshape(6, -1), kind)
    path = forge([("x", (6, 2 * elements), kind, 0)], raw.tobytes())
    weights = open_weights(path)
    if not np.isfinite(expected).all():
        with pytest.raises(BadWeights):
            weights.read("x")
        return
    np.testing.assert_array_equal(weights.read("x"), expected)
    np.testing.assert_array_equal(weights.read("x", np.array([5, 1])), expected[[5, 1]])


@pytest.mark.parametrize("kind", [Kind.Q8_1, Kind.Q8_K])
def test_a_quantisation_that_the_package_does_not_read(kind: Kind, forge) -> None:
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    weights = open_weights(forge([("x", (1, elements), kind, 0)], bytes(size)))
    with pytest.raises(Unsupported, match=kind.name):
        weights.read("x")
    assert len(weights.digest) == 64


def test_three_axes_and_rows_within_a_block(tmp_path: Path, write_gguf, numbers) -> None:
    stack, line = numbers((5, 6, 64)), numbers(96)
    path = write_gguf(tmp_path / "x.gguf", {"stack": (stack, Kind.Q8_0), "line": (line, Kind.Q8_0)})
    weights = open_weights(path)
    whole = weights.read("stack")
    assert whole.shape == stack.shape
    np.testing.assert_array_equal(weights.read("stack", np.array([3])), whole[[3]])
    np.testing.assert_array_equal(weights.read("line", np.array([95, 1])), weights.read("line")[[95, 1]])


def test_values(tmp_path: Path, write_gguf, numbers) -> None:
    values = {"tokens": ["a", "Ġb", "", "é"], "scores": [0.5, -1.5], "kinds": [1, 2], "text": "hé", "n": 7, "x": 0.25}
    weights = open_weights(write_gguf(tmp_path / "x.gguf", {"t": (numbers((2, 2)), Kind.F32)}, values))
    said = weights.metadata
    assert {name: said[name] for name in values} == {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    assert said["general.architecture"] == "llama"
    assert set(said) == {*values, "general.architecture"}
    assert "unknown" not in said


def test_a_text_that_is_not_utf8_stays_distinct(forge) -> None:
    texts = b"".join(struct.pack("<Q", len(t)) + t for t in (b"\xff", b"\xfe", b"ok"))
    value = text("odd") + struct.pack("<IIQ", 9, 8, 3) + texts
    assert open_weights(forge([], b"", values=[value])).metadata["odd"] == ("\\xff", "\\xfe", "ok")


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


Forge = Callable[..., Path]


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    """Write a file from the parts of its header: tensors are (name, shape, kind, offset), ``values`` raw bytes."""

    def write(
        tensors: list[tuple[str, tuple[int, ...], int, int]],
        body: bytes,
        *,
        values: list[bytes] | None = None,
        start: bytes | None = None,
        alignment: int = 32,
    ) -> Path:
        values = values or []
        head = start or b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values))
        head += b"".join(values)
        for name, shape, kind, offset in tensors:
            head += text(name) + struct.pack("<I", len(shape))
            head += struct.pack(f"<{len(shape)}Q", *shape[::-1]) + struct.pack("<IQ", kind, offset)
        path = tmp_path / "x.gguf"
        path.write_bytes(head + bytes(-len(head) % alignment) + body)
        return path

    return write


def u32(name: str, value: int) -> bytes:
    return text(name) + struct.pack("<II", 4, value)


ONE = ("x", (2, 4), 0, 0)
LIES: dict[str, dict[str, Any]] = {
    "no magic": {"start": b"GGML" + struct.pack("<IQQ", 3, 1, 0)},
    "many tensors": {"start": b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0)},
    "many values": {"start": b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60)},
    "long name": {"tensors": [], "values": [struct.pack("<Q", 1 << 40) + b"x" + struct.pack("<II", 4, 1)]},
    "name beyond the file": {"tensors": [], "values": [struct.pack("<Q", 5000) + b"x"]},
    "name that is not text": {"tensors": [], "values": [struct.pack("<Q", 1) + b"\xff" + struct.pack("<II", 4, 1)]},
    "unknown kind": {"values": [text("a") + struct.pack("<II", 77, 1)]},
    "list of lists": {"values": [text("a") + struct.pack("<IIQ", 9, 9, 1)]},
    "endless list": {"values": [text("a") + struct.pack("<IIQ", 9, 4, 1 << 61)]},
    "endless list of texts": {"values": [text("a") + struct.pack("<IIQ", 9, 8, 1 << 61)]},
    "list of an endless text": {"values": [text("a") + struct.pack("<IIQQ", 9, 8, 1, 1 << 63)]},
    "endless text": {"values": [text("a") + struct.pack("<IQ", 8, 1 << 63)]},
    "value twice": {"values": [u32("a", 1), u32("a", 2)]},
    "tensor twice": {"tensors": [ONE, ("x", (2, 4), 0, 32)]},
    "same place": {"tensors": [ONE, ("y", (2, 4), 0, 0)]},
    "overlap": {"tensors": [("x", (4, 4), 0, 0), ("y", (2, 4), 0, 32)]},
    "five axes": {"tensors": [("x", (1, 1, 1, 2, 4), 0, 0)]},
    "endless axes": {
        "tensors": [],
        "start": b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text("x") + struct.pack("<I", 2**31),
    },
    "huge shape": {"tensors": [("x", (1 << 40, 1 << 40), 0, 0)]},
    "overflowing shape": {"tensors": [("x", (1 << 32, 1 << 32, 4), 0, 0)]},
    "empty but huge": {"tensors": [("x", (0, 1 << 63), 0, 0)]},
    "half a block": {"tensors": [("x", (2, 33), 8, 0)]},
    "out of file": {"tensors": [("x", (2, 4), 0, 64)]},
    "far out of file": {"tensors": [("x", (2, 4), 0, (1 << 64) - 32)]},
    "unaligned": {"tensors": [("x", (2, 4), 0, 4)]},
    "larger than the file": {"tensors": [("x", (200, 4), 0, 0)]},
    "odd alignment": {"values": [u32("general.alignment", 24)]},
    "no alignment": {"values": [u32("general.alignment", 0)]},
    "alignment of text": {"values": [text("general.alignment") + struct.pack("<I", 8) + text("32")]},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies(lie: str, forge: Forge, peak) -> None:
    parts = {"tensors": [ONE], **LIES[lie]}
    path = forge(parts.pop("tensors"), bytes(64), **parts)

    def look() -> None:
        with pytest.raises(CorruptFile, match=r"x\.gguf"):
            open_weights(path)

    assert peak(look)[1] < 1 << 20


@pytest.mark.parametrize(("version", "word"), [(1, "version 1"), (4, "version 4"), (3 << 24, "big-endian")])
def test_other_versions(version: int, word: str, forge: Forge) -> None:
    path = forge([ONE], bytes(64), start=b"GGUF" + struct.pack("<IQQ", version, 1, 0))
    with pytest.raises(Unsupported, match=word):
        open_weights(path)


def test_an_unknown_quantisation(forge: Forge) -> None:
    with pytest.raises(Unsupported, match="number 33"):
        open_weights(forge([("x", (2, 4), 33, 0)], bytes(64)))


def test_alignment_is_followed(forge: Forge) -> None:
    values = np.arange(8, dtype=np.float32)
    aligned = {"values": [u32("general.alignment", 8)], "alignment": 8}
    path = forge([("x", (2, 4), 0, 8)], bytes(8) + values.tobytes(), **aligned)
    assert path.stat().st_size % 32
    np.testing.assert_array_equal(open_weights(path).read("x").reshape(-1), values)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9, 0.999])
def test_a_truncated_file(tmp_path: Path, share: float, write_gguf, numbers) -> None:
    path = write_gguf(tmp_path / "x.gguf", {"x": (numbers((40, 64)), Kind.Q8_0)}, {"tokens": ["a"] * 50})
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(VestigeError):
        open_weights(path)


def test_infinite_scales_are_found(tmp_path: Path, write_gguf, numbers) -> None:
    path = write_gguf(tmp_path / "x.gguf", {"x": (numbers((16, 32)), Kind.Q8_0)})
    content = bytearray(path.read_bytes())
    content[-34:-32] = np.float16(np.inf).tobytes()
    path.write_bytes(content)
    weights = open_weights(path)
    assert np.isfinite(weights.read("x", np.arange(15))).all()
    with pytest.raises(BadWeights, match="'x'"):
        weights.read("x")


def test_only_quantised_tensors_need_the_package(tmp_path: Path, write_gguf, numbers, monkeypatch) -> None:
    values = numbers((4, 32))
    tensors = {"f": (values, Kind.F32), "b": (values, Kind.BF16), "q": (values, Kind.Q8_0)}
    weights = open_weights(write_gguf(tmp_path / "x.gguf", tensors))
    monkeypatch.setitem(sys.modules, "gguf", None)
    np.testing.assert_array_equal(weights.read("f"), values)
    assert weights.read("b").shape == (4, 32)
    with pytest.raises(MissingExtra, match=r"vestige\[gguf\]"):
        weights.read("q")


def test_reading_files_imports_no_torch() -> None:
    code = "import sys, vestige.models.transformer.open; sys.exit('torch' in sys.modules or 'gguf' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestParts:
    def write(self, folder: Path, write_gguf, numbers, numbered: tuple[int, int] = (0, 1)) -> list[Path]:
        return [
            write_gguf(
                folder / f"m-{i + 1:05d}-of-00002.gguf",
                {f"t{i}": (numbers((3, 4), i), Kind.F32)},
                {"split.count": 2, "split.no": numbered[i]},
            )
            for i in range(2)
        ]

    def test_are_one_model(self, tmp_path: Path, write_gguf, numbers) -> None:
        paths = self.write(tmp_path, write_gguf, numbers)
        whole = write_gguf(tmp_path / "m.gguf", {f"t{i}": (numbers((3, 4), i), Kind.F32) for i in (1, 0)})
        for path in paths:
            assert open_weights(path).names == ("t0", "t1")
            assert open_weights(path).digest == open_weights(whole).digest
        whole.unlink()
        assert open_weights(tmp_path).names == ("t0", "t1")

    def test_missing_or_renamed(self, tmp_path: Path, write_gguf, numbers) -> None:
        first, second = self.write(tmp_path, write_gguf, numbers)
        second.rename(tmp_path / "other.gguf")
        with pytest.raises(NotFound, match="00002-of-00002"):
            open_weights(first)
        with pytest.raises(NotFound, match="part of 2"):
            open_weights(tmp_path / "other.gguf")

    def test_of_another_number(self, tmp_path: Path, write_gguf, numbers) -> None:
        first, _ = self.write(tmp_path, write_gguf, numbers, (0, 0))
        with pytest.raises(CorruptFile, match="Part 2"):
            open_weights(first)
