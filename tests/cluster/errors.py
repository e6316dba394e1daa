"""What can go wrong with a cluster."""


class ClusterError(Exception):
    """The cluster cannot be had or used; the message says why and what to do."""
