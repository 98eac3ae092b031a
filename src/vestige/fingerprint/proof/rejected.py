"""What a verifier raises."""

from __future__ import annotations

from vestige.errors import VestigeError


class ProofRejected(VestigeError):
    """A proof, a commitment or a claim does not hold."""

    exit_code = 1
