# SPDX-License-Identifier: BSD-3-Clause
"""The host's end of RSIP, without I/O and without a clock (RFC 3103 §5, §6, §9, §10, appendix D).

Its user asks (``register``, ``assign_ports``, ``listen`` …), feeds it what arrives and the time, sends
what it has to send, and reads events. Requests wait in a queue and go out one by one, since
RSIP has one outstanding request per session. By itself the host

* renews every binding at 50 % and, should that fail, at 87.5 % of its lease;
* ends bindings and its registration by timers of its own, counted from when it asked;
* gives back what is not what it asked for (RFC 3103 §9.7.3, §9.9.3);
* when the gateway knows it under an old Client ID (302), deregisters that and registers anew;
* when the gateway does not know it any more (301), does the same, and asks for the same
  bindings again if it was told to ``keep`` them (RFC 3103 §10.2).

What does not come from the gateway's address and port, does not parse, or is about another
Client ID is dropped without a word and counted (RFC 3103 §9.1, §10.2.1; ``answers``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from isthmus.address import Address, Prefix
from isthmus.border.binding import Method
from isthmus.border.crossing import TunnelKind
from isthmus.border.effect import Ending, Peer
from isthmus.border.ranges import Ranges
from isthmus.errors import LocalProtocolError
from isthmus.rsip.answers import Answers, Ignored
from isthmus.rsip.events import Assigned, Event
from isthmus.rsip.holding import What
from isthmus.rsip.outbox import Outbox, Task
from isthmus.rsip.reliability import Retransmission
from isthmus.rsip.session import Session
from isthmus.rsip.states import HOST_REFUSAL, HostEvent, HostState, Transition
from isthmus.rsip.wish import Wish
from isthmus.wire.rsip.codes import ErrorCode, QueryIndicator
from isthmus.wire.rsip.message import QueryTuple, emit
from isthmus.wire.rsip.parameter import IkeIdentity, Indicator, RsipAddress

_NAMES_BINDING = (HostEvent.SEND_EXTEND, HostEvent.SEND_FREE)


class Host:
    """One host at one gateway."""

    def __init__(
        self,
        *,
        gateway: Peer,
        keep: bool = True,
        retransmission: Retransmission | None = None,
        response_seconds: float = 5.0,
        last_counter: int = 0,
        trace: Callable[[Transition], None] | None = None,
    ) -> None:
        """Start unregistered, with nothing to send.

        Args:
            gateway: Where requests go, and the only place that answers are taken from. With a
                ``connection`` other than 0 the transport is TCP.
            keep: Whether to ask for the same bindings again when the gateway has forgotten them.
            retransmission: The waits on UDP; None: from 100 ms.
            response_seconds: How long an answer may take on TCP.
            last_counter: The Message Counter used last, in a session that goes on; a fresh one
                counts from 1 (RFC 3103 §10.1).
            trace: Gets one record for every change of state.
        """
        waits = retransmission or Retransmission()
        out = Outbox(
            udp=not gateway.connection,
            retransmission=waits,
            response_seconds=response_seconds,
            last_counter=last_counter,
        )
        self._session = Session(gateway=gateway, keep=keep, out=out, trace=trace)
        self._answers = Answers(self._session)
        self._out = out
        self._requests = 0

    @property
    def gateway(self) -> Peer:
        """Where requests go."""
        return self._session.gateway

    @property
    def state(self) -> HostState:
        """Where the host stands (RFC 3103 appendix D)."""
        return self._session.state

    @property
    def client_id(self) -> int | None:
        """The Client ID, while registered."""
        return self._session.client_id

    @property
    def bindings(self) -> dict[int, Assigned]:
        """What is held now, by Bind ID, with the deadlines as extended."""
        return self._session.held.events()

    @property
    def ignored(self) -> Counter[str]:
        """Messages dropped without a word since the start, by ``Ignored``."""
        return self._answers.ignored

    # What the program asks for; each returns the number that events will name

    def register(self) -> int:
        """Register (RFC 3103 §9.2); must come before everything else."""
        return self._ask(Task(kind=HostEvent.SEND_REGISTER))

    def assign_ports(
        self,
        ports: int | Ranges = 1,
        *,
        address: Address | None = None,
        remote: Address | str | None = None,
        remote_port: int | None = None,
        lease_seconds: int | None = None,
        tunnel: TunnelKind | None = None,
    ) -> int:
        """Ask for ports of a shared address, RSAP-IP (RFC 3103 §9.8).

        Args:
            ports: How many of any, at most 255, or the very ones.
            address: The address; None: any.
            remote: The only peer, by address or name; needed under a remote flow policy.
            remote_port: The peer's port; needed under remote micro-flow policy.
            lease_seconds: For how long; the gateway decides.
            tunnel: In which tunnel; None: as the gateway thinks fit.
        """
        wish = Wish(
            method=Method.RSAP_IP,
            address=address,
            ports=ports,
            remote=remote,
            remote_port=remote_port,
            lease_seconds=lease_seconds,
            tunnels=_at_most_one(tunnel),
        )
        return self.wish(wish)

    def assign_address(
        self,
        address: Address | None = None,
        *,
        remote: Address | str | None = None,
        remote_port: int | None = None,
        lease_seconds: int | None = None,
        tunnel: TunnelKind | None = None,
    ) -> int:
        """Ask for a whole address, RSA-IP (RFC 3103 §9.6); arguments as in ``assign_ports``."""
        wish = Wish(
            method=Method.RSA_IP,
            address=address,
            remote=remote,
            remote_port=remote_port,
            lease_seconds=lease_seconds,
            tunnels=_at_most_one(tunnel),
        )
        return self.wish(wish)

    def assign_spis(
        self,
        spis: int | Ranges = 1,
        ports: int | Ranges | None = None,
        *,
        address: Address | None = None,
        remote: Address | str | None = None,
        remote_port: int | None = None,
        lease_seconds: int | None = None,
        tunnel: TunnelKind | None = None,
    ) -> int:
        """Ask for SPIs of a shared address, and for ports with them, RSIPSEC (RFC 3104 §6.2).

        Args:
            spis: How many of any, or the very ones.
            ports: As in ``assign_ports``; None: IPsec will not protect TCP or UDP.
            address: This and the others: as in ``assign_ports``.
            remote: See there.
            remote_port: See there.
            lease_seconds: See there.
            tunnel: See there.
        """
        wish = Wish(
            method=Method.RSIPSEC,
            address=address,
            ports=ports,
            spis=spis,
            remote=remote,
            remote_port=remote_port,
            lease_seconds=lease_seconds,
            tunnels=_at_most_one(tunnel),
        )
        return self.wish(wish)

    def listen(
        self,
        ports: int | Ranges = 1,
        *,
        address: Address | None = None,
        remote: Address | str | None = None,
        remote_port: int | None = None,
        lease_seconds: int | None = None,
        tunnels: Iterable[TunnelKind] = (),
    ) -> int:
        """Ask for ports that peers may call which were never contacted (RFC 3103 §9.16).

        Args:
            ports: As in ``assign_ports``.
            address: See there.
            remote: The only peer; without a remote flow policy it is not sent, as everybody may call.
            remote_port: Likewise.
            lease_seconds: For how long; the gateway decides.
            tunnels: Tunnel types that will do; none: as the gateway thinks fit.
        """
        wish = Wish(
            method=Method.RSAP_IP,
            listens=True,
            address=address,
            ports=ports,
            remote=remote,
            remote_port=remote_port,
            lease_seconds=lease_seconds,
            tunnels=tuple(tunnels),
        )
        return self.wish(wish)

    def listen_ike(
        self,
        identity: IkeIdentity,
        *,
        address: Address | None = None,
        remote: Address | str | None = None,
        lease_seconds: int | None = None,
        tunnels: Iterable[TunnelKind] = (),
    ) -> int:
        """Ask for the IKE of one initiator who calls port 500 of a shared address (seed RSIP 4.1; an extension).

        Args:
            identity: Who calls, as its ID payload says.
            address: The address; None: any on which the gateway shares port 500.
            remote: As in ``listen``.
            lease_seconds: See there.
            tunnels: See there.
        """
        wish = Wish(
            method=Method.RSIPSEC,
            listens=True,
            identity=identity,
            address=address,
            remote=remote,
            lease_seconds=lease_seconds,
            tunnels=tuple(tunnels),
        )
        return self.wish(wish)

    def wish(self, wish: Wish) -> int:
        """Ask for what a ``Wish`` says; the methods above make one of their arguments."""
        return self._ask(Task(kind=HostEvent.SEND_ASSIGN, wish=wish))

    def query(
        self,
        addresses: Iterable[Address] = (),
        networks: Iterable[Prefix] = (),
        names: Iterable[str] = (),
    ) -> int:
        """Ask what is local and what remote (RFC 3103 §9.14); the event is ``Answered``.

        Args:
            addresses: Single addresses.
            networks: IPv4 networks; RSIP has no netmask of another family.
            names: Domain names.

        Nothing at all asks for everything that the gateway is willing to tell.
        """
        tuples = [QueryTuple.of_address(each) for each in addresses]
        tuples += [
            QueryTuple(indicator=Indicator(QueryIndicator.ADDRESS), address=RsipAddress.fqdn(each)) for each in names
        ]
        tuples += [QueryTuple.of_network(each) for each in networks]
        return self._ask(Task(kind=HostEvent.SEND_QUERY, query=tuple(tuples)))

    def extend(self, bind_id: int, *, lease_seconds: int | None = None) -> int:
        """Ask for more time now (RFC 3103 §9.10); the host does so by itself anyway.

        Raises:
            LocalProtocolError: no such binding.
        """
        self._require(bind_id)
        return self._ask(Task(kind=HostEvent.SEND_EXTEND, bind_id=bind_id, lease_seconds=lease_seconds))

    def free(self, bind_id: int) -> int:
        """Give a binding back (RFC 3103 §9.12).

        Raises:
            LocalProtocolError: no such binding.
        """
        self._require(bind_id)
        return self._ask(Task(kind=HostEvent.SEND_FREE, bind_id=bind_id))

    def deregister(self) -> int:
        """Give back everything (RFC 3103 §9.4)."""
        return self._ask(Task(kind=HostEvent.SEND_DEREGISTER))

    # The five verbs

    def receive_datagram(self, data: bytes, source: Peer, *, now: float) -> None:
        """Take one datagram; only the gateway's count (spec 19)."""
        if source == self._session.gateway:
            self._answers.receive(data, now)
        else:
            self._answers.ignored[Ignored.STRANGER] += 1

    def receive_message(self, data: bytes, *, now: float) -> None:
        """Take one message that was cut from the TCP connection to the gateway."""
        self._answers.receive(data, now)

    def connection_lost(self, *, now: float) -> None:
        """Take word that the TCP connection ended: the request under way has no answer. Bindings stay (spec 2)."""
        self._out.octets.clear()
        if self._out.pending is not None:
            self._session.time_out(now)

    def datagrams_to_send(self, *, now: float) -> list[bytes]:
        """Take what is to be sent now: datagrams, or messages for the connection."""
        while self._out.pending is None and self._out.queue:
            self._start(self._out.queue.popleft(), now)
        octets, self._out.octets = self._out.octets, []
        return octets

    def get_timer(self) -> float | None:
        """When ``handle_timer`` wants to be called next, in seconds since 1970."""
        times = [self._session.held.next_at(), self._out.pending.deadline if self._out.pending else None]
        return min((each for each in times if each is not None), default=None)

    def handle_timer(self, *, now: float) -> None:
        """Repeat, give up, renew and end what is due; then ask ``datagrams_to_send``."""
        while self._out.pending is not None and self._out.pending.deadline <= now:
            if not self._out.repeat(now=now):
                self._session.time_out(now)
        while (due := self._session.held.pop_due(now)) is not None:
            match due.what:
                case What.REGISTRATION:
                    self._session.leave(Ending.EXPIRED, now)
                case What.END:
                    self._session.drop(due.bind_id, Ending.EXPIRED, now)
                case What.RENEW:
                    self._renew(due.bind_id)

    def next_event(self) -> Event | None:
        """Take the oldest event; None if there is none."""
        return self._session.events.popleft() if self._session.events else None

    # Sending

    def _ask(self, task: Task) -> int:
        self._requests += 1
        task.request = self._requests
        self._out.queue.append(task)
        return task.request

    def _require(self, bind_id: int) -> None:
        holding = self._session.held.get(bind_id)
        if holding is None or holding.event is None:
            raise LocalProtocolError(ErrorCode.BAD_BIND_ID, f"bind ID {bind_id} is not held")

    def _start(self, task: Task, now: float) -> None:
        """Send a request for the first time, if the state table and the facts allow it."""
        session = self._session
        code, problem = HOST_REFUSAL[session.state].get(task.kind), f"{task.kind} in state {session.state}"
        if code is None and task.kind in _NAMES_BINDING and task.bind_id not in session.held:
            code = ErrorCode.BAD_BIND_ID
        lacking = task.wish.lacks(session.remote_policy) if task.wish is not None else None
        if code is None and lacking is not None:
            code, problem = ErrorCode.FLOW_POLICY_VIOLATION, lacking
        if code is not None:
            session.refuse(task, code, f"not sent: {problem}")
            return
        session.transit(task.kind, now)
        counter, client_id = self._out.next_counter(), session.client_id if task.client_id is None else task.client_id
        data = emit(task.message(client_id or 0, counter, remote_policy=session.remote_policy))
        self._out.start(task, data, counter=counter, client_id=client_id, now=now)

    def _renew(self, bind_id: int) -> None:
        """Queue one renewal; should it fail, a timer brings us here again."""
        holding = self._session.held.renewed(bind_id)
        if not self._out.is_renewing(bind_id):
            seconds = holding.task.wish.lease_seconds if holding.task.wish else None
            self._out.queue.append(Task(kind=HostEvent.SEND_EXTEND, bind_id=bind_id, lease_seconds=seconds))


def _at_most_one(tunnel: TunnelKind | None) -> tuple[TunnelKind, ...]:
    return () if tunnel is None else (tunnel,)
