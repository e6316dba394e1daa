"""What was done, told at the end of a run."""

from collections import Counter

LINES: list[str] = []


def report(what: str, answers: Counter[str]) -> None:
    """Adds a line on a run, and how its calls were answered."""
    LINES.append(f"{what}: {sum(answers.values())} calls")
    by_code: Counter[str] = Counter()
    for words, number in answers.items():
        by_code[words.rpartition(" ")[2]] += number
    LINES.append("  " + ", ".join(f"{number} {code}" for code, number in by_code.most_common()))
