# SPDX-License-Identifier: BSD-3-Clause
"""What a host asks for, as a message, and whether a response is what was asked for.

One ``Wish`` is one of the five requests that make a binding (RFC 3103 §9.6, §9.8, §9.16; RFC 3104
§6.2; and the IKE listening of the seed's section 4.1 under private-use numbers):

============  =========  ========================  ====================================
``method``    listens    what is named             message
============  =========  ========================  ====================================
``RSA_IP``    no         the address               ASSIGN_REQUEST_RSA-IP
``RSAP_IP``   no         ports                     ASSIGN_REQUEST_RSAP-IP
``RSAP_IP``   yes        ports                     LISTEN_REQUEST
``RSIPSEC``   no         SPIs, with ports or not   ASSIGN_REQUEST_RSIPSEC
``RSIPSEC``   yes        an IKE identity           LISTEN_REQUEST_RSIP_IKE
============  =========  ========================  ====================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from isthmus.address import Address
from isthmus.border.binding import Method
from isthmus.border.crossing import TunnelKind
from isthmus.border.identity import identity_value
from isthmus.border.ranges import Ranges
from isthmus.rsip.events import Assigned
from isthmus.wire.rsip.codes import RemotePolicy
from isthmus.wire.rsip.message import (
    AssignRequestRsaIp,
    AssignRequestRsapIp,
    AssignRequestRsipsec,
    AssignResponseRsaIp,
    AssignResponseRsapIp,
    AssignResponseRsipsec,
    ListenRequest,
    ListenRequestRsipIke,
    ListenResponse,
    ListenResponseRsipIke,
)
from isthmus.wire.rsip.parameter import (
    ClientId,
    IkeIdentity,
    LeaseTime,
    MessageCounter,
    Ports,
    RsipAddress,
    RsipTunnelType,
    Spi,
)

BindRequest = AssignRequestRsaIp | AssignRequestRsapIp | AssignRequestRsipsec | ListenRequest | ListenRequestRsipIke
BindResponse = (
    AssignResponseRsaIp | AssignResponseRsapIp | AssignResponseRsipsec | ListenResponse | ListenResponseRsipIke
)

_MOST_PORTS = 255
"A Ports parameter counts in eight bits (RFC 3103 §8.2)."
_MOST_SPIS = 65535
"An SPI parameter counts in sixteen (RFC 3104 §6.2)."
_IKE_PORT = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One ASSIGN or LISTEN."""

    method: Method
    listens: bool = False
    "Whether peers that were never contacted may begin (RFC 3103 §9.16)."
    address: Address | None = None
    "None: any."
    ports: Ranges | int | None = None
    "The very ports, or how many of any; None for a whole address, and where none are needed."
    spis: Ranges | int | None = None
    "The very SPIs, or how many of any; only with RSIPSEC."
    identity: IkeIdentity | None = None
    "The initiator whose IKE is wanted; only with RSIPSEC and ``listens``."
    remote: Address | str | None = None
    "The peer, or its name; None: any."
    remote_port: int | None = None
    lease_seconds: int | None = None
    "None: as the gateway thinks fit."
    tunnels: tuple[TunnelKind, ...] = ()
    "Those that will do, the best first; none: as the gateway thinks fit. An ASSIGN names one at most."

    def __post_init__(self) -> None:
        """Refuse what no message can say."""
        rsipsec = self.method is Method.RSIPSEC
        if not rsipsec and (self.method is Method.RSAP_IP) != (self.ports is not None):
            raise ValueError(f"{self.method.name} with ports {self.ports}")
        if (self.spis is not None) != (rsipsec and not self.listens):
            raise ValueError(f"{self.method.name} with SPIs {self.spis}")
        if (self.identity is not None) != (rsipsec and self.listens) or (self.identity and self.ports is not None):
            raise ValueError(f"{self.method.name} with identity {self.identity} and ports {self.ports}")
        if self.listens and self.method is Method.RSA_IP:
            raise ValueError("a whole address needs no LISTEN")
        if self.ports is not None and not 1 <= _count(self.ports) <= _MOST_PORTS:
            raise ValueError(f"{_count(self.ports)} ports: a request holds 1 to {_MOST_PORTS}")
        if self.spis is not None and not 1 <= _count(self.spis) <= _MOST_SPIS:
            raise ValueError(f"{_count(self.spis)} SPIs: a request holds 1 to {_MOST_SPIS}")
        if len(self.tunnels) > 1 and not self.listens:
            raise ValueError(f"{len(self.tunnels)} tunnel types: an ASSIGN names one")

    @property
    def port_count(self) -> int:
        """How many ports are asked for."""
        return _count(self.ports)

    def lacks(self, remote_policy: int) -> str | None:
        """What the host's remote flow policy wants to be named and is not; None if nothing (RFC 3103 §9.8.3, §9.16.3).

        Args:
            remote_policy: RFC 3103 §8.9, as the gateway said at registration.
        """
        if remote_policy == RemotePolicy.NONE:
            return None
        if self.remote is None:
            return "the remote flow policy of this host wants the peer's address"
        if remote_policy == RemotePolicy.MICRO and self.remote_port is None and self._has_ports:
            return "the remote flow policy of this host wants the peer's port"
        return None

    @property
    def _has_ports(self) -> bool:
        return self.ports is not None or self.method is Method.RSA_IP

    def message(self, client_id: int, counter: int, *, remote_policy: int = RemotePolicy.NONE) -> BindRequest:
        """The request.

        Args:
            client_id: The host's.
            counter: Of the request.
            remote_policy: Under none a LISTEN must not name a peer (RFC 3103 §9.16.3).
        """
        open_to_all = self.listens and remote_policy == RemotePolicy.NONE
        remote = None if open_to_all else self.remote
        remote_port = None if open_to_all else self.remote_port
        lease = None if self.lease_seconds is None else LeaseTime(self.lease_seconds)
        tunnels = tuple(RsipTunnelType(int(each)) for each in self.tunnels)
        fields: dict[str, Any] = {
            "client_id": ClientId(client_id),
            "local_address": RsipAddress.any() if self.address is None else RsipAddress.of(self.address),
            "remote_address": _remote(remote),
            "remote_ports": Ports.any_of(1) if remote_port is None else Ports.of((remote_port,)),
            "message_counter": MessageCounter(counter),
            "lease_time": lease,
        }
        if self.listens:
            if self.identity is not None:
                return ListenRequestRsipIke(ike_identity=self.identity, tunnel_types=tunnels, **fields)
            return ListenRequest(local_ports=_ports(self.ports), tunnel_types=tunnels, **fields)
        fields["tunnel_type"] = tunnels[0] if tunnels else None
        if self.spis is not None:
            # RFC 3104 §6.2: without ports, both parameters say that they are not needed.
            if self.ports is None:
                fields["remote_ports"] = Ports.not_needed()
            spi = Spi.any_of(self.spis) if isinstance(self.spis, int) else Spi.of(self.spis)
            return AssignRequestRsipsec(local_ports=_ports(self.ports), spi=spi, **fields)
        if self.ports is None:
            return AssignRequestRsaIp(**fields)
        return AssignRequestRsapIp(local_ports=_ports(self.ports), **fields)

    @property
    def answered_by(self) -> type[BindResponse]:
        """The class of the response."""
        if self.listens:
            return ListenResponse if self.identity is None else ListenResponseRsipIke
        if self.spis is not None:
            return AssignResponseRsipsec
        return AssignResponseRsaIp if self.ports is None else AssignResponseRsapIp

    def mismatch(self, response: BindResponse, *, remote_policy: int) -> str | None:
        """What a response has wrong; None if it can be used. A host checks what it got (spec 10, I4)."""
        if not isinstance(response, self.answered_by):
            return "another method than asked for"
        granted = response.local_address.address
        if granted is None or (self.address is not None and granted != self.address):
            return f"local address {response.local_address}"
        kind = response.tunnel_type.value
        if kind not in set(TunnelKind) or (self.tunnels and kind not in self.tunnels):
            return f"tunnel type {response.tunnel_type}"
        endpoint = response.tunnel_endpoint
        if endpoint is not None and endpoint.address is None:
            return f"tunnel endpoint {endpoint}"
        if not response.lease_time.value:
            return "a lease of no time"
        return self._local_mismatch(response) or self._remote_mismatch(response, remote_policy)

    def granted(self, response: BindResponse, *, request: int, gateway: Address, sent_at: float) -> Assigned:
        """What the host holds by a response without mismatch.

        Args:
            response: The response.
            request: The number of the request, for the event.
            gateway: The tunnel's other end where the response names none (RFC 3103 §9.7.3, §9.9.3, §9.17.3).
            sent_at: When the request was sent first; the lease counts from here.
        """
        address, endpoint = response.local_address.address, response.tunnel_endpoint
        assert address is not None
        ports = (
            None if isinstance(response, AssignResponseRsaIp | ListenResponseRsipIke) else _set(response.local_ports)
        )
        spis = response.spi.spi_set if isinstance(response, AssignResponseRsipsec) else None
        identity = None if self.identity is None else identity_value(self.identity.kind, self.identity.data)
        remote_ports = response.remote_ports
        return Assigned(
            request=request,
            bind_id=response.bind_id.value,
            method=self.method,
            address=address,
            ports=ports,
            remote_address=response.remote_address.address,
            remote_port=None if remote_ports.dont_care or remote_ports.dont_need else self.remote_port,
            tunnel_endpoint=(None if endpoint is None else endpoint.address) or gateway,
            tunnel_kind=TunnelKind(response.tunnel_type.value),
            expires_at=sent_at + response.lease_time.value,
            spis=None if spis is None else Ranges.of(*spis),
            # Silent: no message says whether a gateway tells IKE on port 500 apart; trying shows it (RFC 3104 §6.1).
            ike=self.method is Method.RSIPSEC and (ports is None or _IKE_PORT not in ports),
            listens=self.listens,
            identity=identity,
        )

    def _local_mismatch(self, response: BindResponse) -> str | None:
        """Exactly what was asked for, no more and no less (RFC 3103 §9.8.3)."""
        if isinstance(response, ListenResponseRsipIke):
            return None if response.ike_identity == self.identity else f"identity {response.ike_identity}"
        if isinstance(response, AssignResponseRsipsec):
            spis = response.spi.spi_set
            if spis is None or _differs(self.spis, spis):
                return f"SPIs {response.spi} instead of {self.spis}"
        if isinstance(response, AssignResponseRsaIp):
            return None
        if self.ports is None:
            return None if response.local_ports.dont_need else f"ports {response.local_ports} that are not needed"
        ports = response.local_ports.port_set
        if ports is None or _differs(self.ports, ports):
            return f"ports {response.local_ports} instead of {self.ports}"
        return None

    def _remote_mismatch(self, response: BindResponse, remote_policy: int) -> str | None:
        """The remote fields repeat what the flow policy is about, and nothing else (the table of spec 5.3)."""
        address, ports = response.remote_address, response.remote_ports
        if address != _remote(self.remote) and not (address.dont_care and remote_policy == RemotePolicy.NONE):
            return f"remote address {address}"
        if ports.dont_need:
            return None if self.ports is None and self.spis is not None else f"remote ports {ports}"
        micro = remote_policy == RemotePolicy.MICRO and self._has_ports
        if not ports.dont_care and ports.port_set != (self.remote_port,):
            return f"remote ports {ports}"
        return f"remote ports {ports}" if micro and ports.dont_care else None


def _count(wanted: Ranges | int | None) -> int:
    return wanted if isinstance(wanted, int) else len(wanted or ())


def _differs(wanted: Ranges | int | None, granted: tuple[int, ...]) -> bool:
    if isinstance(wanted, Ranges):
        return Ranges.of(*granted) != wanted
    return len(granted) != wanted


def _ports(wanted: Ranges | int | None) -> Ports:
    if wanted is None:
        return Ports.not_needed()
    return Ports.any_of(wanted) if isinstance(wanted, int) else Ports.of(wanted)


def _set(ports: Ports) -> Ranges | None:
    found = ports.port_set
    return None if found is None else Ranges.of(*found)


def _remote(remote: Address | str | None) -> RsipAddress:
    if remote is None:
        return RsipAddress.any()
    return RsipAddress.fqdn(remote) if isinstance(remote, str) else RsipAddress.of(remote)
