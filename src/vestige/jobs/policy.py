"""The policy that a verdict is judged against: defaults, or a TOML file."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vestige.errors import InvalidInput, NotFound

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AuditPolicy(_Strict):
    """What an audit may find."""

    max_extracted: int = Field(default=0, ge=0, description="distinct training images that may come out")
    max_copy_rate: float = Field(default=0.005, gt=0, le=1, description="share of generations that may be copies")
    max_membership_auc: float = Field(default=0.6, ge=0.5, le=1, description="AUC of the best membership attack")


class VerifyPolicy(_Strict):
    """What an erasure may leave behind and cost."""

    max_extracted: int = Field(default=0, ge=0, description="forgotten images that may still come out")
    max_retain_loss_ratio: float = Field(
        default=1.05, gt=0, description="denoising loss on retained images, after/before"
    )
    max_frechet_ratio: float = Field(
        default=1.25, gt=0, description="Fréchet distance to retained images, after/before"
    )
    residue: bool = Field(default=True, description="whether a trace that geometry still shows keeps the verdict open")
    recovery: bool = Field(
        default=True, description="whether an attack that gets forgotten images back keeps the verdict open"
    )


class Policy(_Strict):
    """Limits by command."""

    audit: AuditPolicy = AuditPolicy()
    verify: VerifyPolicy = VerifyPolicy()


def load_policy(path: Path | None) -> Policy:
    """The policy in a TOML file with tables ``[audit]`` and ``[verify]``, or the defaults.

    Raises
    ------
    NotFound : no such file.
    InvalidInput : not TOML, an unknown key, or a value out of range; the message names it.
    """
    if path is None:
        return Policy()
    try:
        return Policy.model_validate(tomllib.loads(path.read_text()))
    except OSError as error:
        raise NotFound(
            f"{path} cannot be read ({error.strerror}).", expected="a TOML policy file.", remedy="check --policy."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"The policy {path} is not TOML ({error}).", expected="lines such as max_extracted = 0.", remedy="mend it."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        known = {name: ", ".join(type(getattr(Policy(), name)).model_fields) for name in Policy.model_fields}
        raise InvalidInput(
            f"The policy {path} has a bad key or value at `{where}`: {first['msg']}.",
            expected="; ".join(f"[{table}] with {keys}" for table, keys in known.items()) + ".",
            remedy="correct or remove that line.",
        ) from error
