from __future__ import annotations

from pathlib import Path

import pytest

from vestige.errors import InvalidInput, NotFound
from vestige.jobs.policy import Policy, load_policy


def test_a_file_changes_only_what_it_names(tmp_path: Path) -> None:
    assert load_policy(None) == Policy()
    file = tmp_path / "policy.toml"
    file.write_text("[audit]\nmax_extracted = 2\n[verify]\nresidue = false\n")
    policy = load_policy(file)
    assert (policy.audit.max_extracted, policy.verify.residue) == (2, False)
    assert policy.audit.max_copy_rate == Policy().audit.max_copy_rate


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[audit]\nmax_extractd = 1\n", r"`audit\.max_extractd`"),
        ("[audits]\n", "`audits`"),
        ("[audit]\nmax_extracted = -1\n", r"`audit\.max_extracted`"),
        ("[audit]\nmax_copy_rate = 'much'\n", r"`audit\.max_copy_rate`"),
        ("[verify]\nmax_retain_loss_ratio = 0\n", r"`verify\.max_retain_loss_ratio`"),
        ("max_extracted: 1\n", "is not TOML"),
        ("\x00", "is not TOML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, where: str) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=where):
        load_policy(file)


def test_what_is_no_text_or_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match="is not TOML"):
        load_policy(tmp_path / "binary.toml")
    for path in (tmp_path / "absent.toml", tmp_path):
        with pytest.raises(NotFound, match="--policy"):
            load_policy(path)
