"""The jobs that people come for; the command line and the Python API are thin shells around them."""
