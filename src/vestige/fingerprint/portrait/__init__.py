"""A fingerprint vector as a picture that a person can compare, with the vector's code under it."""
