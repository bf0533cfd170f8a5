# SPDX-License-Identifier: BSD-3-Clause
"""The scenarios of the lab, one file each, and the list of them."""

from __future__ import annotations

from isthmus.lab.scenario import Scenario
from isthmus.lab.scenarios import (
    cascade,
    cut_over,
    discovery,
    fragments,
    gateway_restart,
    incoming_ike,
    ipae_bgp,
    ipae_bridge,
    ipae_mapping,
    ipae_paths,
    ipae_programs,
    ipae_routing,
    ipae_security,
    ipsec,
    ipv6_lease,
    ipv6_local,
    ipv6_remote,
    loss_of_state,
    milestones,
    multicast,
    narrow,
    nat_beside,
    paths,
    policies,
    publish,
    seed_hops,
    sites,
    spoofing,
    stock_programs,
    tunnels,
    two_hosts,
)

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        two_hosts.SCENARIO,
        spoofing.SCENARIO,
        gateway_restart.SCENARIO,
        loss_of_state.SCENARIO,
        stock_programs.SCENARIO,
        publish.SCENARIO,
        policies.SCENARIO,
        paths.SCENARIO,
        narrow.SCENARIO,
        fragments.SCENARIO,
        tunnels.SCENARIO,
        ipv6_local.SCENARIO,
        ipv6_remote.SCENARIO,
        ipv6_lease.SCENARIO,
        sites.SCENARIO,
        cascade.SCENARIO,
        nat_beside.SCENARIO,
        multicast.SCENARIO,
        discovery.SCENARIO,
        ipsec.SCENARIO,
        incoming_ike.SCENARIO,
        *seed_hops.SCENARIOS,
        cut_over.SCENARIO,
        milestones.SCENARIO,
        ipae_routing.SCENARIO,
        ipae_bgp.SCENARIO,
        ipae_programs.SCENARIO,
        ipae_paths.SCENARIO,
        ipae_security.SCENARIO,
        ipae_mapping.SCENARIO,
        ipae_bridge.SCENARIO,
    )
}
"""By name, in the order in which they are best read."""
