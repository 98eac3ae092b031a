"""Readers of safetensors against the library of that name, and against files that lie."""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vestige.errors import BadWeights, CorruptFile, InvalidInput, NotFound, Unsupported, VestigeError
from vestige.models.weights import MemoryWeights, open_weights

KINDS = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
)


def tensors(kind: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(37, 5, generator=generator).mul(9).abs() if kind in (torch.uint8,) else None
    values = torch.randn(37, 5, generator=generator) * 9 if values is None else values
    return {
        "a.weight": values.to(kind),
        "b": torch.arange(24).reshape(2, 3, 4).to(kind),
        "scalar": torch.tensor(3.0).to(kind),
        "none": torch.empty(0, 7).to(kind),
    }


def header(path: Path) -> tuple[dict[str, object], bytes]:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def forge(path: Path, head: object, body: bytes) -> Path:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_format_is_what_torch_makes_of_it(tmp_path: Path, kind: torch.dtype) -> None:
    held = tensors(kind)
    save_file(held, tmp_path / "model.safetensors", metadata={"format": "pt"})
    weights = open_weights(tmp_path)
    assert weights.names == tuple(sorted(held))
    assert weights.metadata == {"format": "pt"}
    for name, tensor in held.items():
        read = weights.read(name)
        assert read.dtype == np.float32
        assert read.flags.c_contiguous
        assert weights.entry(name).shape == read.shape == tuple(tensor.shape)
        np.testing.assert_array_equal(read, tensor.float().numpy())


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_every_code_of_eight_bits(tmp_path: Path, kind: torch.dtype) -> None:
    codes = torch.arange(256, dtype=torch.uint8).view(kind)
    finite = torch.isfinite(codes.float())
    save_file({"x": codes[finite]}, tmp_path / "x.safetensors")
    np.testing.assert_array_equal(open_weights(tmp_path).read("x"), codes[finite].float().numpy())
    for code in codes[~finite]:
        save_file({"x": code.reshape(1)}, tmp_path / "x.safetensors")
        with pytest.raises(BadWeights):
            open_weights(tmp_path).read("x")


def test_rows_are_those_of_the_whole(tmp_path: Path) -> None:
    held = {"x": torch.randn(3000, 700, dtype=torch.float32).bfloat16(), "y": torch.randn(9, 2, 3)}
    save_file(held, tmp_path / "x.safetensors")
    weights = open_weights(tmp_path / "x.safetensors")
    rng = np.random.default_rng(0)
    for name, tensor in held.items():
        whole, count = tensor.float().numpy(), len(tensor)
        for rows in (np.arange(count), np.arange(count)[::-1], rng.integers(0, count, 4000), np.array([], np.int64)):
            np.testing.assert_array_equal(weights.read(name, rows), whole[rows])
    for rows in ([-1], [3000], [[0]]):
        with pytest.raises(InvalidInput):
            weights.read("x", np.array(rows))


def test_a_tensor_of_many_windows(tmp_path: Path) -> None:
    values = torch.arange(3_000_001, dtype=torch.float32)
    save_file({"x": values}, tmp_path / "x.safetensors")
    np.testing.assert_array_equal(open_weights(tmp_path).read("x"), values.numpy())


def test_digest_does_not_depend_on_sharding_or_order(tmp_path: Path) -> None:
    held = {f"t{i}": torch.randn(4, 3, dtype=torch.float32).bfloat16() for i in range(5)}
    one = tmp_path / "one"
    two = tmp_path / "two"
    one.mkdir()
    two.mkdir()
    save_file(held, one / "model.safetensors")
    names = list(held)[::-1]
    where = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(names)}
    for part in set(where.values()):
        save_file({name: held[name] for name in names if where[name] == part}, two / part)
    (two / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total": 1}, "weight_map": where}))
    first, second = open_weights(one), open_weights(two)
    assert first.digest == second.digest == MemoryWeights(held).digest
    assert second.metadata == {"total": 1}
    for name in held:
        np.testing.assert_array_equal(first.read(name), second.read(name))
    changed = {**held, "t3": held["t3"].clone()}
    changed["t3"][1, 1] += 1
    renamed = {("u3" if name == "t3" else name): value for name, value in held.items()}
    reshaped = {**held, "t3": held["t3"].reshape(3, 4)}
    kinds = {**held, "t3": held["t3"].view(torch.float16)}
    digests = {MemoryWeights(each).digest for each in (held, changed, renamed, reshaped, kinds)}
    assert len(digests) == 5


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_nothing_stays_open(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "x.safetensors")
    weights = open_weights(tmp_path)
    kept = [weights.read(name) for name in weights.names]
    _ = weights.digest
    gc.collect()
    handles = [Path(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    assert not any("x.safetensors" in str(handle.readlink()) for handle in handles if handle.is_symlink())
    assert "x.safetensors" not in Path("/proc/self/maps").read_text()
    assert len(kept) == 4


def test_reading_takes_the_answer_and_a_window(tmp_path: Path, peak) -> None:
    save_file(
        {"x": torch.zeros(40_000, 512, dtype=torch.bfloat16)}, tmp_path / "x.safetensors"
    )  # 41 MB, 82 MB as float32
    weights = open_weights(tmp_path)
    answer, most = peak(lambda: weights.read("x"))
    assert most < answer.nbytes + (20 << 20)
    answer, most = peak(lambda: weights.read("x", np.arange(0, 40_000, 100)))
    assert most < 20 << 20
    _, most = peak(lambda: weights.digest)
    assert most < 20 << 20


def test_a_row_wider_than_a_window_is_read_in_pieces(tmp_path: Path, peak) -> None:
    """As the experts of a mixture are, stacked in one tensor."""
    experts = torch.randn(3, 3000, 1000).bfloat16()
    save_file({"x": experts}, tmp_path / "x.safetensors")
    weights = open_weights(tmp_path)
    rows = np.array([2, 0])
    answer, most = peak(lambda: weights.read("x", rows))
    np.testing.assert_array_equal(answer, experts[torch.from_numpy(rows)].float().numpy())
    assert most < answer.nbytes + (16 << 20)


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(tensors(), path)
    weights = open_weights(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CorruptFile, match="changed"):
        weights.read("a.weight")
    path.unlink()
    with pytest.raises(NotFound):
        weights.read("a.weight")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_refused(tmp_path: Path, bad: float) -> None:
    values = torch.ones(6, 4)
    values[4, 2] = bad
    save_file({"x": values, "y": torch.ones(2)}, tmp_path / "x.safetensors")
    weights = open_weights(tmp_path)
    assert weights.read("y").sum() == 2
    assert weights.read("x", np.arange(4)).sum() == 16
    with pytest.raises(BadWeights, match="'x'"):
        weights.read("x")
    with pytest.raises(BadWeights):
        weights.read("x", np.array([4]))
    with pytest.raises(BadWeights):
        MemoryWeights({"x": values}).read("x")


def test_a_double_beyond_float32_is_refused(tmp_path: Path) -> None:
    save_file({"x": torch.tensor([1e300], dtype=torch.float64)}, tmp_path / "x.safetensors")
    with pytest.raises(BadWeights):
        open_weights(tmp_path).read("x")


GOOD = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
LIES = {
    "no table": (b"[]", b""),
    "not json": (b"{]", b""),
    "not text": (b"{\xff}", b""),
    "half a character": (b'{"\\ud800": {"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}', bytes(16)),
    "deep": (b"[" * 100_000, b""),
    "endless number": (b'{"x":{"dtype":"F32","shape":[' + b"9" * 6000 + b'],"data_offsets":[0,16]}}', bytes(16)),
    "name twice": (b'{"x":%s,"x":%s}' % ((json.dumps(GOOD).encode(),) * 2), bytes(16)),
    "no shape": ({"x": {"dtype": "F32", "data_offsets": [0, 16]}}, bytes(16)),
    "shape of floats": ({"x": {**GOOD, "shape": [2.0, 2]}}, bytes(16)),
    "shape of truths": ({"x": {**GOOD, "shape": [True, 4]}}, bytes(16)),
    "negative shape": ({"x": {**GOOD, "shape": [-2, -2]}}, bytes(16)),
    "other shape": ({"x": {**GOOD, "shape": [2, 3]}}, bytes(16)),
    "huge shape": ({"x": {**GOOD, "shape": [1 << 40, 1 << 40]}}, bytes(16)),
    "huge empty shape": ({"x": {**GOOD, "shape": [0, 1 << 62], "data_offsets": [0, 0]}}, b""),
    "many axes": ({"x": {**GOOD, "shape": [1] * 60 + [4]}}, bytes(16)),
    "three offsets": ({"x": {**GOOD, "data_offsets": [0, 8, 16]}}, bytes(16)),
    "backward": ({"x": {**GOOD, "data_offsets": [16, 0]}}, bytes(16)),
    "out of file": ({"x": {**GOOD, "data_offsets": [0, 16]}}, bytes(12)),
    "far out of file": ({"x": {**GOOD, "data_offsets": [1 << 62, (1 << 62) + 16]}}, bytes(16)),
    "gap": ({"x": {**GOOD, "data_offsets": [4, 20]}}, bytes(20)),
    "rest": ({"x": GOOD}, bytes(20)),
    "overlap": ({"x": GOOD, "y": {**GOOD, "data_offsets": [8, 24]}}, bytes(24)),
    "overlap that adds up": ({"x": GOOD, "y": {**GOOD, "data_offsets": [8, 24]}}, bytes(32)),
    "same place": ({"x": GOOD, "y": GOOD}, bytes(16)),
    "no table for a tensor": ({"x": 3}, bytes(16)),
    "metadata": ({"__metadata__": {"a": 1}, "x": GOOD}, bytes(16)),
    "metadata list": ({"__metadata__": [], "x": GOOD}, bytes(16)),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies(tmp_path: Path, lie: str, peak) -> None:
    path = forge(tmp_path / "x.safetensors", *LIES[lie])
    with pytest.raises(CorruptFile, match=r"x\.safetensors"):
        peak(lambda: open_weights(path))


def test_an_unknown_format(tmp_path: Path) -> None:
    path = forge(tmp_path / "x.safetensors", {"x": {"dtype": "C64", "shape": [2], "data_offsets": [0, 16]}}, bytes(16))
    with pytest.raises(Unsupported, match="C64"):
        open_weights(path)


@pytest.mark.parametrize("length", [0, 3, 7, 8, 30, -1, -3])
def test_a_truncated_file(tmp_path: Path, length: int) -> None:
    path = tmp_path / "x.safetensors"
    save_file(tensors(), path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CorruptFile):
        open_weights(path)


@pytest.mark.parametrize("claimed", [1 << 20, 99_000_000, 1 << 40, (1 << 64) - 1])
def test_a_header_longer_than_the_file_takes_no_memory(tmp_path: Path, claimed: int, peak) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(claimed.to_bytes(8, "little") + b"{}")

    def look() -> None:
        with pytest.raises(CorruptFile):
            open_weights(path)

    assert peak(look)[1] < 1 << 20


def test_a_sparse_giant_with_a_giant_header_is_not_read(tmp_path: Path, peak) -> None:
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write((3 << 30).to_bytes(8, "little") + b"{")
        file.truncate(4 << 30)

    def look() -> None:
        with pytest.raises(CorruptFile):
            open_weights(path)

    assert peak(look)[1] < 1 << 20


class TestIndex:
    def write(self, folder: Path, where: object) -> Path:
        folder.mkdir(exist_ok=True)
        save_file({"x": torch.ones(2, 2)}, folder / "a.safetensors")
        save_file({"y": torch.ones(3)}, folder / "b.safetensors")
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": where}))
        return index

    def test_parts_are_one(self, tmp_path: Path) -> None:
        index = self.write(tmp_path, {"x": "a.safetensors", "y": "b.safetensors"})
        assert open_weights(index).names == open_weights(tmp_path).names == ("x", "y")

    @pytest.mark.parametrize(
        "name",
        [
            "../m/a.safetensors",
            "../../etc/x",
            "/etc/passwd",
            "m/a.safetensors",
            "..\\m\\a.safetensors",
            "C:\\a.safetensors",
            "C:a.safetensors",
            "..",
            "",
            "a.bin",
            "a\0.safetensors",
            3,
            None,
            ["a.safetensors"],
        ],
    )
    def test_a_name_that_is_not_plain_is_not_opened(self, tmp_path: Path, name: object) -> None:
        index = self.write(tmp_path / "m", {"x": name})
        with pytest.raises(CorruptFile, match="no plain name"):
            open_weights(index)

    @pytest.mark.parametrize("where", [None, [], {}, "a.safetensors"])
    def test_no_map(self, tmp_path: Path, where: object) -> None:
        with pytest.raises(CorruptFile, match="weight_map"):
            open_weights(self.write(tmp_path, where))

    def test_a_tensor_elsewhere(self, tmp_path: Path) -> None:
        with pytest.raises(CorruptFile, match="'y'"):
            open_weights(self.write(tmp_path, {"x": "a.safetensors", "y": "a.safetensors"}))

    def test_a_tensor_in_two_parts(self, tmp_path: Path) -> None:
        index = self.write(tmp_path, {"x": "a.safetensors", "y": "b.safetensors"})
        save_file({"x": torch.ones(2, 2), "y": torch.ones(3)}, tmp_path / "b.safetensors")
        with pytest.raises(CorruptFile, match="as well"):
            open_weights(index)

    def test_a_missing_part(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match=r"c\.safetensors"):
            open_weights(self.write(tmp_path, {"x": "a.safetensors", "y": "c.safetensors"}))

    def test_links_of_a_cache_are_followed(self, tmp_path: Path) -> None:
        real, cache = tmp_path / "blobs", tmp_path / "snapshot"
        self.write(real, {"x": "a.safetensors", "y": "b.safetensors"})
        cache.mkdir()
        for path in real.iterdir():
            (cache / path.name).symlink_to(path)
        assert open_weights(cache).digest == open_weights(real).digest

    def test_a_link_to_something_else_is_no_weights(self, tmp_path: Path) -> None:
        index = self.write(tmp_path, {"x": "a.safetensors", "y": "b.safetensors"})
        (tmp_path / "b.safetensors").unlink()
        (tmp_path / "b.safetensors").symlink_to("/dev/zero")
        with pytest.raises(CorruptFile, match="regular"):
            open_weights(index)
        (tmp_path / "b.safetensors").unlink()
        (tmp_path / "b.safetensors").symlink_to("/etc/passwd")
        with pytest.raises(CorruptFile) as caught:
            open_weights(index)
        assert "root:" not in str(caught.value)


def test_pickles_are_refused_with_a_remedy(tmp_path: Path) -> None:
    for name in ("pytorch_model.bin", "consolidated.00.pth"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_bytes(b"\x80\x04.")
        for path in (folder, folder / name):
            with pytest.raises(Unsupported, match=r"execute code.*save"):
                open_weights(path)


def test_which_file_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        open_weights(tmp_path)
    with pytest.raises(NotFound):
        open_weights(tmp_path / "nowhere")
    save_file({"x": torch.ones(1)}, tmp_path / "one.safetensors")
    assert open_weights(str(tmp_path)).names == ("x",)
    save_file({"y": torch.ones(1)}, tmp_path / "two.safetensors")
    with pytest.raises(InvalidInput, match="several"):
        open_weights(tmp_path)
    save_file({"z": torch.ones(1)}, tmp_path / "model.safetensors")
    assert open_weights(tmp_path).names == ("z",)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(Unsupported):
        open_weights(tmp_path / "notes.txt")


def test_a_name_that_is_not_there(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "x.safetensors")
    for weights in (open_weights(tmp_path), MemoryWeights(tensors())):
        for ask in (weights.read, weights.entry, weights.tensor_digest):
            with pytest.raises(NotFound, match="'c'"):
                ask("c")


def test_the_error_of_a_scalar_with_rows() -> None:
    with pytest.raises(VestigeError):
        MemoryWeights(tensors()).read("scalar", np.array([], np.int64))
