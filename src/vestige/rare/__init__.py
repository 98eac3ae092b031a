"""Rare: what lies in the thin tail of what a pretrained generator can make, found without training it."""
