# SPDX-License-Identifier: BSD-3-Clause
"""Which connection a packet is for, at a host of three formats (seed IPAE 4.5.2; errata E8 to E10; spec 5.2).

An IPv4-only peer cannot say more than 32 bits of its address, and what a gateway writes above them may change; a
SIP peer says all 64, and after milestone R its low 32 may be somebody else's, too. So there are two maps::

    compatible = the packet is IPv4, or either C bit is 1

    key32 = protocol, low 32 of local, port, low 32 of remote, port      every connection
    key64 = protocol,           local, port,           remote, port      connections of class "full"

    a compatible packet is looked up in the first map, any other in the second; then the listeners

*Local* and *remote* are ours and the peer's: of a packet that came, its destination and its source; of a packet
that an ICMP error quotes, its source and its destination.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from isthmus.address import Address, Family, Prefix
from isthmus.errors import Conflict
from isthmus.ipae.addressing import Format, is_compatible
from isthmus.ipae.format import FormatPolicy, choose

Key = tuple[int, int, int, int, int]
_K = TypeVar("_K")
_LOOPBACK_NET = Prefix.parse("127.0.0.0/8")
LOOPBACK = Address(Family.SIP, 1)
"RFC 8507 §4.4."


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What a received packet says about its connection."""

    packet_format: Format
    protocol: int
    local: Address
    "Its final destination (erratum E12): IPv4 in the IPv4 format, else SIP."
    local_port: int
    remote: Address
    "Its source, of the same family."
    remote_port: int
    arrival: Prefix | None = None
    "The site of the interface that it came by; None: the host's first."

    def __post_init__(self) -> None:
        """Refuse addresses that the format does not have."""
        family = Family.IPV4 if self.packet_format is Format.IPV4 else Family.SIP
        if self.local.family is not family or self.remote.family is not family:
            raise ValueError(
                f"a packet in the {self.packet_format.name} format is not from {self.remote} to {self.local}"
            )

    @property
    def compatible(self) -> bool:
        """Whether only the low 32 bits count, in the lookup and in the checksum (errata E8, E9)."""
        return is_compatible(self.packet_format, self.remote, self.local)

    @property
    def reply(self) -> Reply:
        """How to answer without a connection, by a reset or a challenge (spec 5.2, 7): as it came."""
        return Reply(
            packet_format=self.packet_format,
            source=self.local,
            source_port=self.local_port,
            destination=self.remote,
            destination_port=self.remote_port,
            compatible=self.compatible,
        )

    @property
    def key(self) -> Key:
        """The normalised key, for whatever is hashed of a peer without a connection: SYN cookies (spec 5.2, 8).

        The same for all formats that one IPv4-only peer may appear in.
        """
        return _key32(self) if self.compatible else _key64(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Addresses and rules of a packet that answers another one."""

    packet_format: Format
    source: Address
    source_port: int
    destination: Address
    destination_port: int
    compatible: bool
    "Whether its pseudo-header covers the low 32 bits only."


@dataclass(slots=True, kw_only=True, eq=False)
class Connection:
    """A connection block: a connection of TCP, or a connected socket of UDP."""

    protocol: int
    local: Address
    "The SIP address that the peer knows us by, with the C bit of old if that has changed since (spec 5.2, 5)."
    local_port: int
    remote: Address
    "The peer's SIP address; C = 1 with our own site for one that spoke IPv4 first."
    remote_port: int
    compatible: bool
    "Its class: made in the IPv4 format or with an IPv4-only end; else full."
    packet_format: Format
    "In which the last packet came, or the first one left."
    waiting: bool = False
    "TIME_WAIT: its place is kept, nothing else."


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A socket that waits for anybody."""

    protocol: int
    local: Address | None
    "A SIP address; None: all of them."
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A packet for a listener, and what an unconnected UDP socket tells its program (spec 5.2, 9; T93 6.3)."""

    listener: Listener
    local: Address
    "The whole address that it was sent to."
    remote: Address
    "The whole address of the peer."
    packet_format: Format


class NotFound(enum.Enum):
    """Why a packet is for nobody."""

    UNKNOWN = "no connection and no listener"
    AMBIGUOUS = "several peers share the low 32 bits, and nothing tells which of them it is"
    FOREIGN = "both ends are IPv4-only: it should have come as IPv4"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What an ICMP error quotes of a packet that we sent (spec 5.2, 6)."""

    packet_format: Format
    "IPV4 if the quoted version is 4, SIP or IPAE if it is 6: either may come from the way to an IPv4-only peer."
    protocol: int
    source: Address
    destination: Address
    "The final one."
    ports: tuple[int, int] | None
    "Source and destination port; None where the quote is too short."
    arrival: Prefix | None = None
    "The site of the interface that the error came by; None: the host's first."


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """An error about one of these, which is not known: nothing to end a connection for."""

    connections: tuple[Connection, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Whole:
    """The addresses of a packet at full length, and by which map they are looked up."""

    protocol: int
    local: Address
    local_port: int
    remote: Address
    remote_port: int
    compatible: bool


_Keyed = Segment | _Whole | Connection


def _key32(keyed: _Keyed) -> Key:
    return (keyed.protocol, _low(keyed.local), keyed.local_port, _low(keyed.remote), keyed.remote_port)


def _key64(keyed: _Keyed) -> Key:
    return (keyed.protocol, keyed.local.number, keyed.local_port, keyed.remote.number, keyed.remote_port)


def _pair(keyed: _Keyed) -> tuple[int, int, int]:
    return (keyed.protocol, _low(keyed.local), _low(keyed.remote))


def _low(address: Address) -> int:
    return address.number & 0xFFFFFFFF


class ConnectionTable:
    """The connection blocks and listeners of one host."""

    def __init__(self, own: Iterable[Address], *, follow_prefix: bool = False) -> None:
        """Begin without connections.

        Args:
            own: The host's SIP addresses, C = 0; the first one's site is that of interfaces that have none.
            follow_prefix: Whether to write to where an IPv4-only peer was last heard from, if its upper half has
                changed. Whoever knows the low 32 bits and the ports can divert the connection then.

        Raises:
            ValueError: no address.
        """
        self._own = tuple(each.with_c_bit(c_bit=False) for each in own)
        if not self._own:
            raise ValueError("a host has at least one SIP address")
        self._follow_prefix = follow_prefix
        self._by_key32: dict[Key, list[Connection]] = {}
        self._by_key64: dict[Key, Connection] = {}
        self._by_pair: dict[tuple[int, int, int], list[Connection]] = {}
        self._listeners: dict[tuple[int, int], list[Listener]] = {}
        self.ambiguous = 0
        "Packets dropped as NotFound.AMBIGUOUS."

    def __len__(self) -> int:
        """How many connections there are."""
        return sum(map(len, self._by_key32.values()))

    def open(
        self,
        *,
        protocol: int,
        local: Address,
        local_port: int,
        remote: Address,
        remote_port: int,
        packet_format: Format,
    ) -> Connection:
        """Enter a connection that we begin.

        Args:
            protocol: 6, 17 or another with ports.
            local: Our SIP address.
            local_port: Ours.
            remote: The peer's SIP address, as DNS had it.
            remote_port: The peer's.
            packet_format: In which the first packet leaves (``format.choose``).

        Raises:
            Conflict: its key is taken, EADDRINUSE.
            ValueError: both ends are IPv4-only (spec 5.2, 11).
        """
        if self._is_own(remote) or remote == LOOPBACK:  # C = 0 and full, whatever DNS said (spec 5.2, 10)
            remote, local, packet_format = remote.with_c_bit(c_bit=False), local.with_c_bit(c_bit=False), Format.SIP
        if remote.c_bit and local.c_bit:
            raise ValueError(f"{local} and {remote} are both IPv4-only: that is a connection of IPv4")
        return self._enter(
            Connection(
                protocol=protocol,
                local=local,
                local_port=local_port,
                remote=remote,
                remote_port=remote_port,
                compatible=is_compatible(packet_format, local, remote),
                packet_format=packet_format,
            )
        )

    def accept(self, segment: Segment) -> Connection:
        """Enter a connection that a peer begins: the listener has taken its SYN.

        A peer in the IPv4 format becomes C = 1 of the site that it came from; any other is what it says (spec 5.2, 4).

        Raises:
            Conflict: its key is taken; the SYN is dropped (spec 5.2, 2).
        """
        whole = self._whole(segment)
        return self._enter(
            Connection(
                protocol=whole.protocol,
                local=whole.local,
                local_port=whole.local_port,
                remote=whole.remote,
                remote_port=whole.remote_port,
                compatible=whole.compatible,
                packet_format=segment.packet_format,
            )
        )

    def close(self, connection: Connection) -> None:
        """Forget a connection. Until then it may wait (TIME_WAIT) and is found like any other."""
        _remove(self._by_key32, _key32(connection), connection)
        _remove(self._by_pair, _pair(connection), connection)
        if not connection.compatible:
            del self._by_key64[_key64(connection)]

    def listen(self, listener: Listener) -> None:
        """Enter a listener.

        Raises:
            Conflict: there is one for the same address and port.
        """
        same = self._listeners.setdefault((listener.protocol, listener.port), [])
        if any(each.local == listener.local for each in same):
            raise Conflict(f"{listener.local or 'every address'} port {listener.port}")
        same.append(listener)

    def unlisten(self, listener: Listener) -> None:
        """Forget a listener."""
        self._listeners[listener.protocol, listener.port].remove(listener)

    def lookup(self, segment: Segment) -> Connection | Heard | NotFound:
        """Find whom a packet is for (seed IPAE 4.5.2, rules 1, 2a and 2b)."""
        if segment.packet_format is not Format.IPV4 and segment.local.c_bit and segment.remote.c_bit:
            return NotFound.FOREIGN
        whole = self._whole(segment)
        found = self._connection(whole)
        return self._heard(whole, segment.packet_format) if found is None else found

    def received(self, segment: Segment) -> Connection | Heard | NotFound:
        """Find whom a packet is for, and take note of its format and, if that is wished, of where its sender has moved.

        The caller has verified its checksum.
        """
        found = self.lookup(segment)
        if isinstance(found, Connection):
            found.packet_format = segment.packet_format
            # A block of key32 stays in its place: its low 32 bits are the same.
            if self._follow_prefix and found.remote.c_bit and segment.remote.c_bit:
                found.remote = segment.remote
        return found

    def quoted(self, quote: Quote) -> Connection | Hint | NotFound:
        """Find which connection an ICMP error is about (spec 5.2, 6).

        The quoted packet is one that we sent: its destination is the remote, the roles are swapped (erratum E10).
        """
        local_port, remote_port = quote.ports or (0, 0)
        whole = self._whole(
            Segment(
                packet_format=quote.packet_format,
                protocol=quote.protocol,
                local=quote.source,
                local_port=local_port,
                remote=quote.destination,
                remote_port=remote_port,
                arrival=quote.arrival,
            )
        )
        if quote.ports is not None:
            return self._connection(whole) or NotFound.UNKNOWN
        between = tuple(
            each
            for each in self._by_pair.get(_pair(whole), ())
            if whole.compatible or (each.local, each.remote) == (whole.local, whole.remote)
        )
        return Hint(connections=between) if between else NotFound.UNKNOWN

    def addresses_in_use(self) -> frozenset[Address]:
        """Our addresses as the peers of connections know them: they stay ours until these are gone (spec 5.2, 5)."""
        return frozenset(each.local for same in self._by_key32.values() for each in same)

    def _enter(self, connection: Connection) -> Connection:
        same = self._by_key32.get(_key32(connection), [])
        if connection.compatible:
            taken = any(each.compatible for each in same)
        else:
            taken = _key64(connection) in self._by_key64
        if taken:
            raise Conflict(
                f"{connection.local} port {connection.local_port} to {connection.remote} port {connection.remote_port}"
            )
        self._by_key32.setdefault(_key32(connection), same).append(connection)
        self._by_pair.setdefault(_pair(connection), []).append(connection)
        if not connection.compatible:
            self._by_key64[_key64(connection)] = connection
        return connection

    def _connection(self, whole: _Whole) -> Connection | NotFound | None:
        if not whole.compatible:
            return self._by_key64.get(_key64(whole))
        same = self._by_key32.get(_key32(whole), [])
        if len(same) < 2:
            return same[0] if same else None
        # At most one is compatible: ``_enter`` sees to that.
        likely = [each for each in same if each.compatible] or [
            each for each in same if each.remote.site == whole.remote.site
        ]
        if len(likely) == 1:
            return likely[0]
        self.ambiguous += 1
        return NotFound.AMBIGUOUS

    def _heard(self, whole: _Whole, packet_format: Format) -> Heard | NotFound:
        waiting = self._listeners.get((whole.protocol, whole.local_port), [])
        same = [each for each in waiting if each.local == whole.local]
        if not same and whole.compatible:
            same = [each for each in waiting if each.local is not None and each.local.low == whole.local.low]
        same = same or [each for each in waiting if each.local is None]
        if not same:
            return NotFound.UNKNOWN
        return Heard(listener=same[0], local=whole.local, remote=whole.remote, packet_format=packet_format)

    def _whole(self, segment: Segment) -> _Whole:
        """The packet as if a gateway had translated it, and with C = 0 between our own addresses (spec 5.2, 10)."""
        local, remote, compatible = segment.local, segment.remote, segment.compatible
        if segment.packet_format is Format.IPV4:
            site = segment.arrival or self._own[0].site
            local = self._own_address(site, segment.local)
            remote = Address.of_halves(site.address.upper, segment.remote).with_c_bit(c_bit=True)
            if segment.remote in _LOOPBACK_NET:
                local = remote = LOOPBACK
        if remote == LOOPBACK or self._is_own(remote):
            local, remote, compatible = local.with_c_bit(c_bit=False), remote.with_c_bit(c_bit=False), False
        return _Whole(
            protocol=segment.protocol,
            local=local,
            local_port=segment.local_port,
            remote=remote,
            remote_port=segment.remote_port,
            compatible=compatible,
        )

    def _is_own(self, address: Address) -> bool:
        return address.with_c_bit(c_bit=False) in self._own

    def _own_address(self, site: Prefix, low: Address) -> Address:
        """Our address with these low 32 bits: of several (erratum E31) the one of the site."""
        of_site = Address.of_halves(site.address.upper, low)
        return of_site if of_site in self._own else next((each for each in self._own if each.low == low), of_site)


def reply_format(connection: Connection, policy: FormatPolicy) -> Format | None:
    """In which format to answer on a connection (spec 5.2, 3; spec 5.3).

    A peer with C = 0 may have written in the IPv4 format (seed IPAE 8.2): it is answered so if the policy has hosts of
    one domain do that, and else in SIP. A connection that was made in the IPv4 format between two of C = 0 stays there:
    in another, neither end's checksum nor lookup would fit.

    Returns:
        None if there is no way to the peer.
    """
    made_in_ipv4 = connection.compatible and not connection.local.c_bit and not connection.remote.c_bit
    if made_in_ipv4 or (connection.packet_format is Format.IPV4 and policy.intra_ad_ipv4):
        return Format.IPV4
    sending = choose(connection.remote, policy)
    return None if sending is None else sending.packet_format


def _remove(index: dict[_K, list[Connection]], key: _K, connection: Connection) -> None:
    index[key].remove(connection)
    if not index[key]:
        del index[key]
