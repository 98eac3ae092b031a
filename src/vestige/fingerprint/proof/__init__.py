"""Proof that a published fingerprint was honestly made: open weights, an auditor, or zero knowledge.

None of them shows which model is deployed behind an interface, none notices rare rows that were overwritten before
the weights were committed to, and the cryptography has not been audited. ``docs/proof.md`` says what each one shows.
"""
