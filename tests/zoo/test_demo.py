from __future__ import annotations

import json
from pathlib import Path

import pytest

from vestige.erase.applied import read_applied
from vestige.jobs.demo import QUICK, demo
from vestige.models.adapters.diffusers import load_folder
from vestige.record import Record, Verdict
from vestige.zoo import zoo_model

NAMES = """
extraction/recall@copies>=64 extraction/precision extraction/recall@copies=1
membership/auc membership/auc_control
erase/extracted_before erase/extracted_after erase/retain_loss_ratio erase/frechet_before erase/frechet_after
erase/forwards_per_step erase/residue_before erase/residue_after erase/residue_nonmembers
restore/bit_exact cost/seconds cost/network_evaluations
""".split()


def value(record: Record, name: str) -> float:
    found = record.estimate(name).value
    assert found is not None, name
    return found


@pytest.mark.slow
def test_the_demonstration_keeps_its_promises(tmp_path: Path) -> None:
    run = demo(tmp_path)
    summary = json.loads((tmp_path / "report.json").read_text())["summary"]
    assert set(NAMES) <= {line["name"] for line in summary}
    record = run.record
    assert value(record, "extraction/recall@copies>=64") >= 0.8
    assert value(record, "extraction/precision") >= 0.95
    assert value(record, "extraction/recall@copies=1") < 0.05
    control = record.estimate("membership/auc_control")
    assert control.low is not None
    assert control.high is not None
    assert control.low <= 0.5 <= control.high
    assert value(record, "erase/extracted_before") > 0
    assert value(record, "erase/extracted_after") == 0
    assert value(record, "erase/frechet_after") / value(record, "erase/frechet_before") < 1.25
    assert value(record, "erase/retain_loss_ratio") < 1.05
    assert value(record, "erase/residue_before") < value(record, "erase/residue_after")
    assert abs(value(record, "erase/residue_after") / value(record, "erase/residue_retrained") - 1) < 0.2
    assert record.verdict is Verdict.PASS
    assert value(record, "erase/forwards_per_step") <= 7
    assert value(record, "restore/bit_exact") == 1
    digest = zoo_model("digits-ddpm").card.digest
    assert load_folder(tmp_path / "restored").digest == digest
    assert load_folder(tmp_path / "erased").digest == record.digests["erased"] != digest
    assert read_applied(tmp_path / "erased") is not None


@pytest.mark.slow
def test_a_second_demonstration_takes_up_the_first(tmp_path: Path) -> None:
    first, second = demo(tmp_path, plan=QUICK).record, demo(tmp_path, plan=QUICK).record
    assert set(NAMES) <= {line.name for line in first.summary}
    assert [line for line in second.summary if not line.name.startswith("cost/")] == [
        line for line in first.summary if not line.name.startswith("cost/")
    ]
