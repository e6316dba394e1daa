"""The statistics of the bench: medians, spreads and ratios."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.figures import Figure, Samples, figure_of, quantile, ratio


def test_median_and_spread_of_known_values() -> None:
    figure = figure_of("create", "ms", [5, 1, 2, 4, 3, 6, 7, 8, 9, 10, 11])

    assert (figure.low, figure.median, figure.high, figure.count) == (2, 6, 10, 11)


def test_one_value_is_its_own_spread() -> None:
    figure = figure_of("create", "ms", [7.5])

    assert (figure.low, figure.median, figure.high, figure.count) == (7.5, 7.5, 7.5, 1)


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=50))
def test_quantiles_are_those_of_the_standard_library(values: list[float]) -> None:
    tenths = statistics.quantiles(values, n=10, method="inclusive")

    ours = [quantile(sorted(values), number / 10) for number in range(1, 10)]
    assert ours == pytest.approx(tenths)


def test_ratio_says_how_many_times_better_ours_is() -> None:
    def figure(unit: str, median: float) -> Figure:
        return figure_of("x", unit, [median])

    assert ratio(figure("ms", 2), figure("ms", 6)) == 3
    assert ratio(figure("MiB", 40), figure("MiB", 20)) == 0.5
    assert ratio(figure("1/s", 100), figure("1/s", 50)) == 2


def test_a_call_that_raises_is_no_sample() -> None:
    samples = Samples()
    with samples.timed("create"):
        pass
    with pytest.raises(KeyError), samples.timed("create"):
        raise KeyError

    (figure,) = samples.figures()
    assert (figure.series, figure.count) == ("create", 1)
