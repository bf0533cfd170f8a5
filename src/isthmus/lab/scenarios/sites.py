# SPDX-License-Identifier: BSD-3-Clause
"""Two sites that both use 10.0.0.0/8, told apart by name (seed RSIP 4.2).

::

    host-a 10.0.0.4 ──┐                                        ┌── host-b 10.0.0.4
                   site-a ── 10.0.0.1 gateway 10.0.0.55 ── site-b
    srv-a 10.0.0.7 ───┘                                        └── srv-b 10.0.0.7

The gateway leases an address of site B to the hosts of site A. What a name of site B means is found out there:
a program that is to talk to it runs where 10.0.0.0/8 is the other site's (``isthmus run``), also for its DNS.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

from isthmus.lab import edge, stock
from isthmus.lab.capture import capturing
from isthmus.lab.edge import Carried, cable, end
from isthmus.lab.lab import Lab
from isthmus.lab.node import ISTHMUS, wait_until
from isthmus.lab.privilege import missing_tools
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.stock import by_name
from isthmus.lab.topology import OPEN_FORWARDING, LabError, Network, NodePlan
from isthmus.lab.web import read_log

NAME = "sites"
HOST, SERVER, NAMES = "10.0.0.4", "10.0.0.7", "10.0.0.53"
"""Each of them is there twice."""
GATEWAY, LEASED = "10.0.0.1", "10.0.0.55"
OF_A, OF_B = "srv.site-a.example", "srv.site-b.example"
_BOTH = "10.0.0.0/8"
_SERVERS = ("srv-a", "srv-b")
_TABLE = "100"
"""Routes of site B."""


def network() -> Network:
    """Both sites, and a gateway that keeps their routes apart."""
    apart = {"net.ipv4.ip_forward": "1", "net.ipv4.conf.all.arp_ignore": "1"}
    nodes = (
        NodePlan(
            name="gateway",
            routes=(f"{_BOTH} dev wan0 src {LEASED} table {_TABLE}",),
            sysctls=OPEN_FORWARDING | apart,
        ),
        NodePlan(name="site-a", segment=True),
        NodePlan(name="site-b", segment=True),
        NodePlan(name="host-a", sysctls=OPEN_FORWARDING),
        *(NodePlan(name=name) for name in ("srv-a", "host-b", "srv-b")),
    )
    cables = [
        cable(end("gateway", "lan0", f"{GATEWAY}/8"), end("site-a", "gateway")),
        cable(end("gateway", "wan0", f"{LEASED}/32"), end("site-b", "gateway")),
    ]
    for site in ("a", "b"):
        cables.append(cable(end(f"host-{site}", "eth0", f"{HOST}/8"), end(f"site-{site}", "host")))
        server = end(f"srv-{site}", "eth0", f"{SERVER}/8", f"{NAMES}/8")
        cables.append(cable(server, end(f"site-{site}", "server")))
    return Network(name=NAME, nodes=nodes, cables=tuple(cables))


def start(lab: Lab, setting: Setting) -> None:
    """Start both servers and both DNS, the gateway, and a host that holds nothing yet."""
    if missing := missing_tools(*stock.PACKAGES):
        raise LabError(missing)
    for server in _SERVERS:
        stock.start_web(lab[server], ipv6=False)
    # Site A has heard of the name, too: its address alone would lead to the wrong machine.
    stock.start_names(lab["srv-a"], NAMES, {OF_A: (SERVER,), OF_B: (SERVER,)})
    stock.start_names(lab["srv-b"], NAMES, {OF_B: (SERVER,)})
    gateway = lab["gateway"]
    # Nothing but a leased address says for which of the two sites a packet leaves.
    gateway.run("ip", "rule", "add", "from", LEASED, "lookup", _TABLE)
    gateway.up(_gateway(lab, setting))
    lab["host-a"].up(_host(lab, setting))


def _gateway(lab: Lab, setting: Setting) -> str:
    node = lab["gateway"]
    return f"""\
[isthmus]
name = "gateway"
run = "{node.run_directory}"
state = "{node.directory / "leases.db"}"
plane = "{setting.plane}"

[[realm]]
name = "site-a"
interface = "lan0"

[[realm]]
name = "site-b"
interface = "wan0"

[gateway]
near = "site-a"
realm = "site-b"
address = "{GATEWAY}"

[gateway.query]
local = ["{_BOTH}"]
local_names = ["site-a.example"]
remote_names = ["site-b.example"]

[[gateway.pool]]
address = "{LEASED}"
ports = "10000-19999"
"""


def _host(lab: Lab, setting: Setting) -> str:
    return f"""\
[isthmus]
name = "host-a"
run = "{lab["host-a"].run_directory}"
plane = "{setting.plane}"

[[realm]]
name = "site-a"
interface = "eth0"

