"""Scores of single images that need no dimension, to compare the dimension with."""
