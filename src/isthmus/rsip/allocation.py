# SPDX-License-Identifier: BSD-3-Clause
"""What an ASSIGN or a LISTEN may have: the checks of spec 6, steps 12 to 16, and the pool behind them.

====  ======================================================  =========  ==============================
step  question                                                errors     source
====  ======================================================  =========  ==============================
12    may this host use IPsec?                                401        RFC 3104 appendix B
13    is the tunnel type offered?                             307        RFC 3103 §9.6.3, §9.8.3
14    does the request say as much as the flow policy wants?  103        RFC 3103 §7.1, §7.2
15    may it name this remote address, this remote port?      314, 315   RFC 3103 §9.6.3, §9.8.3
16    is the local address ours, is it free; the ports?       312, 310,  RFC 3103 §9.8.3, §10.5
                                                              313, 311
      is there anything at all?                               308, 309   RFC 3103 §9.8.3
      and the SPIs?                                           403, 402   RFC 3104 §6.2
====  ======================================================  =========  ==============================

Nothing is taken from the pool before every check has passed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from isthmus.address import Address, Prefix
from isthmus.border.binding import Method
from isthmus.border.crossing import TunnelKind
from isthmus.border.identity import identity_value
from isthmus.border.pool import Pool, PoolError, Shortage
from isthmus.border.ranges import Ranges, merge
from isthmus.border.resource import Resource
from isthmus.border.selector import Admit, Kind, Remote, Selector
from isthmus.errors import RemoteProtocolError
from isthmus.rsip.client import Client
from isthmus.rsip.lending import can_lend, lenders
from isthmus.rsip.policy import GatewayPolicy
from isthmus.value import quick
from isthmus.wire.rsip.codes import ErrorCode, LocalPolicy, RemotePolicy
from isthmus.wire.rsip.likeness import Likeness
from isthmus.wire.rsip.message import (
    AssignRequestRsaIp,
    AssignRequestRsapIp,
    AssignRequestRsipsec,
    ListenRequest,
    ListenRequestRsipIke,
)
from isthmus.wire.rsip.parameter import Ports, RsipAddress

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
    Shortage.IDENTITY_IN_USE: ErrorCode.LOCAL_ADDRPORT_INUSE,
}
"""The error for each shortage; QUOTA has ``QUOTAS``."""

# Silent: no error of RFC 3103 §14 says "you have enough"; "none to be had now, retry later" is what it means.
QUOTAS: dict[Method, ErrorCode] = {
    Method.RSA_IP: ErrorCode.LOCAL_ADDR_UNAVAILABLE,
    Method.RSAP_IP: ErrorCode.LOCAL_ADDRPORT_UNAVAILABLE,
    Method.RSIPSEC: ErrorCode.IPSEC_SPI_UNAVAILABLE,
}

Demand = AssignRequestRsaIp | AssignRequestRsapIp | AssignRequestRsipsec | ListenRequest | ListenRequestRsipIke
"""Every request that makes a binding."""
Ceiling = Callable[[Address, float], float | None]
"""Until when an address may be leased, by the address and the time now; None: without limit. A pure function."""

_ANY_ADDRESS, _ANY_PORT, _NO_PORTS = RsipAddress.any(), Ports.any_of(1), Ports.not_needed()
_MOST_JUDGED = 1024
"""Judgements that are remembered, for as many likenesses as there are."""
_MOST_LISTED_SPIS = 4096
"""SPIs that one request may list: the answer lists them again, and has to fit in a message."""


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteLimit:
    """What a binding lets its host talk to, and how the response says so."""

    remote: Remote
    address: RsipAddress
    "For the response: RFC 3103 §9.7.3, §9.9.3; spec 5.3."
    ports: Ports


@quick
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judgement:
    """What is found of a request before the pool is asked: steps 12 to 15."""

    method: Method
    kinds: tuple[TunnelKind, ...]
    limit: RemoteLimit
    ports: int | None = None
    "How many of any ports of any address are asked for, where that is all."


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """What one request gets."""

    method: Method
    resource: Resource
    selectors: tuple[Selector, ...]
    tunnel_kind: TunnelKind
    limit: RemoteLimit
    until: float | None
    "When the lease must end at the latest; None: without limit."
    lent: tuple[tuple[int, Ranges], ...] = ()
    "Bind IDs of the host's own that lend ports to this binding (``lending``)."
    alike: Judgement | None = None
    "What all that were judged like this have in common, where it is a run of so many ports."


class Allocator:
    """Judges requests for bindings and takes what they get from the pool."""

    def __init__(self, *, policy: GatewayPolicy, pool: Pool, ceiling: Ceiling | None = None) -> None:
        """Look at the pool once.

        Args:
            policy: What hosts may ask for.
            pool: Where it comes from.
            ceiling: How long the addresses are ours to lease; None: for ever.
        """
        self._policy = policy
        self._pool = pool
        self._ceiling = ceiling
        self._families = frozenset(claim.address.family for claim in pool.claims)
        self._judged: dict[tuple[Likeness, LocalPolicy, RemotePolicy], Judgement] = {}

    def allocate(self, request: Demand, client: Client, *, now: float) -> Allocation:
        """Give a request what it asks for, or nothing.

        Raises:
            RemoteProtocolError: with the first error in the order of spec 6.
        """
        judged = self._judge(request, client)
        method, kinds, limit = judged.method, judged.kinds, judged.limit
        try:
            self._check_listening(request, client)
            lent: tuple[tuple[int, Ranges], ...] = ()
            kind = kinds[0]
            if judged.ports is not None:
                taken = resource = self._pool.take_ports(client.owner, ports=judged.ports, now=now)
            elif isinstance(request, ListenRequest):
                taken, resource, kind, lent = self._listen(request, client, limit, kinds, now)
            else:
                taken = resource = self._take(request, client, now)
        except PoolError as error:
            code = QUOTAS[method] if error.shortage is Shortage.QUOTA else SHORTAGES[error.shortage]
            raise RemoteProtocolError(code, str(error)) from error
        until = self.until(resource.address, now)
        if until is not None and until - now < 1:
            self._pool.cancel(client.owner, taken)
            raise RemoteProtocolError(
                ErrorCode.LOCAL_ADDR_UNAVAILABLE, f"{resource.address} is not ours to lease beyond {until:.0f}"
            )
        return Allocation(
            method=method,
            resource=resource,
            selectors=_selectors(resource, limit.remote, keep_port=isinstance(request, ListenRequestRsipIke)),
            tunnel_kind=kind,
            limit=limit,
            until=until,
            lent=lent,
            alike=None if judged.ports is None else judged,
        )

    def until(self, address: Address, now: float) -> float | None:
        """Until when an address is ours to lease (RFC 3102 §4.2.1); None: for ever."""
        return None if self._ceiling is None else self._ceiling(address, now)

    def _judge(self, request: Demand, client: Client) -> Judgement:
        """Steps 12 to 15.

        They look at the request, at the policy and at what it says of the host, and at nothing that changes. So what
        is found good once is good for all requests that are alike (``wire.rsip.likeness``), as nearly all are.
        """
        like = request.like
        if like is not None:
            found = self._judged.get((like, client.local_policy, client.remote_policy))
            if found is not None:
                return found
        method = method_of(request)
        self._check_ipsec(method, client)
        kinds = self._tunnel_kinds(request)
        self._check_local_policy(request, client)
        limit = self._limit(request, client)
        if type(request) is not AssignRequestRsapIp or not request.local_ports.dont_care:
            return Judgement(method=method, kinds=kinds, limit=limit)
        ports = None if request.local_address.address is not None else request.local_ports.size
        judged = Judgement(method=method, kinds=kinds, limit=limit, ports=ports)
        if like is not None and ports is not None:
            if len(self._judged) >= _MOST_JUDGED:
                self._judged.clear()
            self._judged[like, client.local_policy, client.remote_policy] = judged
        return judged

    def _check_ipsec(self, method: Method, client: Client) -> None:
        rule = self._policy.rule_for(client.owner.address)
        if method is Method.RSIPSEC and (rule is None or not rule.ipsec):
            raise RemoteProtocolError(ErrorCode.IPSEC_UNALLOWED, f"{client.owner} may not use IPsec")

    def _tunnel_kinds(self, request: Demand) -> tuple[TunnelKind, ...]:
        """What may be granted, the host's first choice first; only LISTEN names several (RFC 3103 §9.16.2)."""
        if isinstance(request, ListenRequest | ListenRequestRsipIke):
            wanted = tuple(each.value for each in request.tunnel_types)
        else:
            wanted = () if request.tunnel_type is None else (request.tunnel_type.value,)
        offered = self._policy.tunnel_types
        kinds = [kind for kind in wanted if kind in offered]
        if wanted and not kinds:
            raise RemoteProtocolError(ErrorCode.BAD_TUNNEL_TYPE, f"tunnel type {wanted[0]} is not offered")
        first = (self._policy.default_tunnel, *offered)
        return tuple(dict.fromkeys(TunnelKind(int(kind)) for kind in kinds or first))

    def _check_local_policy(self, request: Demand, client: Client) -> None:
        """Under local micro-flow policy a binding has one port (RFC 3103 §7.1, §8.2)."""
        if client.local_policy is not LocalPolicy.MICRO or isinstance(request, ListenRequestRsipIke):
            return
        if isinstance(request, AssignRequestRsaIp):
            # Silent: RFC 3103 §7.1 and §9.6.1 rule the combination out and name no error.
            raise RemoteProtocolError(ErrorCode.FLOW_POLICY_VIOLATION, "a whole address under local micro policy")
        # Silent: RFC 3104 has no word on "don't need" under local micro policy; no port is not more than one.
        if request.local_ports.size != 1 and not request.local_ports.dont_need:
            raise RemoteProtocolError(
                ErrorCode.FLOW_POLICY_VIOLATION, f"{request.local_ports.size} ports under local micro policy"
            )

    def _limit(self, request: Demand, client: Client) -> RemoteLimit:
        """Apply the remote flow policy (RFC 3103 §7.2; the table of spec 5.3)."""
        asked, ports = request.remote_address, request.remote_ports
        # Who listens hears from anybody (RFC 3103 §9.16.3). An address held whole is its host's like its own:
        # servers work there without LISTEN (RFC 3102 §2).
        by_policy = isinstance(request, AssignRequestRsapIp | AssignRequestRsipsec)
        admit = self._policy.admit if by_policy else Admit.ANYONE
        micro = client.remote_policy is RemotePolicy.MICRO
        if client.remote_policy is not RemotePolicy.NONE and asked.dont_care:
            raise RemoteProtocolError(ErrorCode.FLOW_POLICY_VIOLATION, "no remote address under remote flow policy")
        # Silent: RFC 3104 §6.2 lets ports be "not needed" and does not say so of micro policy, which needs them.
        if micro and (ports.dont_care or ports.size != 1):
            raise RemoteProtocolError(ErrorCode.FLOW_POLICY_VIOLATION, "not one remote port under remote micro policy")
        self._check_remote(request)
        any_port = _NO_PORTS if ports.dont_need else _ANY_PORT
        if client.remote_policy is RemotePolicy.NONE:
            # Deviation: RFC 3103 §9.7.3 wants "don't care" here; its own example §16.3 gives the name back.
            echo = asked if asked.name is not None else _ANY_ADDRESS
            return RemoteLimit(remote=Remote(admit=admit), address=echo, ports=any_port)
        if asked.address is None:
            # Deviation: RFC 3103 §8.1 allows a remote name. Resolving it is a driver's job and would make the
            # answer wait for the DNS, so where the address matters it is not allowed.
            raise RemoteProtocolError(ErrorCode.REMOTE_ADDR_UNALLOWED, f"remote {asked} is a name")
        port = ports.ports[0] if micro else None
        remote = Remote(network=Prefix.of(asked.address), port=port, admit=admit)
        return RemoteLimit(remote=remote, address=asked, ports=ports if micro else any_port)

    def _check_remote(self, request: Demand) -> None:
        """Whatever a request names must be allowed, even where the policy does not need it."""
        address, ports = request.remote_address.address, request.remote_ports.port_set
        if address is not None and not (address.family in self._families and self._policy.allows_remote(address)):
            raise RemoteProtocolError(ErrorCode.REMOTE_ADDR_UNALLOWED, f"remote {address} is not allowed")
        if ports is not None and self._policy.remote_ports_denied:
            denied = [port for port in ports if port in self._policy.remote_ports_denied]
            if denied:
                raise RemoteProtocolError(ErrorCode.REMOTE_ADDRPORT_UNALLOWED, f"remote port {denied[0]} is denied")

    def _check_listening(self, request: Demand, client: Client) -> None:
        """RFC 3103 §10.6: under micro-flow policy only by administrative override."""
        # Silent: no error says "you may not listen"; the tuple is one that policy forbids.
        listens = isinstance(request, ListenRequest | ListenRequestRsipIke)
        if listens and client.remote_policy is RemotePolicy.MICRO and not self._policy.listen_micro:
            raise PoolError(Shortage.PORTS_NOT_OURS)

    def _take(self, request: Demand, client: Client, now: float) -> Resource:
        owner, address = client.owner, request.local_address.address
        if isinstance(request, AssignRequestRsaIp):
            return self._pool.take_address(owner, address=address, now=now)
        if isinstance(request, ListenRequestRsipIke):
            identity = identity_value(request.ike_identity.kind, request.ike_identity.data)
            return self._pool.take_identity(owner, address=address, identity=identity, now=now)
        if address is not None and address not in self._pool.shared_addresses:
            raise PoolError(Shortage.ADDRESS_NOT_OURS)
        ports = self._wanted_ports(request.local_ports)
        if not isinstance(request, AssignRequestRsipsec):
            assert ports is not None
            return self._pool.take_ports(owner, address=address, ports=ports, now=now)
        if len(request.spi.spis) > _MOST_LISTED_SPIS:
            raise PoolError(Shortage.NO_SPI)
        named = request.spi.spi_set
        spis = request.spi.count if named is None else Ranges.of(*named)
        return self._pool.take_spis(owner, address=address, spis=spis, ports=ports, now=now)

    def _wanted_ports(self, asked: Ports) -> Ranges | int | None:
        """The ports named, how many of any, or None for none at all."""
        if asked.dont_need:
            return None
        named = asked.port_set
        if named is None:
            return asked.size
        ports = Ranges.of(*named)
        if ports.overlaps(self._policy.forbidden_ports):
            raise PoolError(Shortage.PORTS_NOT_OURS)
        return ports

    def _listen(
        self, request: ListenRequest, client: Client, limit: RemoteLimit, kinds: tuple[TunnelKind, ...], now: float
    ) -> tuple[Resource, Resource, TunnelKind, tuple[tuple[int, Ranges], ...]]:
        """What is taken from the pool, what the binding holds, by which tunnel, and who lends to it."""
        address, ports = request.local_address.address, self._wanted_ports(request.local_ports)
        own = lenders(client, address, ports) if isinstance(ports, Ranges) else []
        if not own or not isinstance(ports, Ranges):
            taken = self._take(request, client, now)
            return taken, taken, kinds[0], ()
        # Silent: RFC 3103 §9.16 does not say what LISTEN means for ports that its host holds already. "In use" is
        # about others, so it is a binding of its own that shares them; they go back when it ends (``lending``).
        tunnels = {held.binding.tunnel.kind for held, _ in own}
        if len(tunnels) > 1 or not tunnels <= set(kinds):
            raise RemoteProtocolError(ErrorCode.BAD_TUNNEL_TYPE, "the ports are held in another tunnel type")
        if not all(can_lend(held.binding, limit.remote) for held, _ in own):
            raise PoolError(Shortage.PORTS_IN_USE)
        rest = ports - merge(common for _, common in own)
        taken = self._pool.take_ports(client.owner, address=own[0][0].binding.address, ports=rest, now=now)
        lent = tuple((held.binding.key.bind_id, common) for held, common in own)
        return taken, replace(taken, ports=ports), tunnels.pop(), lent


