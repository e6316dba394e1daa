"""How long users of a cluster wait for volumes, snapshots and growth."""
