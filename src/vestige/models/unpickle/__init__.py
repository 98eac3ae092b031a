"""Pickles read as data: what a file says is recorded, nothing in it is ever imported, called or executed."""
