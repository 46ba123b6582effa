"""The span of values that are looked through piece by piece."""

from __future__ import annotations

import numpy as np
import pytest

from n2n_lightning.image_io.value_range import KEPT_EXTREMES, SAMPLED_VALUES, ValueSpan, ValueSurvey


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "i4", "f2", ">f4", "f8"])
@pytest.mark.parametrize("order", ["mixed", "rising", "falling"])
def test_the_span_and_the_outliers_are_those_of_all_values(dtype: str, order: str):
    """Outliers are in any piece, and the first pieces are smaller than the number of extremes that are kept."""
    rng = np.random.default_rng(0)
    values = rng.integers(100, 121, 3 * SAMPLED_VALUES).astype(dtype)
    values = {"mixed": values, "rising": np.sort(values), "falling": np.sort(values)[::-1]}[order]
    far = rng.choice(values.size, 4, replace=False)
    values = values.copy()
    values[far] = [0, 1, 250, 255]
    survey = ValueSurvey()
    for piece in np.split(values, [5, KEPT_EXTREMES, 1000, SAMPLED_VALUES + 7, 2 * SAMPLED_VALUES]):
        survey.add(piece)
    assert survey.limits() == ValueSpan(100.0, 120.0, 4)


def test_more_than_a_few_values_far_out_are_none():
    values = np.random.default_rng(0).integers(100, 121, 2 * SAMPLED_VALUES).astype(np.uint16)
    values[:KEPT_EXTREMES] = 5000
    survey = ValueSurvey()
    survey.add(values)
    assert survey.limits() == ValueSpan(100.0, 5000.0, 0)
