from __future__ import annotations

import copy
import errno
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vestige.erase.applied import open_base, read_applied, without, write_applied
from vestige.erase.increment import Increment
from vestige.errors import AlreadyExists, CorruptFile, DigestMismatch, NotFound, StorageFailed, VestigeError
from vestige.models.adapters.diffusers import DiffusersDenoiser, load_folder


def change(base: DiffusersDenoiser, seed: int) -> Increment:
    module = copy.deepcopy(base.module)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in list(module.parameters())[seed::2]:
            parameter += 0.03 * torch.randn(parameter.shape, generator=random)
    return Increment.between(
        base.module, module, name=f"forget-{seed}", base_digest=base.digest, method="Test", settings={}
    )


@pytest.fixture
def base(pipeline_folder: Path) -> DiffusersDenoiser:
    return load_folder(pipeline_folder)


def test_what_was_applied_comes_off_bit_for_bit(base: DiffusersDenoiser, tmp_path: Path) -> None:
    one, two = change(base, 0), change(base, 1)
    both = write_applied(tmp_path / "both", base, [(one, 1.0), (two, 0.5)])
    assert load_folder(tmp_path / "both").digest == both.digest != base.digest
    note = read_applied(tmp_path / "both")
    assert note is not None
    assert [(layer.name, layer.digest, layer.scale) for layer in note.layers] == [
        ("forget-0", one.digest, 1.0),
        ("forget-1", two.digest, 0.5),
    ]
    found, layers = open_base(tmp_path / "both")
    assert found.digest == base.digest
    # One of two removed is the other alone, not a difference of sums.
    left = write_applied(tmp_path / "left", found, without(layers, "forget-0"))
    assert left.digest == write_applied(tmp_path / "alone", base, [(two, 0.5)]).digest
    found, layers = open_base(tmp_path / "left")
    back = write_applied(tmp_path / "back", found, without(layers, two.digest))
    assert back.digest == base.digest
    assert read_applied(tmp_path / "back") is None
    restored = load_folder(tmp_path / "back").module.state_dict()
    for name, value in base.module.state_dict().items():
        assert torch.equal(restored[name].view(torch.int32), value.view(torch.int32)), name
    with pytest.raises(NotFound, match="one of: forget-1"):
        without(layers, "forget-0")


def test_applying_onto_an_applied_folder_stacks(base: DiffusersDenoiser, tmp_path: Path) -> None:
    one, two = change(base, 0), change(base, 1)
    write_applied(tmp_path / "one", base, [(one, 1.0)])
    found, layers = open_base(tmp_path / "one")
    stacked = write_applied(tmp_path / "two", found, [*layers, (two, 1.0)])
    assert stacked.digest == write_applied(tmp_path / "at-once", base, [(one, 1.0), (two, 1.0)]).digest
    assert [i.manifest.name for i, _ in open_base(tmp_path / "two")[1]] == ["forget-0", "forget-1"]
    # Made for the base, not for what the folder's weights are now.
    with pytest.raises(DigestMismatch):
        write_applied(tmp_path / "wrong", load_folder(tmp_path / "one"), [(two, 1.0)])
    assert not (tmp_path / "wrong").exists()


def test_scale_zero_on_disk_is_the_base(base: DiffusersDenoiser, tmp_path: Path) -> None:
    assert write_applied(tmp_path / "zero", base, [(change(base, 0), 0.0)]).digest == base.digest
    assert open_base(tmp_path / "zero")[0].digest == base.digest


def test_a_full_folder_is_only_replaced_when_told_so(base: DiffusersDenoiser, tmp_path: Path) -> None:
    made = change(base, 0)
    write_applied(tmp_path / "model", base, [(made, 1.0)])
    with pytest.raises(AlreadyExists, match="--overwrite"):
        write_applied(tmp_path / "model", base, [])
    assert read_applied(tmp_path / "model") is not None
    assert write_applied(tmp_path / "model", base, [], overwrite=True).digest == base.digest
    (tmp_path / "empty").mkdir()
    write_applied(tmp_path / "empty", base, [(made, 1.0)])


def test_a_model_is_written_whole_or_not_at_all(
    base: DiffusersDenoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = change(base, 0)
    write_applied(tmp_path / "model", base, [])

    def full(model: DiffusersDenoiser, folder: Path) -> None:
        (folder / "unet").mkdir(parents=True)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(DiffusersDenoiser, "save", full)
    with pytest.raises(StorageFailed, match="No space left"):
        write_applied(tmp_path / "model", base, [(made, 1.0)], overwrite=True)
    monkeypatch.undo()
    assert load_folder(tmp_path / "model").digest == base.digest
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "model"]


@pytest.mark.parametrize("damage", ["note", "keys", "kept", "cut", "missing", "layer"])
def test_damage_to_an_applied_folder_is_noticed(base: DiffusersDenoiser, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "model"
    write_applied(folder, base, [(change(base, 0), 1.0)])
    note, kept = folder / "vestige" / "applied.json", folder / "vestige" / "base.safetensors"
    wanted: type[VestigeError] = CorruptFile
    if damage == "note":
        note.write_text("{")
    elif damage == "keys":
        save_file({"no.such.weight": torch.zeros(1)}, kept)
    elif damage == "kept":
        tensors = load_file(kept)
        tensors[min(tensors)] += 1
        save_file(tensors, kept)
        wanted = DigestMismatch
    elif damage == "cut":
        kept.write_bytes(kept.read_bytes()[:-5])
    elif damage == "missing":
        kept.unlink()
    else:
        # A layer that was exchanged for another increment of the same base.
        change(base, 1).save(folder / "vestige" / "increment-000", overwrite=True)
        wanted = DigestMismatch
    with pytest.raises(wanted):
        open_base(folder)
    assert json.loads((folder / "model_index.json").read_text())
