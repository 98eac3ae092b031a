"""Which prompts does a text-to-image model know by heart, which words are to blame, and what helps."""
