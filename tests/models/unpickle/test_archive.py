from __future__ import annotations

import io
import pickle
import zipfile
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vestige.errors import CorruptFile, InvalidInput, NotFound, Unsupported, VestigeError
from vestige.models.unpickle import archive as module
from vestige.models.unpickle.archive import TENSORS, Archive, open_archive
from vestige.models.unpickle.machine import Expected

EXPECTED = Expected(TENSORS, frozenset({"collections.OrderedDict"}))


def zipped(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def legacy(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


WRITERS: dict[str, Callable[[object], bytes]] = {"zip": zipped, "legacy": legacy, "pickle": pickle.dumps}
writers = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], Archive]:
    def reader(content: bytes) -> Archive:
        path = tmp_path / "file.pt"
        path.write_bytes(content)
        return open_archive(path, EXPECTED)

    return reader


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    base = torch.randn(6, 8)
    return {
        "plain": base,
        "rows": base[2:4],
        "transposed": base.T[1:, ::2],
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 4),
        "parameter": torch.nn.Parameter(torch.randn(2, 3)),
        "double": torch.randn(3, dtype=torch.float64),
        "half": torch.randn(3).half(),
        "long": torch.tensor([-(2**60), 7]),
        "int": torch.tensor([1, -2], dtype=torch.int32),
        "short": torch.tensor([1, -2], dtype=torch.int16),
        "char": torch.tensor([1, -2], dtype=torch.int8),
        "byte": torch.tensor([1, 255], dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
        "deep": torch.randn(1, 2, 1, 2, 1, 2),
    }


@writers
def test_tensors_are_read_as_torch_reads_them(
    write: Callable[[object], bytes], read: Callable[[bytes], Archive]
) -> None:
    saved = tensors()
    found = read(write(OrderedDict(saved)))
    assert list(found.value) == list(saved)
    for name, tensor in saved.items():
        assert found.is_tensor(found.value[name])
        value = found.tensor(found.value[name])
        assert value.flags.owndata
        assert value.dtype == tensor.detach().numpy().dtype
        np.testing.assert_array_equal(value, tensor.detach().numpy())


@writers
def test_numbers_that_numpy_lacks_are_named(write: Callable[[object], bytes], read: Callable[[bytes], Archive]) -> None:
    content = write({"a": torch.ones(2, dtype=torch.bfloat16)})
    with pytest.raises(Unsupported, match=r"torch\.BFloat16Storage"):
        read(content).tensor(read(content).value["a"])


def test_what_torch_refuses_to_load_is_still_not_executed(read: Callable[[bytes], Archive], tmp_path: Path) -> None:
    path = tmp_path / "args.pt"
    torch.save({"a": torch.ones(1), "args": Namespace(size=3)}, path)
    with pytest.raises(Unsupported, match=r"argparse\.Namespace"):
        open_archive(path, EXPECTED)
    found = open_archive(path, Expected(EXPECTED.calls | {"argparse.Namespace"}, EXPECTED.mappings))
    assert found.value["args"].state == {"size": 3}


class Evil:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call


@writers
def test_nothing_is_executed(
    write: Callable[[object], bytes], read: Callable[[bytes], Archive], tmp_path: Path
) -> None:
    import os

    mark = tmp_path / "executed"
    content = write({"a": torch.ones(2), "b": [Evil(os.system, (f"touch {mark}",))]})
    with pytest.raises(Unsupported, match=r"posix\.system"):
        read(content)
    assert not mark.exists()
    torch.load(io.BytesIO(content), weights_only=False) if write is not pickle.dumps else pickle.loads(content)
    assert mark.exists()


def test_a_storage_inside_a_pickle_is_not_executed_either(read: Callable[[bytes], Archive], tmp_path: Path) -> None:
    import os

    mark = tmp_path / "executed"
    inner = legacy(Evil(os.system, (f"touch {mark}",)))
    storage = Evil(torch.storage._load_from_bytes, (inner,))
    call = (torch._utils._rebuild_tensor_v2, (storage, 0, (1,), (1,), False, OrderedDict()))
    found = read(pickle.dumps({"a": Evil(*call)}))
    with pytest.raises(Unsupported, match=r"posix\.system"):
        found.tensor(found.value["a"])
    assert not mark.exists()


def rebuilt(offset: Any, size: Any, stride: Any, count: int = 6) -> bytes:
    storage = torch.arange(count, dtype=torch.float32).untyped_storage()
    typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
    return pickle.dumps(Evil(torch._utils._rebuild_tensor_v2, (typed, offset, size, stride, False, OrderedDict())))


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (1, (2, 3), (3, 1)),
        (0, (7,), (1,)),
        (0, (2,), (6,)),
        (-1, (1,), (1,)),
        (0, (2,), (-1,)),
        (0, (10**6,), (0,)),
        (0, (10**30,), (1,)),
        (0, (2,), (1, 1)),
        (0, [2], (1,)),
        (0, (2.0,), (1,)),
        (0, (True,), (1,)),
        (0.0, (2,), (1,)),
        (0, (1,) * 9, (1,) * 9),
        (6, (1,), (1,)),
    ],
)
def test_tensors_that_reach_beyond_their_storage_are_refused(
    offset: Any, size: Any, stride: Any, read: Callable[[bytes], Archive]
) -> None:
    found = read(rebuilt(offset, size, stride))
    with pytest.raises(CorruptFile):
        found.tensor(found.value)


