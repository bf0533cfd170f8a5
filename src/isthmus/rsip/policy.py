# SPDX-License-Identifier: BSD-3-Clause
"""What a gateway lets its hosts do: one value, read by the checks (RFC 3103 §7, §11; spec 9, 19)."""

from __future__ import annotations

from dataclasses import dataclass, field

from isthmus.address import Address, Prefix
from isthmus.border.ranges import Ranges
from isthmus.border.selector import Admit
from isthmus.rsip.locality import Locality
from isthmus.wire.rsip.codes import LocalPolicy, Method, RemotePolicy, TunnelType


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRule:
    """What holds for the hosts of one prefix of the near realm. The longest prefix decides."""

    prefix: Prefix
    admitted: bool = True
    "Whether they may register at all; False carves a hole into a wider prefix."
    local_policy: LocalPolicy = LocalPolicy.MACRO
    "RFC 3103 §7.1."
    remote_policy: RemotePolicy = RemotePolicy.NONE
    "RFC 3103 §7.2."
    ipsec: bool = True
    "Whether they may have SPIs, and listen for IKE (401)."


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayPolicy:
    """Everything that an operator decides about RSIP. Lease times are whole seconds."""

    clients: tuple[ClientRule, ...]
    "Who may register; nobody else may."

    udp: bool = True
    "Whether UDP is served; if not, 102 USE_TCP (RFC 3103 §14)."
    methods: tuple[Method, ...] = (Method.RSAP_IP, Method.RSA_IP, Method.RSIPSEC)
    "What may be leased (RFC 3103 §8.7); RSIPSEC is offered where the pool has SPIs only."
    tunnel_types: tuple[TunnelType, ...] = (TunnelType.IP_IP, TunnelType.GRE)
    "Ways across the near realm; the first is the one for who does not say, unless IP-IP is among them."

    lease_default: int = 600
    "For who suggests nothing, or 0. RFC 3103 §10.2.2 advises several minutes."
    lease_minimum: int = 60
    lease_maximum: int = 3600
    registration_lease: int = 600
    "R at first; it grows with every binding (RFC 3103 §6)."

    remotes_allowed: tuple[Prefix, ...] = ()
    "The only remote addresses a request may name; empty: any."
    remotes_denied: tuple[Prefix, ...] = ()
    "Remote addresses that no request may name (314)."
    remote_ports_denied: Ranges = Ranges(())
    "Remote ports that no request may name (315)."
    forbidden_ports: Ranges = Ranges(())
    "Local ports that no request may name (313). What nobody may get at all does not go into the pool."
    admit: Admit = Admit.CONTACTED
    "Whom an RSAP-IP ASSIGN hears from; a whole address hears from anyone (architecture, decision 11)."
    listen: bool = True
    "Whether LISTEN is served (RFC 3103 §9.16)."
    listen_micro: bool = False
    "Whether hosts under remote micro-flow policy may listen: by administrative override only (RFC 3103 §10.6)."
    query: Locality = field(default_factory=Locality)
    "What a QUERY is answered with (RFC 3103 §9.14)."

    requests_per_second: float | None = 100.0
    "Messages per host address; more are not answered. None: no limit."
    requests_burst: int = 200
    errors_per_second: float | None = 1.0
    "Errors about data packets, for each host and code; one stands for all that came meanwhile (spec 19)."

    _longest_first: tuple[ClientRule, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse lease times that contradict each other, and tunnels that we do not speak."""
        object.__setattr__(self, "_longest_first", tuple(sorted(self.clients, key=lambda each: -each.prefix.length)))
        if not 0 < self.lease_minimum <= self.lease_default <= self.lease_maximum < 1 << 32:
            raise ValueError(
                f"lease times {self.lease_minimum} ≤ {self.lease_default} ≤ {self.lease_maximum} do not hold"
            )
        if not 0 < self.registration_lease < 1 << 32:
            raise ValueError(f"registration lease {self.registration_lease} is not within 1..2^32-1")
        if not self.tunnel_types or TunnelType.L2TP in self.tunnel_types:
            raise ValueError("tunnel types are IP-IP and GRE, at least one of them")
        if not self.methods:
            raise ValueError("no method is offered")

    @property
    def default_tunnel(self) -> TunnelType:
        """The tunnel type of a request that names none: IP-IP where it is offered (RFC 3103 §9.3.3)."""
        return TunnelType.IP_IP if TunnelType.IP_IP in self.tunnel_types else self.tunnel_types[0]

    def rule_for(self, address: Address) -> ClientRule | None:
        """The rule for a private address, if it may register."""
        for rule in self._longest_first:
            if address in rule.prefix:
                return rule if rule.admitted else None
        return None

    def lease_seconds(self, suggested: int | None) -> int:
        """The lease time for a suggestion: the host suggests, the gateway decides (RFC 3103 §6)."""
        # Silent: no value is reserved (RFC 3103 §8.3); 0 is taken as "no suggestion".
        return min(max(suggested or self.lease_default, self.lease_minimum), self.lease_maximum)

    def allows_remote(self, address: Address) -> bool:
        """Whether a request may name this remote address."""
        if any(address in prefix for prefix in self.remotes_denied):
            return False
        return not self.remotes_allowed or any(address in prefix for prefix in self.remotes_allowed)
