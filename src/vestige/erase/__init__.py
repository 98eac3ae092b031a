"""Erase: take training data out of a model as an increment that can be put back."""
