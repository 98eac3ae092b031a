"""Laundering: every way to change a model's weights that keeps what it computes, and changes that nearly keep it."""
