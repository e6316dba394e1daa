"""What works for a whole cluster through its API server, and touches no node."""
