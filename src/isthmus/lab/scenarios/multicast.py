# SPDX-License-Identifier: BSD-3-Clause
"""Multicast through a gateway: anybody may listen, a leased address may send (RFC 3102 §5.4)."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator

from isthmus.address import Address, Prefix
from isthmus.border.ranges import Ranges
from isthmus.lab import figure
from isthmus.lab.capture import Capture, capturing
from isthmus.lab.lab import Lab
from isthmus.lab.node import Node, wait_until
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.scenarios import two_hosts
from isthmus.lab.topology import LabError

NAME = "multicast"
LISTENER, SENDER = "host-a", "host-b"
GROUP, GROUPS, PORT = "239.1.2.3", "239.1.2.0/24", 5004
_PRIVATE = Prefix.parse("10.0.0.0/8")
_TTL = 8
_IGMP, _UDP = 2, 17
_SECONDS = 3.0


def start(lab: Lab, setting: Setting) -> None:
    """Start the server, a gateway that carries groups, and a host whose lease leads to them."""
    two_hosts.start_server(lab)
    lines = f'\n[gateway.multicast]\ngroups = ["{GROUPS}"]\nquery_seconds = 5\n'
    lab["gateway"].up(figure.gateway_configuration(lab, setting, more=lines))
    text = figure.host_configuration(lab, setting, SENDER)
    lab[SENDER].up(text.replace(f'routes = ["{figure.FAR}"]', f'routes = ["{figure.FAR}", "{GROUPS}"]'))
    if not wait_until(lambda: two_hosts.holds_lease(lab, SENDER), 10, every=0.1):
        raise LabError(f"{SENDER} got no lease within 10 seconds")


def play(lab: Lab, _setting: Setting) -> Iterator[Check]:
    """Receive without a lease; send with one; send without one, which stays at home; leave."""
    with capturing(lab["server"], "eth0") as public, contextlib.ExitStack() as stack:
        listener = stack.enter_context(_member(lab[LISTENER], "eth0"))
        yield _joined(lab, public)
        yield _received_without_a_lease(lab, listener)
        far = stack.enter_context(_member(lab["server"], "eth0"))
        yield from _sent_with_a_lease(lab, near=listener, far=far)
        yield from _sent_without_a_lease(lab, near=listener, far=far)
        yield _left(lab, listener)
    yield _nothing_private(public)


@contextlib.contextmanager
def _member(node: Node, interface: str) -> Iterator[socket.socket]:
    """A program of a machine that has joined the group, as any would."""

    def join() -> socket.socket:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((GROUP, PORT))
        request = struct.pack("=4s4si", Address.parse(GROUP).octets, bytes(4), socket.if_nametoindex(interface))
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        opened.settimeout(_SECONDS)
        return opened

    with node.inside(join) as opened:
        yield opened


def _send(node: Node, words: bytes, interface: str | None = None) -> None:
    """Send to the group, by an interface or by where the routes lead."""

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
            opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, _TTL)
            if interface is not None:
                request = struct.pack("=4s4si", bytes(4), bytes(4), socket.if_nametoindex(interface))
                opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)
            opened.sendto(words, (GROUP, PORT))

    node.inside(send)


def _heard(opened: socket.socket, words: bytes, seconds: float = _SECONDS) -> tuple[str, int] | None:
    """Who said these words; None if nobody did in time."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        opened.settimeout(left)
        with contextlib.suppress(TimeoutError):
            data, peer = opened.recvfrom(2048)
            if data == words:
                return str(peer[0]), int(peer[1])
    return None


def _joined(lab: Lab, public: Capture) -> Check:
    def there() -> bool:
        return GROUP in lab["gateway"].run("ip", "-4", "maddr", "show", "dev", "wan0").stdout

    def reports() -> list[bytes]:
        octets = [each.octets for each in public.packets if each.octets[9] == _IGMP]
        return [each for each in octets if Address.parse(GROUP).octets in each]

    ok = wait_until(there, 5) and wait_until(lambda: bool(reports()), 5)
    sources = {str(Address.from_octets(each[12:16])) for each in reports()}
    detail = f"{len(reports())} reports on the public link, from {', '.join(sorted(sources)) or 'nobody'}"
    return Check(f"{LISTENER} joins; the gateway does in its stead", ok and sources == {figure.SHARED}, detail)


def _received_without_a_lease(lab: Lab, listener: socket.socket) -> Check:
    words = b"from the server"
    _send(lab["server"], words, "eth0")
    peer = _heard(listener, words)
    ok = peer is not None and peer[0] == figure.SERVER
    return Check(f"{LISTENER} hears the server without a lease", ok, f"from {peer}")


def _sent_with_a_lease(lab: Lab, *, near: socket.socket, far: socket.socket) -> Iterator[Check]:
    leased = two_hosts.leased_ports(lab).get(figure.HOSTS[SENDER], Ranges(()))
    words = b"from a leased address"
    _send(lab[SENDER], words)
    for who, opened in (("the server", far), (LISTENER, near)):
        peer = _heard(opened, words)
        ok = peer is not None and peer[0] == figure.SHARED and peer[1] in leased
        yield Check(f"{who} hears {SENDER} from its leased address", ok, f"from {peer}, leased {leased}")


def _sent_without_a_lease(lab: Lab, *, near: socket.socket, far: socket.socket) -> Iterator[Check]:
    words = b"from a private address"
    _send(lab[SENDER], words, "eth0")
    peer = _heard(near, words)
    ok = peer is not None and peer[0] == figure.HOSTS[SENDER]
    yield Check("a private source is heard on its own link", ok, f"from {peer}")
    peer = _heard(far, words, 1.0)
    yield Check("and not beyond the gateway", peer is None, f"the server heard it from {peer or 'nobody'}")


def _left(lab: Lab, listener: socket.socket) -> Check:
    listener.close()
    words = b"to nobody"

    def there() -> bool:
        return GROUP in lab["gateway"].run("ip", "-4", "maddr", "show", "dev", "wan0").stdout

    gone = wait_until(lambda: not there(), 8, every=0.2)
    with capturing(lab["lan"], LISTENER) as near:
        _send(lab["server"], words, "eth0")
        time.sleep(0.5)
    carried = [each for each in near.packets if each.octets[9] == _UDP and words in each.octets]
    detail = f"{'left' if gone else 'still a member'}, {len(carried)} packets carried afterwards"
    return Check(f"{LISTENER} leaves; the gateway does, too", gone and not carried, detail)


def _nothing_private(public: Capture) -> Check:
    sources = {Address.from_octets(each.octets[12:16]) for each in public.packets}
    private = sorted(str(each) for each in sources if each in _PRIVATE)
    detail = ", ".join(private) or f"{len(public.packets)} packets, sources {', '.join(map(str, sorted(sources)))}"
    return Check("no private address is on the public link, in IGMP neither", not private and bool(sources), detail)


SCENARIO = Scenario(
    name=NAME,
    title="Groups are received without a lease and sent to with one; private sources stay at home",
    shows=("RFC 3102 5.4", "RFC 4605 4", "RFC 3376 6"),
    network=figure.network(NAME),
    start=start,
    play=play,
)
