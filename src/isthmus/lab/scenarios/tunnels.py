# SPDX-License-Identifier: BSD-3-Clause
"""Every kind of tunnel at once: IP-IP, GRE, GRE with checksums, IPv4 in IPv6; and one that ends elsewhere.

::

    host-a 10.0.0.4      IP-IP  ─┐
    host-b 10.0.0.5      GRE    ─┤
    host-c 2001:db8::6   IPv6   ─┤        ┌─ gateway 10.0.0.1, 2001:db8::1 ─ 149.112.240.55 ─┐
                                 lan ─────┤                                                  ├─ server
    host-d 10.0.0.7      IP-IP  ─┘        ├─ control 10.0.0.2, which leases                  │
                                          └─ endpoint 10.0.0.3, which forwards ─ .240.56 ────┘
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from isthmus.lab import figure
from isthmus.lab.capture import IPV4, IPV6, Capture, capturing
from isthmus.lab.lab import Lab
from isthmus.lab.node import ISTHMUS, wait_until
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.scenarios import two_hosts
from isthmus.lab.topology import OPEN_FORWARDING, LabError, Network, NodePlan, wire
from isthmus.wire.transport import Protocol

NAME = "tunnels"
CONTROL, ENDPOINT, SECOND = "10.0.0.2", "10.0.0.3", "149.112.240.56"
_IPV6_ON = {"net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.default.disable_ipv6": "0"}
_HOSTS = {"host-a": "10.0.0.4", "host-b": "10.0.0.5", "host-c": "2001:db8::6", "host-d": "10.0.0.7"}
_MTU = {"host-a": 1480, "host-b": 1476, "host-c": 1460, "host-d": 1480}
"""1500 octets of the near realm less 20, 20 + 4 (only what the gateway sends has checksums), 40, 20."""


def network() -> Network:
    """One segment, four hosts, two ways out."""
    router = OPEN_FORWARDING | {"net.ipv4.ip_forward": "1"} | _IPV6_ON
    nodes = (
        NodePlan(name="gateway", routes=(f"{figure.FAR} dev wan0 src {figure.SHARED}",), sysctls=router),
        NodePlan(name="control", sysctls=OPEN_FORWARDING),
        NodePlan(name="endpoint", routes=(f"{figure.FAR} dev wan0 src {SECOND}",), sysctls=router),
        NodePlan(name="server", routes=(f"{figure.SHARED} dev eth0", f"{SECOND} dev eth1")),
        NodePlan(name="lan", segment=True),
        *(NodePlan(name=host, sysctls=OPEN_FORWARDING | _IPV6_ON) for host in _HOSTS),
    )
    cables = (
        wire(
            ("gateway", "lan0", f"{figure.GATEWAY_NEAR}/24", f"{figure.GATEWAY_NEAR6}/64 nodad"),
            ("lan", "gateway"),
        ),
        wire(("gateway", "wan0", f"{figure.SHARED}/32"), ("server", "eth0", f"{figure.SERVER}/24")),
        wire(("control", "lan0", f"{CONTROL}/24"), ("lan", "control")),
        wire(("endpoint", "lan0", f"{ENDPOINT}/24"), ("lan", "endpoint")),
        wire(("endpoint", "wan0", f"{SECOND}/32"), ("server", "eth1")),
        *(wire((host, "eth0", _with_length(address)), ("lan", host)) for host, address in _HOSTS.items()),
    )
    return Network(name=NAME, nodes=nodes, cables=cables)


def _with_length(address: str) -> str:
    return f"{address}/64 nodad" if ":" in address else f"{address}/24"


def start(lab: Lab, setting: Setting) -> None:
    """Start what forwards before what leases, and what leases before who asks."""
    two_hosts.start_server(lab)
    both = f'address = ["{figure.GATEWAY_NEAR}", "{figure.GATEWAY_NEAR6}"]\ngre_checksum = true'
    text = figure.gateway_configuration(lab, setting)
    lab["gateway"].up(text.replace(f'address = "{figure.GATEWAY_NEAR}"', both))
    lab["endpoint"].up(_endpoint(lab, setting))
    lab["control"].up(_control(lab))
    gateways = {"host-c": figure.GATEWAY_NEAR6, "host-d": CONTROL}
    for host in _HOSTS:
        text = figure.host_configuration(lab, setting, host)
        line = f'gateway = "{gateways.get(host, figure.GATEWAY_NEAR)}"'
        kind = '\ntunnel_type = "gre"' if host == "host-b" else ""
        lab[host].up(text.replace(f'gateway = "{figure.GATEWAY_NEAR}"', line + kind))
    for host in _HOSTS:
        if not wait_until(lambda: two_hosts.holds_lease(lab, host), 10, every=0.1):  # noqa: B023 - called at once
            raise LabError(f"{host} got no lease within 10 seconds")


def _endpoint(lab: Lab, setting: Setting) -> str:
    return f"""\
[isthmus]
name = "endpoint"
run = "{lab["endpoint"].run_directory}"
plane = "{setting.plane}"

[[realm]]
name = "private"
interface = "lan0"

[[realm]]
name = "public"
interface = "wan0"

[endpoint]
"""


def _control(lab: Lab) -> str:
    node = lab["control"]
    return f"""\
[isthmus]
name = "control"
run = "{node.run_directory}"
state = "{node.directory / "leases.db"}"

[[realm]]
name = "private"
interface = "lan0"

[[realm]]
name = "public"
interface = "lo"

[gateway]
near = "private"
realm = "public"
address = "{CONTROL}"
tunnel_address = "{ENDPOINT}"
endpoint = "{lab["endpoint"].socket_path}"