def method_of(request: Demand) -> Method:
    """By which method a request is served (RFC 3103 §8.7; RFC 3104 §6)."""
    if isinstance(request, AssignRequestRsaIp):
        return Method.RSA_IP
    if isinstance(request, AssignRequestRsipsec | ListenRequestRsipIke):
        return Method.RSIPSEC
    return Method.RSAP_IP


def _selectors(resource: Resource, remote: Remote, *, keep_port: bool) -> tuple[Selector, ...]:
    """What a resource selects.

    Args:
        resource: What is held.
        remote: The limit on the peer; SPIs, cookies and initiators hear from whomever it allows.
        keep_port: Whether its port holds for cookies and initiators too.
    """
    realm, local = resource.realm, Prefix.of(resource.address)
    if resource.whole:
        return (Selector(realm=realm, local=local, remote=remote),)
    if resource.ports is not None and resource.spis is None and resource.identities is None and not resource.ike:
        return (Selector(realm=realm, local=local, kind=Kind.PORT, values=resource.ports, remote=remote),)
    # Deviation: ESP hides the ports that a remote micro-flow policy is about (RFC 3104 appendix D), and IKE has its
    # own; SPIs and cookies are limited to the peer's address.
    open_ = replace(remote, admit=Admit.ANYONE, port=remote.port if keep_port else None)
    selectors = []
    if resource.spis is not None:
        selectors.append(Selector(realm=realm, local=local, kind=Kind.SPI, values=resource.spis, remote=open_))
    if resource.ports is not None:
        selectors.append(Selector(realm=realm, local=local, kind=Kind.PORT, values=resource.ports, remote=remote))
    if resource.identities is not None:
        values = resource.identities
        selectors.append(Selector(realm=realm, local=local, kind=Kind.IDENTITY, values=values, remote=open_))
    if resource.ike:
        selectors.append(Selector(realm=realm, local=local, kind=Kind.COOKIE, remote=open_))
    return tuple(selectors)
