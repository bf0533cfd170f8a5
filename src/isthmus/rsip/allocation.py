# SPDX-License-Identifier: BSD-3-Clause
"""What an ASSIGN may have: the checks of spec 6, steps 13 to 16, and the pool behind them.

====  ======================================================  =========  =====================
step  question                                                errors     RFC 3103
====  ======================================================  =========  =====================
13    is the tunnel type offered?                             307        §9.6.3, §9.8.3
14    does the request say as much as the flow policy wants?  103        §7.1, §7.2
15    may it name this remote address, this remote port?      314, 315   §9.6.3, §9.8.3
16    is the local address ours, is it free; the ports?       312, 310,  §9.8.3, §10.5
                                                              313, 311
      is there anything at all?                               308, 309   §9.8.3
====  ======================================================  =========  =====================

Nothing is taken from the pool before every check has passed.
"""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.address import Prefix
from isthmus.border.binding import Method
from isthmus.border.crossing import TunnelKind
from isthmus.border.pool import Pool, PoolError, Resource, Shortage
from isthmus.border.ranges import Ranges
from isthmus.border.selector import Admit, Kind, Remote, Selector
from isthmus.errors import RemoteProtocolError
from isthmus.rsip.client import Client
from isthmus.rsip.policy import GatewayPolicy
from isthmus.wire.rsip.codes import ErrorCode, LocalPolicy, RemotePolicy
from isthmus.wire.rsip.message import AssignRequestRsaIp, AssignRequestRsapIp
from isthmus.wire.rsip.parameter import Ports, RsipAddress, RsipTunnelType

SHORTAGES: dict[Shortage, ErrorCode] = {
    Shortage.ADDRESS_NOT_OURS: ErrorCode.LOCAL_ADDR_UNALLOWED,
    Shortage.ADDRESS_IN_USE: ErrorCode.LOCAL_ADDR_INUSE,
    Shortage.PORTS_NOT_OURS: ErrorCode.LOCAL_ADDRPORT_UNALLOWED,
    Shortage.PORTS_IN_USE: ErrorCode.LOCAL_ADDRPORT_INUSE,
    Shortage.NO_ADDRESS: ErrorCode.LOCAL_ADDR_UNAVAILABLE,
    Shortage.NO_PORTS: ErrorCode.LOCAL_ADDRPORT_UNAVAILABLE,
    Shortage.SPI_NOT_OURS: ErrorCode.IPSEC_SPI_INUSE,
    Shortage.SPI_IN_USE: ErrorCode.IPSEC_SPI_INUSE,
    Shortage.NO_SPI: ErrorCode.IPSEC_SPI_UNAVAILABLE,
}
"""The error for each shortage; QUOTA has ``QUOTAS``."""

# Silent: no error of RFC 3103 §14 says "you have enough"; "none to be had now, retry later" is what it means.
QUOTAS: dict[Method, ErrorCode] = {
    Method.RSA_IP: ErrorCode.LOCAL_ADDR_UNAVAILABLE,
    Method.RSAP_IP: ErrorCode.LOCAL_ADDRPORT_UNAVAILABLE,
    Method.RSIPSEC: ErrorCode.IPSEC_SPI_UNAVAILABLE,
}

