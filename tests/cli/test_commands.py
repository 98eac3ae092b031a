from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from typer.main import get_command

from vestige import __version__
from vestige.cli.main import app
from vestige.dependencies import REQUIRED
from vestige.discover import methods
from vestige.record import Record, Verdict, json_schema

SOURCE = str(Path(__file__).parents[2] / "src")
FEW = ["--generations", 6, "--steps", 2, "--rows", 4, "--draws", 1]


def fresh(code: str, *first: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([*first, SOURCE])
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def leaves(command: click.Command, *path: str) -> Iterator[list[str]]:
    if isinstance(command, click.Group) or hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from leaves(inner, *path, name)
    else:
        yield list(path)


COMMANDS = list(leaves(get_command(app)))


@pytest.mark.parametrize("arguments", [["--help"], ["audit", "--help"], ["--version"]])
def test_help_imports_no_torch(arguments: list[str]) -> None:
    code = "import sys, vestige\nfrom vestige.cli import main\n"
    code += f"sys.argv = ['vestige', *{arguments}]\n"
    code += "try:\n    main()\nexcept SystemExit:\n    pass\n"
    code += "heavy = {'torch', 'diffusers', 'numpy', 'scipy', 'matplotlib'} & set(sys.modules)\n"
    code += "print('loaded', sorted(heavy))"
    done = fresh(code)
    assert done.stdout.rstrip().endswith("loaded []"), done
    assert "vestige" in done.stdout


def test_there_are_the_commands_of_the_job() -> None:
    top = {path[0] for path in COMMANDS}
    assert {"demo", "audit", "erase", "verify", "report", "increments", "ledger", "bench", "doctor", "ls"} <= top
    assert {"fingerprint", "compare-weights", "convert", "lineage", "prove", "verify-proof"} <= top
    groups = ("increments", "ledger", "bench", "lineage", "prove", "verify-proof")
    inner = {name: {path[1] for path in COMMANDS if path[0] == name} for name in groups}
    assert inner == {
        "increments": {"list", "apply", "remove", "compose", "matrix", "attack"},
        "ledger": {"show", "withdraw", "apply", "replay"},
        "bench": {"erase"},
        "lineage": {"scan", "add", "show"},
        "prove": {"manifest", "rows", "commit", "challenge", "answer"},
        "verify-proof": {"manifest", "rows", "answer"},
    }


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(command: list[str], cli: Callable[..., Any]) -> None:
    answer = cli(*command, "--help")
    assert answer.code == 0
    assert f"vestige {' '.join(command)}" in answer.out.split("Example")[-1]
    assert answer.err == ""


def test_no_command_shows_the_help(cli: Callable[..., Any]) -> None:
    answer = cli()
    assert "vestige demo" in answer.out + answer.err
    assert answer.code in (0, 2)
    assert cli("--version").out == f"vestige {__version__}\n"


@pytest.mark.parametrize("arguments", [["audits"], ["audit"], ["audit", "m", "--out", "o", "--generations", "0"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str], cli: Callable[..., Any]) -> None:
    answer = cli(*arguments)
    assert answer.code == 2
    assert answer.out == ""
    assert "Usage" in answer.err


def test_ls_lists_every_method_and_model(cli: Callable[..., Any]) -> None:
    import vestige.audit
    import vestige.erase
    from vestige.audit.attack import Attack
    from vestige.erase.eraser import Eraser
    from vestige.erase.recover.recovery import Recovery
    from vestige.zoo import MODELS

    answer = cli("ls")
    assert answer.code == 0
    found = [*methods(vestige.audit, Attack), *methods(vestige.erase, Eraser), *methods(vestige.erase, Recovery)]
    for name in [*found, *MODELS]:
        assert name in answer.out
    assert answer.err == ""


def test_doctor_lists_what_is_installed(cli: Callable[..., Any]) -> None:
    answer = cli("doctor")
    assert answer.code == 0
    for name in (*REQUIRED, "python", "threads"):
        assert name in answer.out
    assert answer.err == ""


@pytest.fixture
def loose(tmp_path: Path) -> Path:
    """A policy that nothing offends."""
    (tmp_path / "loose.toml").write_text("[audit]\nmax_copy_rate = 1\nmax_membership_auc = 1\nmax_extracted = 99\n")
    return tmp_path / "loose.toml"


@pytest.mark.parametrize(
    ("model", "rules", "code"), [("plain", True, 0), ("flat", False, 1), ("absent", False, 2), ("plain", False, 3)]
)
def test_exit_codes(
    world: Any, cli: Callable[..., Any], tmp_path: Path, loose: Path, model: str, rules: bool, code: int
) -> None:
    out = tmp_path / "run"
    options = ["--data", world.train, "--non-members", world.others, "--out", out, *FEW]
    answer = cli("audit", world.root / model, *options, *(["--policy", loose] if rules else []))
    assert answer.code == code, answer
    if code == 2:
        assert answer.out == ""
        assert "Error" in answer.err
        return
    assert answer.err == ""
    record = Record.model_validate_json((out / "report.json").read_text())
    assert record.verdict is {0: Verdict.PASS, 1: Verdict.FINDING, 3: Verdict.INCONCLUSIVE}[code]
    assert str(out / "report.html") in answer.out
    assert "extraction/images" in answer.out
    assert ("vestige erase" in answer.out) == (code != 0)


def test_the_whole_job(world: Any, cli: Callable[..., Any], tmp_path: Path) -> None:
    run, made, check, model = (tmp_path / name for name in ("run", "made", "check", "model"))
    data = ["--data", world.train, "--non-members", world.others]
    assert cli("audit", world.flat, *data, "--out", run, *FEW).code == 1
    settings = [part for text in ("steps=2", "batch_size=2", "target=noise") for part in ("--set", text)]
    answer = cli(
        "erase", world.flat, "--forget", run, "--retain", world.train, "--out", made, *settings, "--name", "gone"
    )
    assert (answer.code, answer.err) == (0, "")
    assert "vestige verify" in answer.out
    manifest = json.loads((made / "increment.json").read_text())
    assert (manifest["name"], manifest["settings"]["steps"], manifest["settings"]["target"]) == ("gone", 2, "noise")
    answer = cli("verify", world.flat, "--increment", made, "--against", run, "--out", check)
    assert answer.code in (0, 1, 3)
    assert "restore/bit_exact" in answer.out
    assert answer.code == Record.model_validate_json((check / "report.json").read_text()).verdict.exit_code

    assert cli("increments", "apply", world.flat, made, "--out", model).code == 0
    assert "gone" in cli("increments", "list", model, made).out
    assert "no increment applied" in cli("increments", "list", world.flat).out
    assert "bit for bit" in cli("increments", "remove", model, "gone", "--out", tmp_path / "back").out
    assert "bit for bit" in cli("increments", "remove", model, "--out", tmp_path / "back", "--overwrite").out
    answer = cli("increments", "compose", made, made, "--out", tmp_path / "twice")
    assert (answer.code, "compose" in answer.out) == (0, True)
    answer = cli("increments", "remove", model, "cats", "--out", tmp_path / "other")
    assert answer.code == 2
    assert "one of: gone" in answer.err


def test_report_draws_the_page_again(world: Any, cli: Callable[..., Any], tmp_path: Path) -> None:
    cli("audit", world.flat, "--data", world.train, "--out", tmp_path / "run", *FEW)
    page = tmp_path / "run" / "report.html"
    before = page.read_bytes()
    page.unlink()
    answer = cli("report", tmp_path / "run")
    assert (answer.code, answer.err) == (0, "")
    assert page.read_bytes() == before
    assert "extraction/images" in answer.out
    assert b"data:image/png" not in before
    cli("report", tmp_path / "run", "--show-images")
    assert b"data:image/png" in page.read_bytes()
    assert json.loads(cli("report", "--schema").out) == json_schema()


BROKEN = """
import contextlib, io, json, sys
from vestige.cli import main
answers = {}
for command in json.loads(sys.argv[1]):
    sys.argv = ["vestige", *command]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code
    answers[" ".join(command)] = [code, out.getvalue(), err.getvalue()]
print(json.dumps(answers))
"""


def test_a_broken_torchvision_is_named_by_every_command_that_needs_a_model(tmp_path: Path) -> None:
    fake = tmp_path / "torchvision"
    fake.mkdir()
    (fake / "__init__.py").write_text('raise RuntimeError("operator torchvision::nms does not exist")\n')
    commands = {
        "demo": ["--out", "o"],
        "audit": ["m", "--out", "o"],
        "geometry": ["m", "--out", "o"],
        "erase": ["m", "--forget", "rows:1", "--out", "o"],
        "verify": ["m", "--increment", "i", "--against", "r", "--out", "o"],
        "compare": ["a", "b", "--out", "o"],
        "fingerprint": ["m"],
        "compare-weights": ["a", "b"],
        "convert": ["a.pkl", "b.safetensors"],
        "lineage scan": ["f"],
        "lineage add": ["m"],
        "lineage show": [],
        "prove manifest": ["m", "-o", "o"],
        "prove rows": ["m", "-o", "o"],
        "prove commit": ["m", "-o", "o"],
        "prove challenge": ["c", "-o", "o"],
        "prove answer": ["f", "c", "-o", "o"],
        "verify-proof manifest": ["f", "m"],
        "verify-proof rows": ["r", "k", "m"],
        "verify-proof answer": ["c", "p", "q"],
        "increments matrix": ["m", "i", "--out", "o"],
        "increments attack": ["m", "i", "--out", "o"],
        "metrics": ["g", "--data", "d", "--out", "o"],
        "rare": ["m", "--data", "d", "--out", "o"],
        "shadow": ["--data", "d", "--out", "o"],
        "study": [str(Path(__file__).parents[2] / "studies" / "digits.toml"), "--out", "o"],
        "data dedup": ["d", "--out", "o"],
        "data canaries": ["d", "--out", "o"],
        "bench erase": ["m", "--forget", "rows:1", "--out", "o"],
        "ledger show": ["f"],
        "ledger withdraw": ["f", "n"],
        "ledger apply": ["f", "m", "--out", "o"],
        "ledger replay": ["f", "m", "--out", "o"],
        "increments list": ["i"],
        "increments apply": ["m", "i", "--out", "o"],
        "increments remove": ["m", "--out", "o"],
        "increments compose": ["i", "--out", "o"],
        "ls": [],
        "doctor": [],
        "report": ["absent"],
    }
    assert set(commands) == {" ".join(path) for path in COMMANDS}
    given = [[*name.split(), *rest] for name, rest in commands.items()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), SOURCE]), "COLUMNS": "300"}
    done = subprocess.run(
        [sys.executable, "-c", BROKEN, json.dumps(given)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    for name, (code, out, err) in zip(commands, answers.values(), strict=True):
        assert code == 2, (name, out, err)
        if name == "report":  # reads a record, so it works without any model
            assert "absent" in err
        elif name == "doctor":
            assert "Broken: torchvision" in out
            assert "pip uninstall torchvision" in out
        else:
            assert out == "", name
            assert [line.split(":")[0] for line in err.strip().splitlines()] == ["Error", "Expected", "Do next"], name
            assert "torchvision is installed but cannot be imported" in err
            assert "pip uninstall torchvision" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["torchvision"]


def test_an_interruption_is_no_traceback(world: Any, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from vestige.cli import catalogue

    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(catalogue, "show_methods", stop)
    assert cli("ls").code == 130
