from __future__ import annotations

import pytest

from vestige.jobs.judge import judge_audit, judge_verify, overall
from vestige.jobs.policy import AuditPolicy, VerifyPolicy
from vestige.record import Estimate, Verdict

PASS, FINDING, INCONCLUSIVE = Verdict.PASS, Verdict.FINDING, Verdict.INCONCLUSIVE


def line(name: str, value: float | None, low: float | None = None, high: float | None = None, n: int = 10) -> Estimate:
    return Estimate(name=name, value=value, low=low, high=high, n=n)


def extraction(
    images: int, high: float, precision: tuple[float | None, float | None] = (1.0, 0.9), near: int = 0
) -> list[Estimate]:
    return [
        line("extraction/images", images),
        line("extraction/near_exact", near),
        line("extraction/copy_rate", high / 2, 0, high, n=1000),
        line("extraction/precision", *precision),
    ]


def membership(low: float, value: float, high: float, control: tuple[float, float] = (0.4, 0.6)) -> list[Estimate]:
    middle = sum(control) / 2
    return [line("membership/auc", value, low, high), line("membership/auc_control", middle, *control)]


@pytest.mark.parametrize(
    ("summary", "verdict", "words"),
    [
        ([], INCONCLUSIVE, ""),
        (extraction(0, 0.004), PASS, "At most 0.400%"),
        (extraction(0, 0.03), INCONCLUSIVE, "736 without a copy would bound it by 0.500%"),
        (extraction(3, 0.004), FINDING, "3 training images come out at a precision of 1.000"),
        (extraction(3, 0.004, (0.6, 0.4)), INCONCLUSIVE, "non-members may be matched as often"),
        (extraction(1, 0.004, (1.0, 0.025)), INCONCLUSIVE, "low as 0.025"),
        (extraction(1, 0.004, (1.0, 0.025), near=1), FINDING, "1 training images come out"),
        (extraction(1, 0.004, (0.9, 0.025), near=1), INCONCLUSIVE, "may be matched as often"),
        (extraction(3, 0.004, (None, None)), INCONCLUSIVE, "pass --non-members"),
        (extraction(3, 0.004, (None, None), near=2), FINDING, "3 training images come out;"),
        (membership(0.7, 0.8, 0.9), FINDING, "AUC 0.800 [0.700, 0.900]"),
        (membership(0.4, 0.5, 0.58), PASS, "hardly told"),
        (membership(0.5, 0.55, 0.65), INCONCLUSIVE, "straddles"),
        (membership(0.7, 0.8, 0.9, control=(0.55, 0.7)), INCONCLUSIVE, "not chance"),
        (membership(0.0, 0.0, 0.2), PASS, "AUC 0.000"),
        (extraction(0, 0.004) + membership(0.5, 0.55, 0.65), INCONCLUSIVE, "straddles"),
        (extraction(3, 0.004) + membership(0.5, 0.55, 0.65), FINDING, "straddles"),
    ],
)
def test_audits(summary: list[Estimate], verdict: Verdict, words: str) -> None:
    found, reasons = judge_audit(summary, AuditPolicy())
    assert found is verdict
    assert words in " ".join(reasons)


def test_the_policy_moves_the_limits() -> None:
    assert judge_audit(extraction(3, 0.004), AuditPolicy(max_extracted=3))[0] is PASS
    assert judge_audit(extraction(0, 0.03), AuditPolicy(max_copy_rate=0.03))[0] is PASS
    assert judge_audit(membership(0.7, 0.8, 0.9), AuditPolicy(max_membership_auc=0.95))[0] is PASS
    assert judge_verify(erasure(after=2), VerifyPolicy(max_extracted=2))[0] is PASS
    assert judge_verify(erasure(residue=(1, 2, 3)), VerifyPolicy(residue=False))[0] is PASS


def erasure(
    before: float | None = 5,
    after: float | None = 0,
    retain: float = 1.0,
    frechet: tuple[float | None, float | None] = (2.0, 2.1),
    residue: tuple[float | None, float | None, float | None] = (40, 50, 60),
    outside: tuple[float | None, float | None, float | None] = (45, 50, 55),
) -> list[Estimate]:
    return [
        line("erase/extracted_before", before),
        line("erase/extracted_after", after),
        line("erase/retain_loss_ratio", retain),
        line("erase/frechet_before", frechet[0]),
        line("erase/frechet_after", frechet[1]),
        line("erase/residue_after", residue[1], residue[0], residue[2]),
        line("erase/residue_nonmembers", outside[1], outside[0], outside[2]),
    ]


@pytest.mark.parametrize(
    ("changed", "verdict", "words"),
    [
        ({}, PASS, "None of 10 forgotten images comes out"),
        ({"after": 2}, FINDING, "2 of 10 forgotten images still come out"),
        ({"retain": 1.06}, FINDING, "denoising loss on retained images grows by a factor of 1.060"),
        ({"frechet": (2.0, 2.6)}, FINDING, "factor of 1.300"),
        ({"frechet": (None, None)}, PASS, ""),
        ({"residue": (1, 2, 3)}, INCONCLUSIVE, "The trace remains although nothing is extracted"),
        ({"residue": (61, 70, 80)}, INCONCLUSIVE, "past the non-members' level"),
        ({"outside": (None, None, None)}, INCONCLUSIVE, "could not be compared"),
        ({"residue": (None, 50, None)}, INCONCLUSIVE, "could not be compared"),
        ({"before": 0}, INCONCLUSIVE, "came out before the erasure either"),
        ({"before": None, "after": None}, INCONCLUSIVE, "did not try to extract"),
        ({"after": 2, "residue": (1, 2, 3)}, FINDING, "The trace remains"),
    ],
)
def test_erasures(changed: dict[str, float], verdict: Verdict, words: str) -> None:
    found, reasons = judge_verify(erasure(**changed), VerifyPolicy())
    assert found is verdict
    assert words in " ".join(reasons)


def test_the_worst_reason_decides_and_comes_first() -> None:
    reasons = [(PASS, "fine"), (FINDING, "bad"), (INCONCLUSIVE, "unclear")]
    assert overall(reasons) == (FINDING, ["bad", "unclear", "fine"])
    assert [verdict.exit_code for verdict in (PASS, FINDING, INCONCLUSIVE)] == [0, 1, 3]