_ANY_ADDRESS, _ANY_PORT = RsipAddress.any(), Ports.any_of(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteLimit:
    """What a binding lets its host talk to, and how the response says so."""

    remote: Remote
    address: RsipAddress
    "For the response: RFC 3103 §9.7.3, §9.9.3; spec 5.3."
    ports: Ports


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """What one ASSIGN gets."""

    method: Method
    resource: Resource
    selector: Selector
    tunnel_kind: TunnelKind
    limit: RemoteLimit


class Allocator:
    """Judges ASSIGN requests and takes what they get from the pool."""

    def __init__(self, *, policy: GatewayPolicy, pool: Pool) -> None:
        """Look at the pool once.

        Args:
            policy: What hosts may ask for.
            pool: Where it comes from.
        """
        self._policy = policy
        self._pool = pool
        self._shared = frozenset(claim.address for claim in pool.claims if claim.kind is Kind.PORT)
        self._families = frozenset(claim.address.family for claim in pool.claims)

    def allocate(self, request: AssignRequestRsaIp | AssignRequestRsapIp, client: Client, *, now: float) -> Allocation:
        """Give a request what it asks for, or nothing.

        Raises:
            RemoteProtocolError: with the first error in the order of spec 6.
        """
        method = Method.RSA_IP if isinstance(request, AssignRequestRsaIp) else Method.RSAP_IP
        tunnel_kind = self._tunnel_kind(request.tunnel_type)
        self._check_local_policy(request, client)
        limit = self._limit(request, client, whole=method is Method.RSA_IP)
        try:
            if isinstance(request, AssignRequestRsaIp):
                resource = self._pool.take_address(client.owner, address=request.local_address.address, now=now)
                selector = Selector(realm=resource.realm, local=Prefix.of(resource.address), remote=limit.remote)
            else:
                resource = self._take_ports(request, client, now=now)
                selector = Selector(
                    realm=resource.realm,
                    local=Prefix.of(resource.address),
                    kind=Kind.PORT,
                    values=resource.ports or Ranges(()),
                    remote=limit.remote,
                )
        except PoolError as error:
            code = QUOTAS[method] if error.shortage is Shortage.QUOTA else SHORTAGES[error.shortage]
            raise RemoteProtocolError(code, str(error)) from error
        return Allocation(method=method, resource=resource, selector=selector, tunnel_kind=tunnel_kind, limit=limit)

    def _tunnel_kind(self, wanted: RsipTunnelType | None) -> TunnelKind:
        kind = self._policy.default_tunnel if wanted is None else wanted.value
        if kind not in self._policy.tunnel_types:
            raise RemoteProtocolError(ErrorCode.BAD_TUNNEL_TYPE, f"tunnel type {wanted} is not offered")
        return TunnelKind(int(kind))

    def _check_local_policy(self, request: AssignRequestRsaIp | AssignRequestRsapIp, client: Client) -> None:
        """Under local micro-flow policy a binding has one port (RFC 3103 §7.1, §8.2)."""
        if client.local_policy is not LocalPolicy.MICRO:
            return
        if isinstance(request, AssignRequestRsaIp):
            # Silent: RFC 3103 §7.1 and §9.6.1 rule the combination out and name no error.
            raise RemoteProtocolError(ErrorCode.FLOW_POLICY_VIOLATION, "a whole address under local micro policy")
        if request.local_ports.size != 1:
            raise RemoteProtocolError(
                ErrorCode.FLOW_POLICY_VIOLATION, f"{request.local_ports.size} ports under local micro policy"
            )

    def _limit(self, request: AssignRequestRsaIp | AssignRequestRsapIp, client: Client, *, whole: bool) -> RemoteLimit:
        """Apply the remote flow policy (RFC 3103 §7.2; the table of spec 5.3)."""
        asked, ports = request.remote_address, request.remote_ports
        # An address held whole is its host's like its own: servers work without LISTEN (RFC 3102 §2).
        admit = Admit.ANYONE if whole else self._policy.admit
        micro = client.remote_policy is RemotePolicy.MICRO
        if client.remote_policy is not RemotePolicy.NONE and asked.dont_care:
            raise RemoteProtocolError(ErrorCode.FLOW_POLICY_VIOLATION, "no remote address under remote flow policy")
        if micro and (ports.dont_care or ports.size != 1):
            raise RemoteProtocolError(ErrorCode.FLOW_POLICY_VIOLATION, "not one remote port under remote micro policy")
        self._check_remote(request)
        if client.remote_policy is RemotePolicy.NONE:
            # Deviation: RFC 3103 §9.7.3 wants "don't care" here; its own example §16.3 gives the name back.
            echo = asked if asked.name is not None else _ANY_ADDRESS
            return RemoteLimit(remote=Remote(admit=admit), address=echo, ports=_ANY_PORT)
        if asked.address is None:
            # Deviation: RFC 3103 §8.1 allows a remote name. Resolving it is a driver's job and would make the
            # answer wait for the DNS, so where the address matters it is not allowed.
            raise RemoteProtocolError(ErrorCode.REMOTE_ADDR_UNALLOWED, f"remote {asked} is a name")
        port = ports.ports[0] if micro else None
        remote = Remote(network=Prefix.of(asked.address), port=port, admit=admit)
        return RemoteLimit(remote=remote, address=asked, ports=ports if micro else _ANY_PORT)

    def _check_remote(self, request: AssignRequestRsaIp | AssignRequestRsapIp) -> None:
        """Whatever a request names must be allowed, even where the policy does not need it."""
        address, ports = request.remote_address.address, request.remote_ports.port_set
        if address is not None and not (address.family in self._families and self._policy.allows_remote(address)):
            raise RemoteProtocolError(ErrorCode.REMOTE_ADDR_UNALLOWED, f"remote {address} is not allowed")
        if ports is not None and self._policy.remote_ports_denied:
            denied = [port for port in ports if port in self._policy.remote_ports_denied]
            if denied:
                raise RemoteProtocolError(ErrorCode.REMOTE_ADDRPORT_UNALLOWED, f"remote port {denied[0]} is denied")

    def _take_ports(self, request: AssignRequestRsapIp, client: Client, *, now: float) -> Resource:
        address, named = request.local_address.address, request.local_ports.port_set
        if address is not None and address not in self._shared:
            raise PoolError(Shortage.ADDRESS_NOT_OURS)
        ports: Ranges | int = request.local_ports.size
        if named is not None:
            ports = Ranges.of(*named)
            if ports.overlaps(self._policy.forbidden_ports):
                raise PoolError(Shortage.PORTS_NOT_OURS)
        return self._pool.take_ports(client.owner, address=address, ports=ports, now=now)