def test_tensors_within_their_storage_are_not(read: Callable[[bytes], Archive]) -> None:
    found = read(rebuilt(1, (2, 2), (3, 1)))
    np.testing.assert_array_equal(found.tensor(found.value), [[1, 2], [4, 5]])
    found = read(rebuilt(5, (0, 10**9), (1, 1)))
    assert found.tensor(found.value).size == 0


@pytest.mark.parametrize("node", [None, 3, "x", [], {}])
def test_what_is_no_tensor_is_refused(node: object, read: Callable[[bytes], Archive]) -> None:
    found = read(pickle.dumps(node))
    assert not found.is_tensor(found.value)
    with pytest.raises(CorruptFile, match="tensor was expected"):
        found.tensor(found.value)


def rezip(content: bytes, change: Callable[[str, bytes], bytes | None], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", method) as new:
        for entry in old.infolist():
            kept = change(entry.filename.partition("/")[2], old.read(entry))
            if kept is not None:
                new.writestr(entry.filename, kept)
    return out.getvalue()


def test_zip_files_that_torch_does_not_write_are_refused(read: Callable[[bytes], Archive]) -> None:
    content = zipped({"a": torch.zeros(1000)})
    kept = rezip(content, lambda _, data: data)
    assert read(kept).tensor(read(kept).value["a"]).shape == (1000,)
    for changed, words in (
        (rezip(content, lambda _, data: data, zipfile.ZIP_DEFLATED), "compressed"),
        (rezip(content, lambda name, data: None if name == "data.pkl" else data), r"no data\.pkl"),
        (rezip(content, lambda name, data: None if name == "data/0" else data), "absent"),
        (rezip(content, lambda name, data: data[:-4] if name == "data/0" else data), "another length"),
        (rezip(content, lambda name, data: b"big" if name == "byteorder" else data), "little-endian"),
        (content[:-30], "not a whole zip"),
    ):
        with pytest.raises(CorruptFile, match=words):
            read(changed)


def test_entries_inside_one_another_are_refused(read: Callable[[bytes], Archive]) -> None:
    """A zip file whose entries share bytes could unfold to far more than it holds."""
    alone = io.BytesIO()
    with zipfile.ZipFile(alone, "w") as packed:
        packed.writestr("archive/data/1", bytes(4000))
        (inner,) = packed.infolist()
    whole = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(zipped({"a": torch.zeros(2)}))) as old, zipfile.ZipFile(whole, "w") as packed:
        packed.writestr("archive/data/0", alone.getvalue()[: 4000 + len(inner.FileHeader())])
        inner.header_offset = len(packed.infolist()[0].FileHeader())
        packed.filelist.append(inner)
        packed.writestr("archive/data.pkl", old.read(next(name for name in old.namelist() if name.endswith("pkl"))))
    with pytest.raises(CorruptFile, match="entries that overlap"):
        read(whole.getvalue())


def test_paths_that_are_no_archives_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound):
        open_archive(tmp_path / "absent", EXPECTED)
    with pytest.raises(NotFound):
        open_archive(tmp_path, EXPECTED)
    path = tmp_path / "large"
    path.write_bytes(b"x" * 100)
    monkeypatch.setattr(module, "LARGEST", 99)
    with pytest.raises(InvalidInput, match="100 bytes"):
        open_archive(path, EXPECTED)


SMALL = {name: write({"a": torch.arange(3.0), "b": (1, "x")}) for name, write in WRITERS.items()}


@pytest.mark.parametrize("kind", SMALL)
def test_no_beginning_of_a_file_is_taken_for_a_whole_one(kind: str, read: Callable[[bytes], Archive]) -> None:
    whole = SMALL[kind]
    for length in range(0, len(whole), 7):
        with pytest.raises(VestigeError):
            read(whole[:length])


@pytest.mark.parametrize("kind", SMALL)
@settings(max_examples=60)
@given(data=st.data())
def test_damaged_files_give_typed_errors(kind: str, data: st.DataObject, tmp_path_factory: Any) -> None:
    content = bytearray(SMALL[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "file"
    path.write_bytes(content)
    try:
        found = open_archive(path, EXPECTED)
        if isinstance(found.value, dict):
            found.tensor(found.value.get("a"))
    except VestigeError:
        return
