"""The commands that prove that a fingerprint is honest, and those that check it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vestige.cli.options import Overwrite
from vestige.dependencies import require_working_dependencies

if TYPE_CHECKING:
    from vestige.jobs.prove import Scope, Shown

prove = typer.Typer(
    help="Prove that a fingerprint is honest: open weights (manifest), an auditor (rows), or zero knowledge "
    "(commit, challenge, answer). docs/proof.md says who keeps which file.",
    no_args_is_help=True,
)
verify_proof = typer.Typer(
    help="Check what `vestige prove` made. Exit code: 0 it holds, 1 it is rejected, 2 a file cannot be read.",
    no_args_is_help=True,
)

Model = Annotated[Path, typer.Argument(help="transformers folder or GGUF file.")]
Card = Annotated[Path | None, typer.Option(help="A published card to check against the weights as well.")]
Tokens = Annotated[int, typer.Option(min=2, help="Tokens that the proof is over, a hash-chosen sample.")]
Layers = Annotated[int, typer.Option(min=1, help="How many of the last layers it is about.")]


def register(app: typer.Typer) -> None:
    """Put these commands on the command line."""
    app.add_typer(prove, name="prove")
    app.add_typer(verify_proof, name="verify-proof")


@prove.command("manifest", epilog="Example: vestige prove manifest my-model/ -o manifest.json")
def manifest(
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON file, outside of the model's folder.")],
    tokens: Tokens = 1024,
    layers: Layers = 2,
    overwrite: Overwrite = False,
) -> None:
    """Open weights: write the digest of every file and a sketch that anybody with the files can compute again."""
    require_working_dependencies()
    from vestige.cli.display import bars
    from vestige.jobs.prove import prove_manifest

    with bars() as progress:
        shown = prove_manifest(model, out=out, scope=_scope(tokens, layers), overwrite=overwrite, progress=progress)
    _tell(shown, f"vestige verify-proof manifest {out} {model}")


@verify_proof.command(
    "manifest", epilog="Example: vestige verify-proof manifest manifest.json my-model/ --card card.json"
)
def check_manifest(
    manifest: Annotated[Path, typer.Argument(help="What `vestige prove manifest` wrote.")],
    model: Model,
    card: Card = None,
) -> None:
    """Open weights: compute digests and sketch again from the files."""
    require_working_dependencies()
    from vestige.cli.display import bars
    from vestige.jobs.prove import verify_manifest

    with bars() as progress:
        shown = verify_manifest(manifest, model, card=card, progress=progress)
    _tell(shown, held=True)


@prove.command("rows", epilog="Example: vestige prove rows my-model/ --out audit")
def rows(
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for rows.json and rows.secret.")],
    tokens: Tokens = 1024,
    layers: Layers = 2,
) -> None:
    """For an auditor: publish one digest of the weights now, show the weights to one person later."""
    require_working_dependencies()
    from vestige.cli.display import bars
    from vestige.jobs.prove import prove_rows

    with bars() as progress:
        shown = prove_rows(model, out=out, scope=_scope(tokens, layers), progress=progress)
    _tell(shown, f"vestige verify-proof rows {out / 'rows.json'} {out / 'rows.secret'} {model}")


@verify_proof.command("rows", epilog="Example: vestige verify-proof rows rows.json rows.secret my-model/")
def check_rows(
    root: Annotated[Path, typer.Argument(help="rows.json, as it was published.")],
    key: Annotated[Path, typer.Argument(help="rows.secret, from the owner.")],
    model: Model,
    card: Card = None,
    tokens: Tokens = 1024,
    layers: Layers = 2,
) -> None:
    """As the auditor: build the digest again from the weights that the owner showed you."""
    require_working_dependencies()
    from vestige.cli.display import bars
    from vestige.jobs.prove import verify_rows

    with bars() as progress:
        shown = verify_rows(root, key, model, scope=_scope(tokens, layers), card=card, progress=progress)
    _tell(shown, held=True)


@prove.command("commit", epilog="Example: vestige prove commit my-model/ --out proof")
def commit(
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for commitment.bin and opening.secret.")],
    tokens: Tokens = 1024,
    layers: Layers = 2,
) -> None:
    """Zero knowledge, step 1, the owner: commit to matrices that nobody sees."""
    require_working_dependencies()
    from vestige.cli.display import bars
    from vestige.jobs.prove import prove_commit

    with bars() as progress:
        shown = prove_commit(model, out=out, scope=_scope(tokens, layers), progress=progress)
    _tell(shown, f"vestige prove challenge {out / 'commitment.bin'} -o challenge.json")


@prove.command("challenge", epilog="Example: vestige prove challenge commitment.bin -o challenge.json")
def challenge(
    commitments: Annotated[list[Path], typer.Argument(help="commitment.bin of one owner or more.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON file; keep it, it is yours.")],
    size: Annotated[int, typer.Option(min=2, max=4096, help="Numbers of the sketch a term.")] = 85,
    overwrite: Overwrite = False,
) -> None:
    """Zero knowledge, step 2, the verifier: draw directions that no owner could know."""
    require_working_dependencies()
    from vestige.jobs.prove import prove_challenge

    shown = prove_challenge(commitments, out=out, size=size, overwrite=overwrite)
    _tell(shown, f"vestige prove answer FOLDER {out} -o proof.bin   (the owner, FOLDER of `vestige prove commit`)")


@prove.command("answer", epilog="Example: vestige prove answer proof/ challenge.json -o proof.bin")
def answer(
    folder: Annotated[Path, typer.Argument(help="Folder of `vestige prove commit`.")],
    challenge: Annotated[Path, typer.Argument(help="The verifier's challenge.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File for the proof.")],
    overwrite: Overwrite = False,
) -> None:
    """Zero knowledge, step 3, the owner: prove what the sketch of the committed matrices is."""
    require_working_dependencies()
    from vestige.cli.display import bars
    from vestige.jobs.prove import prove_answer

    with bars() as progress:
        shown = prove_answer(folder, challenge, out=out, overwrite=overwrite, progress=progress)
    _tell(shown, f"vestige verify-proof answer {folder / 'commitment.bin'} {out} {challenge} --reference BASE")


@verify_proof.command(
    "answer", epilog="Example: vestige verify-proof answer commitment.bin proof.bin challenge.json --reference base/"
)
def check_answer(
    commitment: Annotated[Path, typer.Argument(help="commitment.bin, as the owner published it.")],
    proof: Annotated[Path, typer.Argument(help="The owner's proof.")],
    challenge: Annotated[Path, typer.Argument(help="Your own copy of the challenge.")],
    reference: Annotated[
        Path | None, typer.Option(help="A model whose weights you have, to compare the committed one with.")
    ] = None,
) -> None:
    """Zero knowledge, step 4, the verifier: check the proof; with --reference, how similar the models are."""
    require_working_dependencies()
    from vestige.cli.display import bars
    from vestige.jobs.prove import verify_answer

    with bars() as progress:
        shown = verify_answer(commitment, proof, challenge, reference=reference, progress=progress)
    _tell(shown, held=True)


def _scope(tokens: int, layers: int) -> Scope:
    from vestige.jobs.prove import Scope

    return Scope(tokens, layers)


def _tell(shown: Shown, follow: str = "", held: bool = False) -> None:
    """What is shown and what is not, which files to publish and which to keep."""
    from vestige.cli.display import say

    if held:
        say("It holds.")
    for path in shown.publish:
        say(f"Publish {path}")
    for path in shown.keep:
        say(f"Keep {path} secret: it cannot be made again.")
    for text in shown.shows:
        say(f"Shows: {text}.")
    if shown.similarity is not None:
        found = shown.similarity
        say(f"Similarity to the reference: {found.value:.3f} [{found.low:.3f}, {found.high:.3f}].")
    for text in shown.not_shown:
        say(f"Does not show: {text}.")
    if shown.not_shown:
        say("The cryptography has not been audited; see docs/proof.md.")
    say("", follow)
