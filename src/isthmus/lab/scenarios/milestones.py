# SPDX-License-Identifier: BSD-3-Clause
"""One network goes from milestone to milestone: I, H, R and S, with what is to last lasting (seed IPAE 8; spec 7).

The network is that of ``lab.three_sites``. What is done to get to a milestone, and who is not to notice:

=========  ==========================================================================================================
milestone  what is done, and what goes on
=========  ==========================================================================================================
I          isthmus runs on the border routers only
I to H     new-a and new-c become IPAE hosts, and have AA records; border routers get C = 0 entries. A TCP connection
           and a ping between the IPv4 hosts old-a and old-b go on.
H to R     implicit tunnels end at the borders of a site, mappings between sites and IPv4 routes to sites go away, ten-b
           and ten-c both get 10.0.0.7. A TCP connection and a ping between new-a and new-c go on; old-a's ping is told.
R to S     site c gives IPv4 up inside and towards its neighbour b. All connections of SIP addresses go on, those of
           c's own hosts, too. Nobody in site a does anything.
=========  ==========================================================================================================
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from isthmus.address import Address
from isthmus.checksum import PseudoHeader
from isthmus.lab import stock
from isthmus.lab.capture import Capture, capturing
from isthmus.lab.lab import Lab
from isthmus.lab.lasting import Connection, Ping, connected, pinging
from isthmus.lab.nameserver import start_nameserver, zone_file
from isthmus.lab.node import wait_until
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.three_sites import (
    BEHIND,
    NAMES,
    NEW_A,
    NEW_C,
    OLD_A,
    OLD_B,
    SITES,
    TEN,
    TEN_B,
    TEN_BORDER,
    TEN_C,
    A,
    B,
    C,
    configurations,
    fallback,
    known_as,
    names_zone,
    network,
    peer_route,
    serial,
    tables,
)
from isthmus.lab.topology import LabError
from isthmus.lab.traffic import check_ping, check_sums, check_tcp, check_traceroute
from isthmus.wire.ipv4 import Ipv4View
from isthmus.wire.sip.header import SipView
from isthmus.wire.sip.ipae import PROTOCOL
from isthmus.wire.sip.pseudo import fits
from isthmus.wire.transport import Protocol

NAME = "milestones"
_SAME_PORT = 4700
"From which both hosts 10.0.0.7 call."


# --- changes --------------------------------------------------------------------------------


def _up(lab: Lab, setting: Setting, milestone: str) -> None:
    """Start isthmus where a milestone needs it, again where it runs; on several machines at the same time."""
    wanted = configurations(milestone)
    running = [lab[name].daemons["isthmus"] for name in wanted if "isthmus" in lab[name].daemons]
    for daemon in running:
        daemon.process.terminate()
    for daemon in running:
        daemon.stop()

    def up(name: str) -> None:
        node = lab[name]
        general = f'[isthmus]\nname = "{name}"\nrun = "{node.run_directory}"\nplane = "{setting.plane}"\n\n'
        node.up(general + wanted[name].replace("{directory}", str(node.directory)))

    with ThreadPoolExecutor(len(wanted)) as pool:
        list(pool.map(up, wanted))


def _write_tables(lab: Lab, milestone: str) -> None:
    """Put the mapping tables of a milestone where border routers read them."""
    for site, text in tables(milestone).items():
        directory = lab[site.border].directory
        directory.mkdir(parents=True, exist_ok=True)
        draft = directory / "map.new"
        draft.write_text(text, encoding="ascii")
        draft.replace(directory / "map.txt")


def _publish(lab: Lab, milestone: str) -> None:
    """Give the nameserver a new zone."""
    node = lab["names"]
    zone_file(node.directory / "knot", "example.").write_text(names_zone(milestone), encoding="ascii")
    os.kill(node.daemons["knot"].pid, signal.SIGHUP)
    wanted = str(serial(milestone))
    asked = ("dig", "+short", "+tries=1", "+time=1", f"@{NAMES}", "example.", "SOA")
    if not wait_until(lambda: wanted in node.run(*asked, check=False).stdout.split(), 10):
        raise LabError(f"knot does not serve the zone of milestone {milestone}")


def start(lab: Lab, setting: Setting) -> None:
    """Milestone I: the nameserver as it always was, servers on hosts, isthmus on border routers."""
    start_nameserver(lab["names"], NAMES, {"example.": names_zone("I")})
    for name in ("old-b", "new-a", "new-c", "ten-c"):
        stock.start_web(lab[name], ipv6=name != "old-b")
    _write_tables(lab, "I")
    _up(lab, setting, "I")


# --- the play -------------------------------------------------------------------------------


def play(lab: Lab, setting: Setting) -> Iterator[Check]:
    """Go from milestone to milestone."""
    with contextlib.ExitStack() as open_:

        def lasting(client: str, server: str, address: str, **more: int) -> Connection:
            name = f"TCP from {client} to {server}"
            return open_.enter_context(connected(name, lab[client], lab[server], address, **more))

        def ping(client: str, address: str, name: str) -> Ping:
            return open_.enter_context(pinging(f"ping from {client} to {name}", lab[client], address))

        old_ping, old_talk = ping("old-a", OLD_B, "old-b"), lasting("old-a", "old-b", OLD_B)
        yield from _at_i(lab)
        _to_h(lab, setting)
        yield old_talk.goes_on("I to H")
        yield old_ping.goes_on("I to H")
        new_c = known_as(NEW_C, NEW_A)
        talks, new_ping = [lasting("new-a", "new-c", new_c)], ping("new-a", new_c, "new-c")
        yield from _at_h(lab)
        old_talk.close()
        _to_r(lab, setting)
        yield talks[0].goes_on("H to R")
        yield new_ping.goes_on("H to R")
        yield old_ping.hears("Destination Net Unknown", "at R")
        for name, address in (("ten-b", TEN_B), ("ten-c", TEN_C)):
            talks.append(lasting(name, "new-a", known_as(NEW_A, address), source_port=_SAME_PORT))
        talks.append(lasting("ten-b", "ten-c", known_as(TEN_C, TEN_B)))
        yield from _at_r(lab, talks)
        _to_s(lab, setting)
        for each in talks:
            yield each.goes_on("R to S")
        yield new_ping.goes_on("R to S")
        yield from _at_s(lab, talks)
        yield check_sums(*(lab[name] for name in ("old-a", "new-a", "old-b", "ten-b", "new-c", "ten-c")))


def _at_i(lab: Lab) -> Iterator[Check]:
    """Unmodified hosts, and nobody between the border routers who knows a host (seed IPAE 8.1)."""
    old = lab["old-a"]
    with capturing(lab["x"], "a") as capture:
        yield check_ping(old, OLD_B, "I: IPv4 hosts", ttl=60)
        yield check_ping(old, B.router, "I: what has no mapping", ttl=62)
    mapped, others = _forms(capture, OLD_B), _forms(capture, B.router)
    ok = mapped == {"IPAE"} and others == {"IPv4"}
    yield Check("I: SIP between border routers, IPv4 where no mapping leads", ok, f"{mapped}, {others}")
    yield check_traceroute(old, OLD_B, "I: IPv4 hosts", 5)
    yield check_tcp(old, OLD_B, "I: IPv4 hosts")


def _to_h(lab: Lab, setting: Setting) -> None:
    """Hosts begin to speak SIP; who has only IPv4 need not know."""
    _up(lab, setting, "H")
    _publish(lab, "H")
    _write_tables(lab, "H")
    for site in SITES:
        lab[site.border].isthmus("map", "apply")


def _at_h(lab: Lab) -> Iterator[Check]:
    """The same name by two kinds of hosts, and the checksum that each of them uses (seed IPAE 8.2, 4.5.1)."""
    c1 = f"c{A.sip}/{OLD_A}"
    with capturing(lab["x"], "a") as capture:
        yield _by_name(lab, "H", "old-a", "new-c")
        yield _by_name(lab, "H", "new-a", "new-c")
    yield _rule(capture, c1, PseudoHeader.COMPATIBLE, A.outside)
    yield _rule(capture, NEW_A, PseudoHeader.FULL, "192.3.4.7")
    yield check_tcp(lab["new-a"], known_as(f"c{B.sip}/{OLD_B}", NEW_A), "H: IPAE host to IPv4 host")
    yield check_tcp(lab["old-b"], "192.3.4.7", "H: IPv4 host to IPAE host")


def _by_name(lab: Lab, when: str, client: str, name: str) -> Check:
    """Fetch a page by name: the server sees the client by what its SIP address is to IPv6 sockets."""
    asks, sip = {"old-a": (A.inside, f"c{A.sip}/{OLD_A}"), "new-a": ("127.0.0.53", NEW_A)}[client]
    done = stock.by_name(lab[client], asks, *stock.fetch(f"http://{name}.example/"))
    ok = done.stdout.startswith(f"You are {known_as(sip, NEW_C)} port")
    return Check(f"{when}: {client} reaches {name}.example", ok, stock.words(done))


def _rule(capture: Capture, source: str, rule: PseudoHeader, outer: str) -> Check:
    """What a host sends has checksums by one rule and not the other, in datagrams of this outer source."""
    address = Address.parse_sip(source)
    found = [
        (str(ip.src), sip) for ip, sip in _datagrams(capture) if sip.src == address and sip.payload_type == Protocol.TCP
    ]
    other = PseudoHeader.FULL if rule is PseudoHeader.COMPATIBLE else PseudoHeader.COMPATIBLE
    ok = bool(found) and all(_fits(rule, sip) and not _fits(other, sip) for _, sip in found)
    ends = {outer for outer, _ in found}
    return Check(
        f"H: TCP checksums of {source} are {rule.name.lower()} ones",
        ok and ends == {outer},
        f"{len(found)} segments in datagrams from {ends}",
    )


def _fits(rule: PseudoHeader, view: SipView) -> bool:
    return fits(rule, src=view.src, dst=view.dst, payload_type=Protocol.TCP, octets=bytes(view.payload))


def _to_r(lab: Lab, setting: Setting) -> None:
    """IPv4 addresses mean something only within their site; two sites use 10.0.0.0/8 (seed IPAE 8.3)."""
    for site in (B, C):
        lab[site.border].run("ip", "address", "add", f"{TEN_BORDER}/8", "dev", "lan0")
    _write_tables(lab, "R")
    _up(lab, setting, "R")
    _publish(lab, "R")
    for router, sites in BEHIND.items():
        for site in sites:
            lab[router].run("ip", "route", "del", *fallback(site).split())
    for site in (B, C):
        lab[site.border].run("ip", "route", "del", *peer_route(site)[0].split())


def _at_r(lab: Lab, talks: Sequence[Connection]) -> Iterator[Check]:
    """Equal IPv4 addresses are no matter to SIP; IPv4-only hosts have their site, and aliases (seed IPAE 8.3)."""
    for each in talks:
        yield each.goes_on("at R")
    peers = [each.peer[:2] for each in talks[1:3]]
    wanted = [(known_as(each, NEW_A), _SAME_PORT) for each in (TEN_B, TEN_C)]
    yield Check("R: new-a talks to two hosts 10.0.0.7 from one port at once", peers == wanted, str(peers))
    yield _refused(lab)
    yield check_ping(lab["old-a"], "192.3.4.7", "R: IPv4 host within its site")
    yield check_ping(lab["old-b"], TEN, "R: IPv4 host to the other network of its site", ttl=63)
    yield from _aliases(lab, "R", "ten-b", "ten-c")
    yield _links(lab, talks, "R: IPAE everywhere", {"lan": "IPAE", "peer": "IPAE", "backbone": "IPAE"})


def _refused(lab: Lab) -> Check:
    """An IPv4-only host is told that there is nothing beyond its site, and what may not be answered is counted."""

    def counted() -> int:
        return int(lab[A.border].isthmus("counters")["UNMAPPED"])

    before = counted()
    done = lab["old-a"].run("ping", "-n", "-c", "1", "-W", "1", "-s", "3000", OLD_B, check=False)
    wait_until(lambda: counted() >= before + 2, 5)
    unmapped = counted() - before
    ok = "Destination Net Unknown" in done.stdout and unmapped == 2
    detail = f"a ping in three fragments: ICMP 3/6 for the first, {unmapped} UNMAPPED for the others"
    return Check("R: border-a refuses what old-a sends to other sites", ok, detail)


def _aliases(lab: Lab, when: str, *names: str) -> Iterator[Check]:
    """An IPv4-only host reaches hosts of other sites by name: an alias stands for each (spec 8.3)."""
    server = lab["old-a"]
    told = {name: stock.look_up(server, A.inside, f"{name}.example")["A"] for name in names}
    ok = all(len(each) == 1 and each[0].startswith("100.") for each in told.values())
    yield Check(f"{when}: names are aliases to old-a", ok, str(told))
    yield _by_name(lab, when, "old-a", names[-1])


def _to_s(lab: Lab, setting: Setting) -> None:
    """Site c speaks SIP and nothing else, inside and with its neighbour b (seed IPAE 8.4)."""
    for name in ("new-c", "ten-c", C.border):
        lab[name].run("ip", "address", "flush", "dev", "lan0")
    # By which ARP finds the border router; it is in no network.
    lab[C.border].run("ip", "address", "add", f"{C.inside}/32", "dev", "lan0")
    _up(lab, setting, "S")


def _at_s(lab: Lab, talks: Sequence[Connection]) -> Iterator[Check]:
    """No IPv4 is left in site c, and everybody reaches it (seed IPAE 8.4)."""
    yield _links(lab, talks, "S: no IPv4 in site c", {"lan": "SIP", "peer": "SIP", "backbone": "IPAE"})
    yield from _aliases(lab, "S", "new-c", "ten-c")
    yield check_tcp(lab["ten-c"], known_as(NEW_C, TEN_C), "S: within site c")
    yield check_tcp(lab["ten-b"], known_as(TEN_C, TEN_B), "S: site b to site c")
    yield check_tcp(lab["ten-c"], known_as(NEW_A, TEN_C), "S: site c to site a")


def _links(lab: Lab, talks: Sequence[Connection], name: str, expected: Mapping[str, str]) -> Check:
    """In what form packets are on the links of border-c, while connections go on."""
    places = {"lan": "lan0", "peer": "peer0", "backbone": "net0"}
    with contextlib.ExitStack() as open_:
        captures = {
            place: open_.enter_context(capturing(lab[C.border], interface)) for place, interface in places.items()
        }
        ok = all(each.goes_on("").ok for each in talks)
        wait_until(lambda: all(each.packets for each in captures.values()), 3)
    seen = {place: _forms(each) for place, each in captures.items()}
    ok = ok and seen == {place: {form} for place, form in expected.items()}
    return Check(name, ok, str(seen))


def _forms(capture: Capture, end: str | None = None) -> set[str]:
    """What packets are: SIP, IPAE or IPv4; all of them, or those from or to an IPv4 address or the like in SIP."""
    found = set()
    for each in capture.packets:
        octets, form = each.octets, "IPv4"
        if octets[0] >> 4 == 6 or octets[9] == PROTOCOL:
            form = "SIP" if octets[0] >> 4 == 6 else "IPAE"
            view = SipView.parse(octets if form == "SIP" else octets[20:])
            ends = {str(view.src.low), str(view.dst.low)}
        else:
            ip = Ipv4View.parse(octets)
            ends = {str(ip.src), str(ip.dst)}
        if end is None or end in ends:
            found.add(form)
    return found


def _datagrams(capture: Capture) -> list[tuple[Ipv4View, SipView]]:
    """The IPAE datagrams of a capture: outer and inner header."""
    views = [Ipv4View.parse(each.octets) for each in capture.packets if each.octets[0] >> 4 == 4]
    return [(view, SipView.parse(view.payload)) for view in views if view.protocol == PROTOCOL]


SCENARIO = Scenario(
    name=NAME,
    title="One network goes through the milestones I, H, R and S while connections and pings last",
    shows=("seed IPAE 8.1", "seed IPAE 8.2", "seed IPAE 8.3", "seed IPAE 8.4"),
    network=network(NAME),
    start=start,
    play=play,
    root=True,
)
