# SPDX-License-Identifier: BSD-3-Clause
"""``isthmus doctor``: what this machine can do, and what to do about the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isthmus.cli import output, probe, probe_programs
from isthmus.cli.finding import Finding, Status, missing, ok, warn

if TYPE_CHECKING:
    from isthmus.daemon.config import Config, GatewaySection

KERNEL_NEEDS = ("kernel", "CAP_NET_ADMIN", "libbpf", "objects", "veth", "clsact", "programs")
REFERENCE_NEEDS = ("CAP_NET_ADMIN", "CAP_NET_RAW", "packet-socket", "veth")
_IPIP_OCTETS = 20
_IPV4 = 4


@output.plain_errors
def doctor(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="Look also at what this configuration needs.")
    ] = None,
    *,
    as_json: output.Json = False,
) -> None:
    """Find out what this machine can do, and say what to do about the rest.

    Devices and eBPF programs are really made and loaded, in a network namespace of their own
    that is gone at the end: nothing of the machine is changed. Every line is OK, WARN (works
    without, or works worse) or MISSING. The last lines say which planes can run here; the
    exit status is 1 if none can, or if something is MISSING that CONFIG needs. What is printed
    is fit for a bug report.
    """
    loaded = _load(config)
    found = list(settings(loaded))
    budgets = probe_programs.budgets()
    findings = [*machine(), *probe_programs.spent(budgets), *found]
    planes = verdict(findings)
    unmet = loaded is not None and any(each.status is Status.MISSING for each in found)
    if as_json:
        listed = [asdict(each) for each in findings]
        works = {each.name.removeprefix("plane "): each.status is not Status.MISSING for each in planes}
        programs = [asdict(each) for each in budgets]
        fine = not unmet and any(works.values())
        output.print_json({"findings": listed, "programs": programs, "planes": works, "ok": fine})
    else:
        for each in (*findings, *planes):
            typer.echo(line(each))
    if unmet or all(each.status is Status.MISSING for each in planes):
        raise typer.Exit(1)


def machine() -> Iterator[Finding]:
    """Everything that does not depend on a configuration."""
    yield from probe.kernel()
    yield from probe.privileges()
    yield from probe.bpf_files()
    yield probe.programs()
    yield probe.user_namespaces()
    yield probe.guests()
    yield from probe.namespace()
    yield from probe.clocks()
    yield probe.forwarding()


def settings(config: Config | None) -> Iterator[Finding]:
    """The interfaces: those that a configuration names, or else all."""
    named = [each.interface for each in config.realm] if config is not None else probe.interfaces()
    wanted = {each.interface for each in config.realm if each.xdp} if config is not None else set()
    for interface in named:
        size = probe.mtu(interface)
        if size is None:
            there = ", ".join(probe.interfaces()) or "none"
            yield missing(
                f"interface {interface}", "is not there", f"this machine has {there}: correct [[realm]] interface"
            )
            continue
        yield probe.reverse_path(interface)
        offload = probe.offload(interface)
        if offload is not None:
            yield offload
        yield _tunnel_mtu(interface, size, config)
        can = probe_programs.xdp(interface, wanted=interface in wanted)
        if can is not None:
            yield can
    if config is not None and config.gateway is not None:
        yield from _gateway_addresses(config.gateway)
        yield from _beside(config)
    if config is not None and (config.border is not None or config.node is not None):
        from isthmus.cli import probe_sip

        yield from probe_sip.findings(config)


def verdict(findings: list[Finding]) -> tuple[Finding, Finding]:
    """Which planes can run here."""
    bad = {each.name: each for each in findings if each.status is Status.MISSING}
    names = {each.name for each in findings if each.status is Status.OK}
    lacks = [name for name in KERNEL_NEEDS if name in bad or (name in _TRIED and name not in names)]
    lacks += [] if "CAP_SYS_ADMIN" in names else [each for each in ("CAP_BPF", "CAP_PERFMON") if each not in names]
    kernel = (
        missing("plane kernel", f"lacks {', '.join(lacks)}", 'see those lines; plane = "auto" takes the other one')
        if lacks
        else ok("plane kernel", "can run: eBPF at TC, packets flow on while the daemon is dead")
    )
    lacks = [name for name in REFERENCE_NEEDS if name in bad or (name in _TRIED and name not in names)]
    if not lacks:
        reference = ok("plane reference", "can run: Python, slow, for the lab and as the other's slow path")
    elif "user-namespaces" in names and not {"veth", "packet-socket"} & set(lacks):
        remedy = "on the machine's own interfaces it needs root"
        reference = warn("plane reference", "can run in the lab, inside a user namespace", remedy)
    else:
        reference = missing("plane reference", f"lacks {', '.join(lacks)}", "see those lines")
    return kernel, reference


_TRIED = frozenset({"veth", "clsact", "packet-socket"})
"""What is known only if the namespace could be made; without a line it counts as missing."""


def line(finding: Finding) -> str:
    """One finding as text, with its remedy below."""
    text = f"{finding.status:<8}{finding.name:<22}{finding.detail}"
    return f"{text}\n{'':30}→ {finding.remedy}" if finding.remedy else text


def _load(path: Path | None) -> Config | None:
    if path is None:
        return None
    from isthmus.daemon.config import load

    return load(path)


def _tunnel_mtu(interface: str, size: int, config: Config | None) -> Finding:
    name = f"mtu {interface}"
    if config is None or config.gateway is None:
        return ok(name, f"{size}: an IP-in-IP tunnel over it carries {size - _IPIP_OCTETS}")
    near = next(each.interface for each in config.realm if each.name == config.gateway.near)
    wanted = config.gateway.tunnel_mtu
    if interface != near:
        return ok(name, f"{size}")
    if wanted is None:
        return ok(name, f"{size}: an IP-in-IP tunnel over it carries {size - _IPIP_OCTETS}, over IPv6 {size - 40}")
    if size < wanted + _IPIP_OCTETS:
        remedy = f"set gateway.tunnel_mtu = {size - _IPIP_OCTETS}, or the interface's MTU to {wanted + _IPIP_OCTETS}"
        return missing(name, f"{size} is too small for gateway.tunnel_mtu = {wanted} and 20 octets of header", remedy)
    return ok(name, f"{size} carries gateway.tunnel_mtu = {wanted} and 20 octets of header")


def _gateway_addresses(gateway: GatewaySection) -> Iterator[Finding]:
    import socket

    here = gateway.address if gateway.endpoint is not None else (*gateway.address, *(gateway.tunnel_address or ()))
    for address in dict.fromkeys(here):
        name = "gateway.address" if address in gateway.address else "gateway.tunnel_address"
        family = socket.AF_INET if address.version == _IPV4 else socket.AF_INET6
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe_socket:
                probe_socket.bind((str(address), 0))
        except OSError as error:
            remedy = f"ip address add {address}/LENGTH dev INTERFACE of realm {gateway.near}"
            yield missing(name, f"{address}: {error.strerror}", remedy)
        else:
            yield ok(name, f"{address} is an address of this machine")


def _beside(config: Config) -> Iterator[Finding]:
    """What else on this machine may use what is leased."""
    from isthmus.daemon import nat
    from isthmus.errors import PlaneError

    name = "leased ports"
    try:
        faults = list(nat.faults(config))
    except PlaneError as error:
        yield warn(name, f"it cannot be seen who else uses them: {error}", "run as root, with nftables installed")
        return
    for each in faults:
        yield warn(name, each.what, each.remedy)
    if not faults:
        yield ok(name, "nothing else on this machine uses them")
