# SPDX-License-Identifier: BSD-3-Clause
"""The formula of spec 7.1 gives the table of spec 7.1, and the bits of an address those of E26 and E27."""

import pytest

from isthmus.sim.claim import YEARS, Formula
from isthmus.sim.plan import Plan

ROWS = {
    "January 1994": (23_494, 492, 48, 12_063, 1.9, 32, 14),
    "November 2014": (523_431, 551, 950, 14_787, 35, 90, 20),
    "2019, Russia": (774_859, 513, 1_510, 6_417, 121, 94, 20),
    "2019, USA": (774_859, 596, 1_300, 26_907, 29, 93, 20),
    "2026": (1_059_904, 589, 1_799, 23_882, 44, 95, 20),
}
"""F, T and its ratio, T without regions and its ratio, ratios with 1 % and 5 % exceptions, as spec 7.1 prints them."""


@pytest.mark.rfc("ipae", "8.1")
@pytest.mark.parametrize("year", YEARS, ids=lambda year: year.name)
def test_every_row_of_the_specification_comes_out_of_the_formula(year):
    prefixes, entries, ratio, coarse, coarse_ratio, one, five = ROWS[year.name]
    formula = year.formula
    assert formula.prefixes == prefixes
    assert formula.entries() == entries
    assert round(formula.ratio()) == ratio
    assert formula.entries(region_level=False) == coarse
    assert formula.ratio(region_level=False) == pytest.approx(coarse_ratio, rel=0.03)
    assert round(formula.ratio(0.01)) == one
    assert round(formula.ratio(0.05)) == five


@pytest.mark.rfc("ipae", "8.1")
def test_in_1994_the_region_level_was_needed_and_today_it_is_not():
    ratios = {year.name: year.formula.ratio(region_level=False) for year in YEARS}
    assert ratios.pop("January 1994") < 2
    assert min(ratios.values()) > 10


@pytest.mark.rfc("ipae", "8.1")
def test_the_claim_fails_above_9_9_percent_of_exceptions_in_2026():
    formula = YEARS[-1].formula
    assert round(formula.failing_share(), 3) == 0.099
    assert formula.ratio(formula.failing_share()) == pytest.approx(10)
    assert formula.ratio(formula.failing_share() + 0.001) < 10


def test_where_the_claim_never_held_no_exception_is_too_many():
    assert Formula(prefixes=100, countries=50, regions=2, sites=20, local=3).failing_share() == 0


@pytest.mark.rfc("ipae", "2.1")
def test_a_thousand_million_networks_need_half_of_the_codes():
    """Spec E27."""
    plan = Plan()
    assert plan.codes == 126 * 256 * 65_536
    assert round(plan.efficiency_needed, 2) == 0.47


@pytest.mark.rfc("ipae", "4.1")
def test_the_seven_bits_of_country_hold_126_and_not_those_of_today():
    """Spec E26: neither telephone codes nor ISO countries fit; the split is configuration."""
    assert (Plan().countries, Plan().regions, Plan().site_bits) == (126, 255, 16)
    assert Plan.holding(126) == Plan()
    wider = Plan.holding(230)
    assert (wider.country_bits, wider.countries, wider.site_bits) == (8, 253, 15)
    # What begins with seven ones is multicast whatever the split (RFC 8507 §4.3).
    assert (wider.countries + 1) >> 1 == 127


def test_a_plan_leaves_bits_to_every_level():
    with pytest.raises(ValueError, match="no bits for sites"):
        Plan.holding(10_000_000)
    with pytest.raises(ValueError, match="there are 31"):
        Plan(country_bits=23)
    with pytest.raises(ValueError, match="there are 31"):
        Plan(country_bits=6)
