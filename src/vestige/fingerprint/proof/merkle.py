"""A tree of SHA-256 over salted leaves: one digest that fixes every row and shows none.

Leaves and inner nodes are hashed apart (RFC 6962), so no node can pass for a leaf. A leaf is hashed behind 32 secret
bytes of its own, so that nobody can check a guess at a row, however few values it could have.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from vestige.errors import EmptySet


def salt(key: bytes, number: int) -> bytes:
    """The salt of one leaf, from the secret key of the tree."""
    return hmac.new(key, number.to_bytes(8, "big"), hashlib.sha256).digest()


def leaf(salted: bytes, content: bytes) -> bytes:
    """Digest of one leaf."""
    return hashlib.sha256(b"\x00" + salted + content).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """Digest of the tree over the leaves' digests; the left subtree of n leaves is the largest full one below n.

    Raises
    ------
    EmptySet : there are none.
    """
    if not leaves:
        raise EmptySet("A tree without leaves.", expected="at least one row.", remedy="commit to some rows.")
    level = list(leaves)
    while len(level) > 1:
        paired = [hashlib.sha256(b"\x01" + level[at] + level[at + 1]).digest() for at in range(0, len(level) - 1, 2)]
        level = paired + level[len(level) - len(level) % 2 :]
    return level[0]
