"""A guided tour: the real driver over a real pool, through the whole life of its volumes."""
