"""From a diffusers folder and folders of pictures to a verdict, an increment and a verification."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vestige.data.images import ImageSet
from vestige.data.load import load_images
from vestige.erase.data.erasediff import EraseDiff
from vestige.errors import DigestMismatch, NeedsAccess
from vestige.jobs.audit import audit
from vestige.jobs.erase import erase
from vestige.jobs.increments import apply_increments, compose_increments, describe_increments, remove_increments
from vestige.jobs.run import Run
from vestige.jobs.traces import Probe
from vestige.jobs.verify import verify
from vestige.models.adapters.diffusers import load_folder
from vestige.models.generator import SampleBank
from vestige.models.sampler import DDIM
from vestige.record import Record, Verdict
from vestige.report.evidence import Evidence

QUICK = EraseDiff(steps=3, batch_size=4, learning_rate=1e-3)
PROBE = Probe(draws=1, rows=4)


def names(record: Record) -> set[str]:
    return {line.name for line in record.summary}


@pytest.fixture(scope="module")
def flat_run(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("audit") / "run"
    return audit(world.flat, world.train, non_members=world.others, out=out, **world.settings())


def test_a_memorized_image_is_found_with_its_copies(world: Any, flat_run: Run) -> None:
    record, (train, _) = flat_run.record, load_images(world.train)
    assert record.verdict is Verdict.FINDING
    assert record.access == "weights"
    assert record.not_done == []
    assert record.estimate("extraction/images").value == 1
    assert record.estimate("extraction/precision").value == 1
    assert record.estimate("extraction/recall@copies>=4").value == 1
    assert record.estimate("extraction/recall@copies=1").value == 0
    matches = [match for section in record.sections for match in section.matches]
    assert [(m.row, m.copies, m.picture) for m in matches] == [(train.ids[0], 4, 0)]
    assert record.digests["model"] == record.subject["digest"] == load_folder(world.flat).digest
    assert record.cost.network_evaluations == 12 * 2 + 6 + 6
    assert record.estimate("cost/network_evaluations").value == 36
    assert Record.model_validate_json((flat_run.folder / "report.json").read_text()) == record
    assert "<html" in (flat_run.folder / "report.html").read_text()


def test_duplicates_in_the_training_data_are_counted(flat_run: Run) -> None:
    data = flat_run.record.sections[0]
    assert data.name == "data"
    assert data.tables[0].rows == [["1", 8], ["4-15", 1]]
    assert "12 training rows hold 9 distinct images in 9 clusters" in data.text[0]


def test_pictures_enter_the_page_only_when_asked_for(world: Any, flat_run: Run, tmp_path: Path) -> None:
    shown = audit(world.flat, world.train, non_members=world.others, out=tmp_path, show_images=True, **world.settings())
    assert "data:image/png" not in (flat_run.folder / "report.html").read_text()
    assert "data:image/png" in (shown.folder / "report.html").read_text()
    pair = Evidence.load(flat_run.folder / "evidence.npz").pairs[0]
    assert pair.label == flat_run.record.sections[1].matches[0].row


def test_what_an_audit_found_is_erased_verified_and_put_back(world: Any, flat_run: Run, tmp_path: Path) -> None:
    made = erase(world.flat, forget=flat_run, retain=world.train, out=tmp_path / "increment", method=QUICK)
    train, _ = load_images(world.train)
    assert made.increment.manifest.forgotten == [train.ids[0]]
    assert made.increment.manifest.name == "increment"
    check = verify(world.flat, increment=made, against=flat_run, out=tmp_path / "check", probe=PROBE)
    record = check.record
    wanted = "extracted_before extracted_after retain_loss_ratio frechet_before frechet_after forwards_per_step"
    wanted += " residue_before residue_after residue_nonmembers"
    assert {f"erase/{name}" for name in wanted.split()} <= names(record)
    assert {"restore/bit_exact", "after/extraction/images", "cost/seconds"} <= names(record)
    assert record.estimate("erase/extracted_before").value == 1
    assert record.estimate("restore/bit_exact").value == 1
    assert record.digests["base"] == flat_run.record.digests["model"] != record.digests["erased"]
    assert record.digests["increment"] == made.increment.digest
    assert "erase/residue_retrained" not in names(record)
    # The erased model repeats the audit (24 + 12); four retained rows, the forgotten one and four others are probed
    # at three times. The base's generations come from the audit's store.
    assert record.cost.network_evaluations == 36 + 4 * 3 * 2 + 3 * 2 + 4 * 3
    # The files give the same answer as the objects, from the shards that are there.
    again = verify(str(world.flat), increment=made.folder, against=flat_run.folder, out=tmp_path / "check", probe=PROBE)
    assert again.record.cost.network_evaluations == 0
    assert [line for line in again.record.summary if not line.name.startswith("cost/")] == [
        line for line in record.summary if not line.name.startswith("cost/")
    ]

    digest = apply_increments(world.flat, [made.folder], out=tmp_path / "erased")
    assert digest == record.digests["erased"]
    assert describe_increments([tmp_path / "erased"]).rows[0][1:5:3] == ["increment", 1]
    assert remove_increments(tmp_path / "erased", ["increment"], out=tmp_path / "back") == (
        record.digests["base"],
        True,
    )
    half = apply_increments(world.flat, [made.folder], out=tmp_path / "half", scale=0.5)
    assert half not in (digest, record.digests["base"])


def test_an_audit_without_extraction_leaves_the_verification_open(world: Any, tmp_path: Path) -> None:
    settings = world.settings()
    settings["attacks"] = settings["attacks"][1:]
    run = audit(world.plain, world.train, non_members=world.others, out=tmp_path / "run", **settings)
    row = load_images(world.train)[0].ids[5]
    made = erase(world.plain, forget=f"rows:{row}", retain=world.train, out=tmp_path / "increment", method=QUICK)
    record = verify(world.plain, increment=made, against=run, out=tmp_path / "check", probe=PROBE).record
    assert record.estimate("erase/extracted_after").value is None
    assert record.verdict is not Verdict.PASS
    assert "did not try to extract" in " ".join(record.reasons)


def test_verifying_against_something_else_is_refused(world: Any, flat_run: Run, tmp_path: Path) -> None:
    row = load_images(world.train)[0].ids[5]
    made = erase(world.plain, forget=f"rows:{row}", retain=world.train, out=tmp_path / "other", method=QUICK)
    with pytest.raises(DigestMismatch, match="'other' was made for the model"):
        verify(world.flat, increment=made, against=flat_run, out=tmp_path / "check")
    own = erase(world.flat, forget=f"rows:{row}", retain=world.train, out=tmp_path / "own", method=QUICK)
    with pytest.raises(DigestMismatch, match="The data is not the one"):
        verify(world.flat, increment=own, against=flat_run, out=tmp_path / "check", data=world.others)
    with pytest.raises(DigestMismatch, match="was made for the model"):
        apply_increments(world.flat, [made.folder], out=tmp_path / "applied")
    with pytest.raises(DigestMismatch, match="was made for the model"):
        compose_increments([own.folder, made.folder], out=tmp_path / "both")


@pytest.mark.parametrize("classes", [0, 2])
def test_colour_images_of_a_velocity_model(world: Any, tmp_path: Path, classes: int) -> None:
    model = world.save_model(tmp_path / "model", size=32, classes=classes, prediction="v_prediction")
    train = world.save_images(tmp_path / "train", world.noise(0, 8, 32), classes)
    others = world.save_images(tmp_path / "others", world.noise(1, 6, 32), classes)
    settings = {**world.settings(generations=8), "sampler": DDIM(steps=2)}
    run = audit(model, train, non_members=others, out=tmp_path / "run", **settings)
    assert run.record.not_done == []
    assert run.record.estimate("membership/auc").n is not None
    forget = "class:1" if classes else f"rows:{load_images(train)[0].ids[3]}"
    made = erase(model, forget=forget, retain=train, out=tmp_path / "increment", method=QUICK)
    assert len(made.increment.manifest.forgotten) == (4 if classes else 1)
    assert made.increment.manifest.cost["forwards_per_step"] == (7 if classes else 6)
    record = verify(model, increment=made, against=run, out=tmp_path / "check", probe=PROBE).record
    assert record.estimate("restore/bit_exact").value == 1
    # Nothing came out before, so that nothing does after proves nothing.
    assert record.estimate("erase/extracted_before").value == 0
    assert "shows nothing" in " ".join(record.reasons)


def test_a_null_condition_and_guidance_go_all_the_way(world: Any, tmp_path: Path) -> None:
    model = world.save_model(tmp_path / "model", classes=3)  # two classes and "none"
    train = world.save_images(tmp_path / "train", world.noise(0, 6), classes=2)
    settings = {**world.settings(), "null_condition": 2, "guidance": 2.0}
    run = audit(model, train, non_members=world.others, out=tmp_path / "run", **settings)
    assert run.record.cost.network_evaluations == 12 * 2 * 2 + 6 + 6
    made = erase(model, forget="class:1", retain=train, out=tmp_path / "made", method=QUICK, null_condition=2)
    check = verify(model, increment=made, against=run, out=tmp_path / "check", probe=PROBE).record
    assert check.estimate("restore/bit_exact").value == 1
    digest = apply_increments(model, [made.folder], out=tmp_path / "erased", null_condition=2)
    assert digest == check.digests["erased"]
    # From here on the folder itself says which label means "none".
    assert load_folder(tmp_path / "erased").null_condition == 2
    back, exact = remove_increments(tmp_path / "erased", ["made"], out=tmp_path / "back")
    assert (back, exact) == (run.record.digests["model"], True)


@pytest.mark.parametrize("kind", ["npz", "folder", "bank"])
def test_samples_alone_allow_extraction_and_the_report_says_what_they_do_not(
    world: Any, tmp_path: Path, kind: str
) -> None:
    train, _ = load_images(world.train)
    pixels = np.concatenate([world.noise(5, 20), train.pixels[[0, 6]]])
    if kind == "npz":
        np.savez(tmp_path / "samples.npz", images=pixels)
        model: object = tmp_path / "samples.npz"
    else:
        model = world.save_images(tmp_path / "samples", pixels) if kind == "folder" else SampleBank(pixels)
    run = audit(model, world.train, non_members=world.others, out=tmp_path / "run", **world.settings(1000))
    record = run.record
    assert record.access == "samples"
    assert record.estimate("extraction/images").value == 2
    assert [item.what.split(":")[0] for item in record.not_done] == ["DenoisingLoss"]
    assert "pass the model itself" in record.not_done[0].remedy
    assert record.cost.network_evaluations == 0
    assert "membership/auc" not in names(record)
    with pytest.raises(NeedsAccess, match="pass the model instead"):
        erase(model, forget=run, retain=world.train, out=tmp_path / "increment")


def test_without_non_members_precision_and_membership_stay_open(world: Any, tmp_path: Path) -> None:
    record = audit(world.flat, world.train, out=tmp_path, **world.settings()).record
    assert record.estimate("extraction/precision").value is None
    assert ["--non-members" in item.remedy for item in record.not_done] == [True]
    assert record.verdict is Verdict.FINDING  # pixel by pixel, so no false match


def test_images_may_be_given_as_objects(world: Any, tmp_path: Path) -> None:
    train, others = (load_images(path)[0] for path in (world.train, world.others))
    model = load_folder(world.flat)
    run = audit(model, train, non_members=others, out=tmp_path / "run", **world.settings())
    made = erase(model, forget=ImageSet(train.pixels[:1]), retain=train, out=tmp_path / "made", method=QUICK)
    check = verify(
        model, increment=made, against=run, out=tmp_path / "check", data=train, non_members=others, probe=PROBE
    )
    assert check.record.estimate("restore/bit_exact").value == 1
    assert json.loads((tmp_path / "check" / "report.json").read_text())["command"] == "verify"