[host]
near = "site-a"
gateway = "{GATEWAY}"
"""


def play(lab: Lab, _setting: Setting) -> Iterator[Check]:
    """Ask by name; go where the answer says; then to both at once."""
    where = _ask(lab)
    yield from _asked(where)
    yield from _by_address_alone(lab)
    for name, server in ((OF_A, "srv-a"), (OF_B, "srv-b")):
        yield from _reach(lab, name, server, local=where.get(name, True))
    yield from _both_at_once(lab)
    yield from _echoes(lab)
    yield _given_back(lab)


def _ask(lab: Lab) -> dict[str, bool]:
    """What the gateway says is local."""
    found = lab["host-a"].isthmus("query", OF_A, OF_B, SERVER)
    return {str(row["what"]): bool(row["local"]) for row in found["asked"]}


def _asked(where: dict[str, bool]) -> Iterator[Check]:
    text = ", ".join(f"{what}: {'local' if local else 'remote'}" for what, local in where.items())
    yield Check(f"{OF_A} is local", where.get(OF_A) is True, text)
    yield Check(f"{OF_B} is remote, though its address looks local", where.get(OF_B) is False, text)
    yield Check(f"the address {SERVER} alone tells nothing: it is local, too", where.get(SERVER) is True, text)


def _seen(lab: Lab, server: str) -> list[dict[str, Any]]:
    return read_log(stock.requests_of(lab[server]))


def _by_address_alone(lab: Lab) -> Iterator[Check]:
    """Who does not ask gets the neighbour that has the same address."""
    found = stock.look_up(lab["host-a"], NAMES, OF_B)["A"]
    by_name(lab["host-a"], NAMES, *stock.fetch(f"http://{OF_B}/unasked"))
    misled = any(row["path"] == "/unasked" for row in _seen(lab, "srv-a"))
    text = f"{OF_B} is {', '.join(found)}, where {'srv-a' if misled else 'nobody'} answers"
    yield Check("without asking, the name of the other site leads to the wrong server", misled, text)


def _through(lab: Lab, *command: str) -> list[str]:
    """Run a program in the other site, its DNS included."""
    return [*ISTHMUS, "run", "--socket", str(lab["host-a"].socket_path), "--dns", NAMES, "--", *command]


def _reach(lab: Lab, name: str, server: str, *, local: bool) -> Iterator[Check]:
    """Fetch a page as the answer of the gateway says."""
    page = stock.fetch(f"http://{name}/{name}")
    with capturing(lab["site-a"], "host") as near:
        done = by_name(lab["host-a"], NAMES, *(page if local else _through(lab, *page)))
    seen = [(each, row["peer"]) for each in _SERVERS for row in _seen(lab, each) if row["path"] == f"/{name}"]
    peer = HOST if local else LEASED
    ok = done.returncode == 0 and done.stdout.startswith(f"You are {peer} ") and seen == [(server, peer)]
    way = "directly" if local else "by a lease"
    text = "; ".join(f"{each} saw {whom}" for each, whom in seen) or stock.words(done)
    yield Check(f"{name} is reached {way}", ok, text)
    counted = edge.tally(near.packets)
    kind = Carried.IPV4 if local else Carried.IPV4_IN_IPV4
    yield Check(f"in site A it goes as {kind}", edge.payload(counted) == {kind}, edge.told(counted))


def _both_at_once(lab: Lab) -> Iterator[Check]:
    """While host-a is served by the one 10.0.0.7 it is served by the other, and so is the other 10.0.0.4."""
    running = subprocess.Popen(
        lab["host-a"].command(*_through(lab, *stock.fetch(f"http://{OF_B}/both/seconds/4"))),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_until(lambda: any(row["path"] == "/both/seconds/4" for row in _seen(lab, "srv-b")), 15)
        own = by_name(lab["host-a"], NAMES, *stock.fetch(f"http://{OF_A}/both"))
        twin = by_name(lab["host-b"], NAMES, *stock.fetch(f"http://{OF_B}/both"))
        meanwhile = running.poll() is None
        said, _ = running.communicate(timeout=20)
    finally:
        running.terminate()
        running.wait(10)
    ok = meanwhile and running.returncode == 0 and f"You are {LEASED} " in said and own.returncode == 0
    yield Check(f"{SERVER} and {SERVER} at once, one of each site", ok, f"{stock.words(own)} {said.strip()}")
    for server, expected in (("srv-a", [HOST]), ("srv-b", [LEASED, HOST])):
        peers = [row["peer"] for row in _seen(lab, server) if row["path"].startswith("/both")]
        ok = peers == expected and twin.returncode == 0
        yield Check(f"{server} saw who it was", ok, f"{', '.join(peers) or 'nobody'}")


def _echoes(lab: Lab) -> Iterator[Check]:
    """The two machines of one address are as far away as they are; and the two 10.0.0.4 meet."""
    ping = ("ping", "-n", "-c", "1", "-W", "3")
    for name, command, ttl in (
        (f"{SERVER} of site A", [*ping, SERVER], 64),
        (f"{SERVER} of site B", _through(lab, *ping, SERVER), 63),
        (f"{HOST} of site B, which has the address of who asks", _through(lab, *ping, HOST), 63),
    ):
        done = lab["host-a"].run(*command, check=False)
        answer = next((line for line in done.stdout.splitlines() if "ttl=" in line), stock.words(done))
        yield Check(f"ping to {name}", f"ttl={ttl} " in answer, answer)


def _given_back(lab: Lab) -> Check:
    gone = wait_until(lambda: not lab["gateway"].isthmus("leases"), 5, every=0.3)
    return Check("what was leased is given back", gone, "nothing is held" if gone else "something is still held")


SCENARIO = Scenario(
    name=NAME,
    title="Two sites that both use 10.0.0.0/8, told apart by name, and used both at once",
    shows=("seed RSIP 4.2", "RFC 3103 9.14", "RFC 3103 9.15", "RFC 3102 4"),
    network=network(),
    start=start,
    play=play,
    root=True,
)
