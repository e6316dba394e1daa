"""A Container Storage Interface driver for volumes on a node's own disks."""

__version__ = "0.1.0"
