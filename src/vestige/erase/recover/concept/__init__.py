"""Attacks that try to draw an erased concept again, and how many network evaluations they spend on it."""
