# SPDX-License-Identifier: BSD-3-Clause
"""The scenarios of the lab, one file each, and the list of them."""

from __future__ import annotations

from isthmus.lab.scenario import Scenario
from isthmus.lab.scenarios import gateway_restart, spoofing, stock_programs, two_hosts

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        two_hosts.SCENARIO,
        spoofing.SCENARIO,
        gateway_restart.SCENARIO,
        stock_programs.SCENARIO,
    )
}
"""By name, in the order in which they are best read."""