[[gateway.pool]]
address = "{SECOND}"
ports = "10000-19999"
"""


_TRANSFER = 200_000


def play(lab: Lab, _setting: Setting) -> Iterator[Check]:
    """Fetch through each tunnel, and look at what it is made of."""
    kinds = {
        "host-a": ("IP-IP", lambda octets: _ipv4(octets, Protocol.IPIP)),
        "host-b": ("GRE with checksums", _is_gre),
        "host-c": ("IPv4 in IPv6", lambda octets: octets[0] >> 4 == 6 and octets[6] == Protocol.IPIP),
        "host-d": ("IP-IP to an endpoint elsewhere", lambda octets: _ipv4(octets, Protocol.IPIP)),
    }
    for host, (name, fits) in kinds.items():
        with capturing(lab["lan"], host, ethertypes=(IPV4, IPV6)) as near:
            done = lab[host].run(
                "curl", "--silent", "--show-error", "--max-time", "10", "--output", "/dev/null", "--write-out",
                "%{size_download} %{local_ip}", f"http://{figure.SERVER}/octets/{_TRANSFER}", check=False,
            )  # fmt: skip
        ok = done.returncode == 0 and done.stdout.split()[0] == str(_TRANSFER)
        yield Check(f"{name}: {host} fetches {_TRANSFER} octets", ok, (done.stdout or done.stderr).strip())
        yield _all_in_tunnel(f"{name}: nothing else carries it", near, fits)
        yield _fits(lab, host, near)
    yield from _who_forwards(lab)
    yield _ipv6_only(lab)


def _ipv4(octets: bytes, protocol: int) -> bool:
    return octets[0] >> 4 == 4 and octets[9] == protocol


def _is_gre(octets: bytes) -> bool:
    return _ipv4(octets, Protocol.GRE) and octets[22:24] == b"\x08\x00"


def _all_in_tunnel(name: str, near: Capture, fits: object) -> Check:
    tunnelled = [packet.octets for packet in near.packets if fits(packet.octets)]  # type: ignore[operator]
    control = [packet.octets for packet in near.packets if _is_control(packet.octets)]
    others = len(near.packets) - len(tunnelled) - len(control)
    return Check(
        name, len(tunnelled) > 100 and not others, f"{len(tunnelled)} packets in the tunnel, {others} outside of it"
    )


def _is_control(octets: bytes) -> bool:
    """RSIP itself, and what IPv6 says about neighbours."""
    if octets[0] >> 4 == 6:
        return octets[6] in {58, 0} or figure.CONTROL_PORT.to_bytes(2, "big") in (octets[40:42], octets[42:44])
    return octets[9] == Protocol.UDP and figure.CONTROL_PORT.to_bytes(2, "big") in (octets[20:22], octets[22:24])


def _fits(lab: Lab, host: str, near: Capture) -> Check:
    """Device, route and MSS follow from the tunnel: full segments fill the link and nothing is too large."""
    link = json.loads(lab[host].run("ip", "-json", "link", "show", "rsip0").stdout)[0]
    largest = max((len(packet.octets) for packet in near.packets), default=0)
    ok = link["mtu"] == _MTU[host] and 1490 <= largest <= 1500
    return Check(
        f"{host}: the tunnel's MTU fills the link", ok, f"MTU {link['mtu']}, largest packet on the link {largest}"
    )


def _who_forwards(lab: Lab) -> Iterator[Check]:
    leases = lab["control"].isthmus("leases")
    ok = len(leases) == 1 and leases[0]["address"] == SECOND
    yield Check(
        "the gateway that leases does not forward", ok, f"{leases[0]['host']} holds {SECOND}" if leases else "no lease"
    )
    counters = lab["endpoint"].isthmus("counters")
    yield Check("the endpoint that forwards does not lease", *two_hosts.forwarded(counters))
    lab["control"].run(*ISTHMUS, "revoke", _HOSTS["host-d"], "--socket", str(lab["control"].socket_path))
    before = counters.get("UNREGISTERED", 0)
    _tunnel_again(lab)
    wait_until(lambda: lab["endpoint"].isthmus("counters").get("UNREGISTERED", 0) > before, 3, every=0.2)
    after = lab["endpoint"].isthmus("counters").get("UNREGISTERED", 0)
    yield Check(
        "what the one revokes the other forwards no longer", after > before, f"UNREGISTERED counted {after - before}"
    )


def _tunnel_again(lab: Lab) -> None:
    empty = bytes.fromhex("45000014000040004011") + bytes(10)
    lab["host-d"].send_raw(Protocol.IPIP, ENDPOINT, empty)


def _ipv6_only(lab: Lab) -> Check:
    """host-c has no IPv4 address but the leased one: control and tunnel are IPv6 (seed RSIP 4.3)."""
    rows = json.loads(lab["host-c"].run("ip", "-json", "-4", "address", "show").stdout)
    own = {each["local"] for row in rows for each in row["addr_info"]} - {"127.0.0.1", figure.SHARED}
    return Check(
        "host-c lives on IPv6 alone", not own, f"IPv4 addresses beside the leased one: {', '.join(own) or 'none'}"
    )


SCENARIO = Scenario(
    name=NAME,
    title="IP-IP, GRE and IPv4 in IPv6 at one gateway, and a tunnel that ends at another machine",
    shows=("RFC 3103 8.6", "RFC 3103 9.7.3", "RFC 2003 3.1", "RFC 2784 2.5", "RFC 2473 3", "seed RSIP 4.3"),
    network=network(),
    start=start,
    play=play,
    root=True,
)
