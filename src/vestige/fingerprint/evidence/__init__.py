"""Evidence of common descent: one file, one way to look."""
