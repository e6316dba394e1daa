"""What the driver knows: the verbs on volumes and snapshots, each of which may be repeated."""
