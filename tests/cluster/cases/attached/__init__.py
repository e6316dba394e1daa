"""The overlay single-node-attach with two pools, in a cluster of one node.

The driver is taken out of the cluster and installed again for it, so its volumes have to outlive
that; afterwards the cluster has what it had.
"""
