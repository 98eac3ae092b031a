"""Fingerprint: which base model these weights descend from, whatever was done to hide it."""
