"""Metrics: pure functions of numpy arrays. Every rate comes with its number of observations and an interval."""
