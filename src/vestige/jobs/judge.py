"""From numbers to a verdict: pass, finding or inconclusive, with reasons in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vestige.erase.recover.recovery import Outcome
from vestige.jobs.policy import AuditPolicy, VerifyPolicy
from vestige.jobs.recovery import strongest
from vestige.record import Estimate, Verdict

Reason = tuple[Verdict, str]


def overall(reasons: Sequence[Reason]) -> tuple[Verdict, list[str]]:
    """The worst of several verdicts (finding before inconclusive before pass), and every reason."""
    order = [Verdict.FINDING, Verdict.INCONCLUSIVE, Verdict.PASS]
    verdict = next((v for v in order if any(v is r for r, _ in reasons)), Verdict.INCONCLUSIVE)
    return verdict, [text for v in order for r, text in reasons if r is v]


def judge_audit(summary: Sequence[Estimate], policy: AuditPolicy) -> tuple[Verdict, list[str]]:
    """Judge what an audit measured; what it could not measure never counts as a pass."""
    lines = {line.name: line for line in summary}
    reasons: list[Reason] = []
    if "extraction/images" in lines:
        reasons.append(_extraction(lines, policy))
    if "membership/auc" in lines:
        reasons.append(_membership(lines, policy))
    return overall(reasons)


def _extraction(lines: dict[str, Estimate], policy: AuditPolicy) -> Reason:
    images, rate, precision = (lines[f"extraction/{k}"] for k in ("images", "copy_rate", "precision"))
    found = int(images.value or 0)
    if found > policy.max_extracted:
        close = int(lines["extraction/near_exact"].value or 0)
        # A match pixel by pixel needs no statistics, unless non-members are matched as well.
        plain = close > policy.max_extracted and precision.value == 1
        if precision.low is not None and precision.low <= 0.5 and not plain:
            return Verdict.INCONCLUSIVE, (
                f"{found} training images were matched at a precision of {precision.value or 0:.3f}, which may be as "
                f"low as {precision.low:.3f}: non-members may be matched as often; sample more generations or give "
                "more non-members."
            )
        words = "" if precision.value is None else f" at a precision of {precision.value:.3f}"
        if precision.value is None and close <= policy.max_extracted:
            return Verdict.INCONCLUSIVE, (
                f"{found} training images were matched, none of them nearly pixel by pixel, and without non-members "
                "the share of false matches is unknown; pass --non-members."
            )
        return Verdict.FINDING, f"{found} training images come out{words}; the policy allows {policy.max_extracted}."
    upper = rate.high if rate.high is not None else 1.0
    if upper > policy.max_copy_rate:
        needed = math.ceil(math.log(0.025) / math.log1p(-policy.max_copy_rate))
        return Verdict.INCONCLUSIVE, (
            f"No more training images came out than the policy allows, but {rate.n} generations bound the copy rate "
            f"only by {upper:.3%}; {needed:,} without a copy would bound it by {policy.max_copy_rate:.3%}."
        )
    return Verdict.PASS, f"At most {upper:.3%} of generations copy a training image (95 % bound, {rate.n} generations)."


def _membership(lines: dict[str, Estimate], policy: AuditPolicy) -> Reason:
    area, control = lines["membership/auc"], lines["membership/auc_control"]
    low, high, value = area.low or 0.0, area.high or 1.0, 0.5 if area.value is None else area.value
    if not (control.low or 0.0) <= 0.5 <= (control.high or 1.0):
        return (
            Verdict.INCONCLUSIVE,
            f"The membership control is {control.value:.3f}, not chance; its result is not used.",
        )
    bound = f"[{low:.3f}, {high:.3f}]; the policy allows {policy.max_membership_auc:g}"
    if low > policy.max_membership_auc:
        return Verdict.FINDING, f"Members are told from non-members with AUC {value:.3f} {bound}."
    if high <= policy.max_membership_auc:
        return Verdict.PASS, f"Members are hardly told from non-members: AUC {value:.3f} {bound}."
    return Verdict.INCONCLUSIVE, f"The membership AUC {value:.3f} {bound}: the interval straddles the limit."


def judge_verify(
    summary: Sequence[Estimate], policy: VerifyPolicy, tried: Sequence[Outcome] = ()
) -> tuple[Verdict, list[str]]:
    """Judge an erasure: what still comes out, what was harmed, what trace remains, what the ``tried`` attacks got."""
    lines = {line.name: line for line in summary}
    reasons = [_forgetting(lines, policy)]
    reasons.append(
        _ratio(lines["erase/retain_loss_ratio"], policy.max_retain_loss_ratio, "denoising loss on retained images")
    )
    before, now = lines["erase/frechet_before"].value, lines["erase/frechet_after"].value
    if before and now is not None:
        growth = Estimate(name="frechet", value=now / before)
        reasons.append(_ratio(growth, policy.max_frechet_ratio, "Fréchet distance to retained images"))
    if policy.residue:
        reasons.append(_residue(lines))
    return overall([*reasons, *_recovery(tried, policy)])


def _forgetting(lines: dict[str, Estimate], policy: VerifyPolicy) -> Reason:
    before, after = lines["erase/extracted_before"], lines["erase/extracted_after"]
    if after.value is None:
        return Verdict.INCONCLUSIVE, "The audit did not try to extract anything, so whether images come out is unknown."
    if after.value > policy.max_extracted:
        return Verdict.FINDING, f"{int(after.value)} of {after.n} forgotten images still come out."
    if not before.value:
        return Verdict.INCONCLUSIVE, (
            f"None of {after.n} forgotten images came out before the erasure either, so that none does now shows "
            "nothing; audit with more generations."
        )
    few = (
        f"{int(after.value)} of {after.n} forgotten images come"
        if after.value
        else f"None of {after.n} forgotten images comes"
    )
    return Verdict.PASS, f"{few} out with the audit's budget and seeds."


def _ratio(line: Estimate, limit: float, what: str) -> Reason:
    value = line.value if line.value is not None else math.inf
    if value <= limit:
        return Verdict.PASS, f"The {what} changes by a factor of {value:.3f}; the policy allows {limit:g}."
    return Verdict.FINDING, f"The {what} grows by a factor of {value:.3f}, over the policy's {limit:g}."


def _residue(lines: dict[str, Estimate]) -> Reason:
    after, others = lines["erase/residue_after"], lines["erase/residue_nonmembers"]
    if after.value is None or others.value is None or after.high is None or others.low is None or others.high is None:
        return Verdict.INCONCLUSIVE, "The residue could not be compared with non-members."
    numbers = f"local dimension {after.value:.1f} against {others.value:.1f} for non-members"
    if after.high < others.low:
        return Verdict.INCONCLUSIVE, f"The trace remains although nothing is extracted: {numbers}."
    if after.low is not None and after.low > others.high:
        return Verdict.INCONCLUSIVE, f"The images were forgotten past the non-members' level, itself a mark: {numbers}."
    return Verdict.PASS, f"No trace is left that geometry shows: {numbers}."


def _recovery(tried: Sequence[Outcome], policy: VerifyPolicy) -> list[Reason]:
    best = strongest(tried)
    if best is None:
        return [(Verdict.PASS, "No recovery attack was tried, so whether the images can be brought back is unknown.")]
    opening = f"The strongest attack tried was {best.attack} ({best.effort}; {best.budget:,} network evaluations): "
    if best.blind:
        return [(Verdict.INCONCLUSIVE, f"{opening}it gets nothing even from the model before the erasure.")]
    reasons = [_attack(best, opening + best.words, policy)]
    for outcome in tried:
        if outcome is not best and not outcome.blind:
            name = outcome.attack[0].upper() + outcome.attack[1:]
            words = f"{name} ({outcome.effort}; {outcome.budget:,} network evaluations): {outcome.words}"
            reasons.append(_attack(outcome, words, policy))
    return reasons


def _attack(outcome: Outcome, words: str, policy: VerifyPolicy) -> Reason:
    if not outcome.tells:
        return Verdict.PASS, f"{words} That is no more than its control shows."
    if not policy.recovery:
        return Verdict.PASS, f"{words} That is more than its control shows; the policy does not count it."
    return Verdict.INCONCLUSIVE, f"{words} That is certainly more than its control shows: the images left a mark."
