"""Images with stable row ids, and who is a member of what."""
