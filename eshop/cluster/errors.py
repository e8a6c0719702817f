"""The one exception of the rooms `cluster` and `cli`: what a person can read and act on."""


class ClusterError(Exception):
    """Say in one sentence what is wrong and what to do; the command prints it and ends with 1."""
