"""A directory on disk that holds volumes: its mark, its records, and what their data is made of."""
