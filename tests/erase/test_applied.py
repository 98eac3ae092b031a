from __future__ import annotations

import copy
import errno
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vestige.erase.applied import check_after, open_base, read_applied, without, write_applied
from vestige.erase.increment import Increment, compose
from vestige.errors import (
    AlreadyExists,
    CorruptFile,
    DigestMismatch,
    InvalidInput,
    NotFound,
    StorageFailed,
    VestigeError,
)
from vestige.jobs.increments import apply_increments, describe_increments, remove_increments
from vestige.models.adapters.diffusers import DiffusersDenoiser, load_folder


def change(base: DiffusersDenoiser, seed: int, after: Sequence[Increment] = ()) -> Increment:
    module = copy.deepcopy(base.module)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in list(module.parameters())[seed::2]:
            parameter += 0.03 * torch.randn(parameter.shape, generator=random)
    return Increment.between(
        base.module,
        module,
        name=f"forget-{seed}",
        base_digest=base.digest,
        method="Test",
        settings={},
        after=[increment.digest for increment in after],
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


def test_what_an_increment_was_trained_on_comes_before_it(base: DiffusersDenoiser) -> None:
    a, other = change(base, 0), change(base, 1)
    b = change(base, 2, after=[a])
    c = change(base, 3, after=[a, b])
    d = change(base, 4, after=[b])
    for fine in (
        [],
        [(a, 0.3)],
        [(a, 1.0), (b, 0.5)],
        [(a, 1.0), (b, 1.0), (c, 2.0)],
        [(a, 1.0), (other, 0.1), (b, 1.0), (other, 1.0), (c, 1.0)],
        [(compose([a, b], "both"), 1.0), (c, 1.0)],
        [(a, 1.0), (compose([b, c], "later"), 1.0), (d, 1.0)],
    ):
        check_after(fine)
        for cut in range(len(fine)):
            check_after(fine[cut:], onto=fine[:cut])
    for increments, words in (
        ([(b, 1.0)], f"'forget-2' was trained on top of {a.digest[:12]}, which is missing"),
        ([(b, 1.0), (a, 1.0)], r"on top of 'forget-0' \(.*\), which comes after it"),
        ([(a, 0.5), (b, 1.0)], r"on top of 'forget-0' \(.*\), which has scale 0\.5"),
        ([(a, 1.0), (c, 1.0)], f"'forget-3' was trained on top of {b.digest[:12]}, which is missing"),
        ([(a, 1.0), (b, 0.5), (c, 1.0)], "which has scale 0.5"),
        ([(compose([a, other], "both", [0.5, 1.0]), 1.0), (b, 1.0)], "which is missing"),
        ([(compose([a, other], "both"), 0.5), (b, 1.0)], "which is missing"),
    ):
        with pytest.raises(InvalidInput, match=words) as found:
            check_after(increments)
        assert "apply the increments in the order in which they were made" in found.value.remedy


def test_a_wrong_order_is_told_from_a_gap(base: DiffusersDenoiser) -> None:
    a, b = change(base, 0), change(base, 1)
    c = change(base, 2, after=[a, b])
    with pytest.raises(InvalidInput, match=r"'forget-1' \(.*\), which comes in another order"):
        check_after([(c, 1.0)], onto=[(b, 1.0), (a, 1.0)])
    with pytest.raises(InvalidInput, match=f"{b.digest[:12]}, which comes in another order"):
        check_after([(c, 1.0)], onto=[(compose([b, a], "turned"), 1.0)])


def test_an_earlier_increment_can_be_withdrawn_and_later_ones_stay(base: DiffusersDenoiser, tmp_path: Path) -> None:
    a = change(base, 0)
    b = change(base, 1, after=[a])
    c, free = change(base, 2, after=[a, b]), change(base, 3)
    d = change(base, 4, after=[b])
    for name, increment in {"a": a, "b": b, "c": c, "free": free, "d": d}.items():
        increment.save(tmp_path / name)
    start = tmp_path / "base"
    with pytest.raises(InvalidInput, match="which is missing"):
        apply_increments(start, [tmp_path / "b"], out=tmp_path / "refused")
    with pytest.raises(InvalidInput, match=r"has scale 0\.5"):
        apply_increments(start, [tmp_path / "a", tmp_path / "b"], out=tmp_path / "refused", scale=0.5)
    assert not (tmp_path / "refused").exists()
    apply_increments(start, [tmp_path / "a"], out=tmp_path / "one")
    apply_increments(tmp_path / "one", [tmp_path / "b"], out=tmp_path / "two")
    rows = describe_increments([tmp_path / "two"]).rows
    assert [row[-2:] for row in rows] == [[a.digest[:12], None], [b.digest[:12], a.digest[:12]]]
    digest, _ = remove_increments(tmp_path / "two", ["forget-0"], out=tmp_path / "left")
    found, layers = open_base(tmp_path / "left")
    assert [increment.manifest.name for increment, _ in layers] == ["forget-1"]
    assert found.digest == base.digest
    # Deltas add, so what is left is the later one alone.
    assert digest == write_applied(tmp_path / "alone", base, [(b, 1.0)]).digest
    # What the folder carries is not asked again, but what is put on it is.
    apply_increments(tmp_path / "left", [tmp_path / "free", tmp_path / "d"], out=tmp_path / "more")
    with pytest.raises(InvalidInput, match=f"'forget-2' was trained on top of {a.digest[:12]}, which is missing"):
        apply_increments(tmp_path / "left", [tmp_path / "c"], out=tmp_path / "refused")
    # Put on again it stands after the later one: that is another order than the training's.
    apply_increments(tmp_path / "left", [tmp_path / "a"], out=tmp_path / "again")
    with pytest.raises(InvalidInput, match="comes in another order"):
        apply_increments(tmp_path / "again", [tmp_path / "c"], out=tmp_path / "refused")
