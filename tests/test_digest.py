from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from vestige.digest import digest_array, digest_file, digest_json, digest_tensors, short


def test_json_digest_is_sha256_of_sorted_compact_json():
    expected = hashlib.sha256(b'{"a":[1,2.5,null],"b":"x"}').hexdigest()
    assert digest_json({"b": "x", "a": [1, 2.5, None]}) == digest_json({"a": [1, 2.5, None], "b": "x"}) == expected
    assert short(expected) == expected[:12]
    with pytest.raises(ValueError, match="JSON"):
        digest_json({"a": float("nan")})


def test_array_digest_depends_on_type_shape_and_bits_and_not_on_memory_layout():
    array = np.arange(12, dtype=np.int32).reshape(3, 4)
    expected = hashlib.sha256(b"<i4(3, 4)" + array.tobytes()).hexdigest()
    assert digest_array(array) == digest_array(np.asfortranarray(array)) == expected
    assert digest_array(np.repeat(array, 2, axis=1)[:, ::2]) == expected
    others = [array.reshape(4, 3), array.astype(np.int64), array.astype(np.float32), array + 1, array[:0], array[:, :0]]
    assert len({expected, *map(digest_array, others)}) == 7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_tensor_digest_sees_every_bit_and_no_order(dtype):
    tensors = {"b": torch.ones(2, 3, dtype=dtype), "a": torch.zeros((), dtype=dtype)}
    digest = digest_tensors(tensors)
    assert digest == digest_tensors(dict(reversed(tensors.items())))
    assert digest == digest_tensors({**tensors, "b": torch.ones(3, 2, dtype=dtype).T})
    changed = tensors["b"].clone()
    changed[1, 2] = 0
    others = [{**tensors, "b": changed}, {**tensors, "b": tensors["b"].reshape(3, 2)}, {"b": tensors["b"]}]
    others += [{"a": tensors["b"], "b": tensors["a"]}, {**tensors, "c": torch.zeros(0, dtype=dtype)}]
    assert len({digest, *map(digest_tensors, others)}) == 6


def test_file_digest_reads_across_blocks(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    assert digest_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()
