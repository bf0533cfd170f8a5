# SPDX-License-Identifier: BSD-3-Clause
"""One host in Python, for what ``load/rsipperf.c`` does not do: to extend a lease, to ask until somebody serves."""

from __future__ import annotations

import time
from ipaddress import ip_address
from typing import TypeVar

from isthmus.lab import figure
from isthmus.lab.lab import Lab
from isthmus.lab.topology import LabError
from isthmus.wire.rsip.message import (
    AssignRequestRsapIp,
    AssignResponseRsapIp,
    ExtendRequest,
    ExtendResponse,
    Message,
    RegisterRequest,
    RegisterResponse,
    emit,
    parse,
)
from isthmus.wire.rsip.parameter import BindId, ClientId, MessageCounter, Ports, RsipAddress
from probing import ProbedLease

_Answer = TypeVar("_Answer", bound=Message)
_AGAIN_SECONDS = 0.05


class PlayedHost:
    """A host that registers and leases once."""

    def __init__(self, lab: Lab, address: str, port: int = 0) -> None:
        """Open its socket; its address is a local one (``rsip_load.prepare``)."""
        self.address = address
        self._socket = lab["host"].udp_socket()
        self._socket.bind((address, port))
        self._socket.settimeout(_AGAIN_SECONDS)
        self._counter = 0
        self._client, self._binding = ClientId(0), BindId(0)

    def register(self, seconds: float = 5.0) -> None:
        """Register, and ask again and again until there is an answer."""
        self._client = self._ask(RegisterRequest(message_counter=self._next()), RegisterResponse, seconds).client_id

    def assign(self, ports: int, seconds: float = 5.0) -> ProbedLease:
        """Lease ports."""
        request = AssignRequestRsapIp(
            client_id=self._client,
            local_address=RsipAddress.any(),
            local_ports=Ports.any_of(ports),
            remote_address=RsipAddress.any(),
            remote_ports=Ports.any_of(1),
            message_counter=self._next(),
        )
        answer = self._ask(request, AssignResponseRsapIp, seconds)
        self._binding = answer.bind_id
        leased = str(ip_address(answer.local_address.octets))
        return ProbedLease(self.address, leased, answer.local_ports.ports[0])

    def extend(self, seconds: float = 5.0) -> float:
        """Extend the lease; returns for how many seconds."""
        request = ExtendRequest(client_id=self._client, bind_id=self._binding, message_counter=self._next())
        return float(self._ask(request, ExtendResponse, seconds).lease_time.value)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _next(self) -> MessageCounter:
        self._counter += 1
        return MessageCounter(self._counter)

    def _ask(self, request: Message, wanted: type[_Answer], seconds: float) -> _Answer:
        octets, until = emit(request), time.monotonic() + seconds
        again = 0.0
        while time.monotonic() < until:
            if time.monotonic() >= again:
                self._socket.sendto(octets, (figure.GATEWAY_NEAR, figure.CONTROL_PORT))
                again = time.monotonic() + _AGAIN_SECONDS
            try:
                answer = parse(self._socket.recv(2048))
            except TimeoutError:
                continue
            if answer.message_counter != request.message_counter:
                continue
            if not isinstance(answer, wanted):
                raise LabError(f"the gateway answered {answer} to {request}")
            return answer
        raise LabError(f"host {self.address}: no answer to {type(request).__name__} within {seconds:g} seconds")
