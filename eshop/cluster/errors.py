"""The exception of the rooms `cluster` and `cli`, with a text for people."""


class ClusterError(Exception):
    """An error with a sentence about its cause and remedy; the command prints it and ends with 1."""
