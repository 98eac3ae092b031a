"""The local shape of what the model learned around an image."""
