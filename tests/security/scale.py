"""How much is tried, and the figures of it.

`SECURITY=whole` tries all. Otherwise a sample is drawn, by `SECURITY_SEED`, the same each time.
"""

import os
from collections import Counter

WHOLE = os.environ.get("SECURITY") == "whole"
SEED = int(os.environ.get("SECURITY_SEED", "1"))

FIGURES: Counter[str] = Counter()
"""What was tried, and how often."""


def choose(sample: int, whole: int) -> int:
    """Returns how many are tried in this run."""
    return whole if WHOLE else sample
