"""Attacks that try to bring forgotten images back; a file here is a method."""
