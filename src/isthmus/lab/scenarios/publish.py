# SPDX-License-Identifier: BSD-3-Clause
"""A server at home: LISTEN, true client addresses, revoking, expiry, and who it was (RFC 3103 §9.5, §9.13, §9.16)."""

from __future__ import annotations

import time
from collections.abc import Iterator

from isthmus.lab import figure
from isthmus.lab.lab import Lab
from isthmus.lab.node import ISTHMUS, Daemon, wait_until
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.scenarios.paths import said

NAME = "publish"
HOST, OTHER = "host-a", "host-b"
PUBLIC, LOCAL = 443, 8443
_LEASE_SECONDS = 6

_PAGE = """\
import http.server, sys
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{sys.argv[2]} saw {self.client_address[0]} port {self.client_address[1]}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("", int(sys.argv[1])), Page)
print("ready", flush=True)
server.serve_forever()
"""


def start(lab: Lab, setting: Setting) -> None:
    """Start a gateway that leases ports of any number, two hosts without a lease, and a web server on each."""
    text = figure.gateway_configuration(lab, setting)
    lab["gateway"].up(text.replace('ports = "10000-19999"', 'ports = "80,443,10000-19999"') + _LEASE)
    for host in (HOST, OTHER):
        lab[host].up(figure.host_configuration(lab, setting, host, lease=False))
        lab[host].start("page", ISTHMUS[0], "-c", _PAGE, str(LOCAL), host, ready="ready")


_LEASE = f"\n[gateway.lease]\nminimum = 2\ndefault = {_LEASE_SECONDS}\nmaximum = {_LEASE_SECONDS}\n"


def play(lab: Lab, _setting: Setting) -> Iterator[Check]:
    """Publish, call, outlive the lease, be refused, be revoked, ask who it was."""
    exposing = expose(lab, HOST, str(LOCAL), "--public", str(PUBLIC))
    yield Check("a local service is published", f"{figure.SHARED}:{PUBLIC}" in exposing.tail(), exposing.tail().strip())
    yield _called("a peer that nobody has written to gets the page, and is seen by its own address", lab, HOST)
    yield _same_port(lab)
    yield _denied(lab)
    time.sleep(_LEASE_SECONDS + 1)
    yield _called(f"after {_LEASE_SECONDS + 1} seconds a lease of {_LEASE_SECONDS} has renewed itself", lab, HOST)
    yield from _revoked(lab, exposing)
    yield from _given_back(lab, exposing)


def expose(lab: Lab, host: str, *words: str) -> Daemon:
    """Run ``isthmus expose`` until the lab ends it."""
    command = (*ISTHMUS, "expose", *words, "--socket", str(lab[host].socket_path))
    return lab[host].start("expose", *command, ready=f"{figure.SHARED}:", seconds=20)


def call(lab: Lab, port: int = PUBLIC) -> str:
    """Fetch the page from outside."""
    words = ("curl", "--silent", "--show-error", "--max-time", "5", f"http://{figure.SHARED}:{port}/")
    done = lab["server"].run(*words, check=False)
    return (done.stdout or done.stderr).strip()


def _called(name: str, lab: Lab, host: str) -> Check:
    page = call(lab)
    return Check(name, page.startswith(f"{host} saw {figure.SERVER} port"), page)


def _same_port(lab: Lab) -> Check:
    """Any public port: then it need not be known beforehand."""
    exposing = lab[OTHER].start(
        "expose-any", *ISTHMUS, "expose", str(LOCAL), "--socket", str(lab[OTHER].socket_path), ready=f"{figure.SHARED}:"
    )
    port = int(exposing.tail().split(f"{figure.SHARED}:")[1].split()[0])
    page = call(lab, port)
    exposing.stop()
    return Check(
        "another host publishes its own beside it",
        page.startswith(f"{OTHER} saw {figure.SERVER}"),
        f"port {port}: {page}",
    )


def _denied(lab: Lab) -> Check:
    """RFC 3102 §6.4: a port that another host listens on is not to be had."""
    words = (*ISTHMUS, "expose", str(LOCAL), "--public", str(PUBLIC), "--socket", str(lab[OTHER].socket_path))
    done = lab[OTHER].run(*words, check=False, seconds=20)
    return Check(
        "a published port is not to be had by another host: error 311",
        done.returncode != 0 and "311" in done.stderr,
        said(done),
    )


def _revoked(lab: Lab, exposing: Daemon) -> Iterator[Check]:
    """The operator takes it back; the host hears of it, and asks again: for the same, which rests."""
    gateway = lab["gateway"]
    done = gateway.run(
        *ISTHMUS, "revoke", f"{figure.SHARED}:{PUBLIC}", "--socket", str(gateway.socket_path), check=False
    )
    held = [row for row in gateway.isthmus("leases") if row["host"] == figure.HOSTS[HOST]]
    yield Check("isthmus revoke ends the lease", done.returncode == 0 and not held, said(done))
    page = call(lab)
    yield Check("and nobody gets through any more", not page.startswith(HOST), page)
    heard = wait_until(lambda: "evoked" in lab[HOST].daemons["isthmus"].tail() + exposing.tail(), 5)
    yield Check("the host has been told (FREE_RESPONSE unasked)", heard, exposing.tail().strip().splitlines()[-1])


def _given_back(lab: Lab, exposing: Daemon) -> Iterator[Check]:
    exposing.stop()
    rows = lab["gateway"].run(
        *ISTHMUS, "who-had", f"{figure.SHARED}:{PUBLIC}", "--socket", str(lab["gateway"].socket_path), check=False
    )
    yield Check(
        "who had the port can be asked afterwards",
        figure.HOSTS[HOST] in rows.stdout and "revoked" in rows.stdout,
        said(rows),
    )


SCENARIO = Scenario(
    name=NAME,
    title="A service behind the gateway is published, sees true addresses, renews itself, and can be revoked",
    shows=("RFC 3103 9.16", "RFC 3103 9.17", "RFC 3103 9.10", "RFC 3103 9.13", "RFC 3102 6.4", "seed RSIP 3.3"),
    network=figure.network(NAME),
    start=start,
    play=play,
    root=True,
)
