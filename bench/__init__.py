"""Measures a CSI driver over its socket: speed, memory, and I/O through its volumes."""
