"""Replace a file whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from vestige.errors import StorageFailed


def write_bytes(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path`` so that a reader sees the old file or the new one, never a part.

    Raises
    ------
    StorageFailed : the folder cannot be made or written; nothing half-written is left.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            # mkstemp makes a private file; a report is shared like any other file of the user.
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageFailed(
            f"{path} could not be written: {error.strerror or error}.",
            expected="a folder with room that this user may write to.",
            remedy="free some space, or choose another folder.",
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
