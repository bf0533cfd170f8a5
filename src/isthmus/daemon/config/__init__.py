# SPDX-License-Identifier: BSD-3-Clause
"""Configuration: one TOML file to frozen values; every error names file, key and reason.

A file names realms and their interfaces, and the roles that this machine plays among
them: ``[gateway]`` leases, ``[host]`` holds leases. Nothing is changed on the machine
before the whole file has been read and understood.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from isthmus.border.binding import Owner
from isthmus.daemon.config.fields import Interface, Name, Section, address, prefix
from isthmus.daemon.config.gateway import (
    ClientSection,
    GatewaySection,
    LeaseSection,
    MulticastSection,
    NatSection,
    PoolSection,
    QuerySection,
    QuotaSection,
    check_gateway,
)
from isthmus.daemon.config.host import HostLeaseSection, HostSection
from isthmus.errors import ConfigError

__all__ = [
    "ClientSection",
    "Config",
    "GatewaySection",
    "HostLeaseSection",
    "HostSection",
    "LeaseSection",
    "MulticastSection",
    "NatSection",
    "PoolSection",
    "QuerySection",
    "QuotaSection",
    "address",
    "gateway_owner",
    "load",
    "parse",
    "prefix",
]


class General(Section):
    """``[isthmus]``: what concerns the daemon as a whole."""

    name: Name = "isthmus"
    "Names the control socket and the pinned maps."
    run: Path = Path("/run/isthmus")
    "Where both of them are."
    state: str = "memory:"
    "The lease store: a path, or ``memory:``."
    plane: Literal["auto", "kernel", "reference"] = "auto"
    "``auto`` takes the kernel plane where it can be loaded."
    seed: int | None = None
    "Makes the random choices repeatable; for tests."


class RealmSection(Section):
    """``[[realm]]``: an addressing realm that this machine has a leg in."""

    name: Name
    interface: Interface


class EndpointSection(Section):
    """``[endpoint]``: tunnels end at this machine; a gateway elsewhere says whose they are.

    Its ``endpoint`` names our control socket, and the realms' names are those of its file.
    """

    attract: Literal["arp", "none"] = "arp"
    "How neighbours find the pools: we answer ARP for addresses in the far interface's networks, or somebody routes."


class Config(Section):
    """A whole file."""

    isthmus: General = General()
    realm: Annotated[tuple[RealmSection, ...], Field(min_length=1)]
    gateway: GatewaySection | None = None
    host: HostSection | None = None
    endpoint: EndpointSection | None = None

    def realm_number(self, name: str) -> int:
        """The number that a realm has in every table: its place in the file, from 1."""
        return 1 + [each.name for each in self.realm].index(name)

    @property
    def control_socket(self) -> Path:
        """Where the daemon listens for the command line."""
        return self.isthmus.run / f"{self.isthmus.name}.sock"


def load(path: Path | str) -> Config:
    """Read and check a configuration file.

    Raises:
        ConfigError: it cannot be read, is not TOML, or says something wrong.
    """
    name = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise ConfigError(name, key="", reason=f"cannot be read: {reason}") from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(name, key="", reason=f"is not TOML: {error}") from error
    return parse(data, name)


def parse(data: dict[str, Any], name: str) -> Config:
    """Check what a TOML file says.

    Args:
        data: The parsed tables.
        name: What to call the file in errors.

    Raises:
        ConfigError: something is wrong.
    """
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        # A misspelt key explains why another is missing.
        first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        raise ConfigError(name, key=_dotted(first["loc"]), reason=_sentence(first)) from error
    _check_realms(config, name)
    if config.gateway is None and config.host is None and config.endpoint is None:
        reason = "has neither [gateway] nor [host] nor [endpoint]: there is nothing to do"
        raise ConfigError(name, key="", reason=reason)
    if config.gateway is not None:
        check_gateway(config.gateway, name)
    return config


def _dotted(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text


def _sentence(error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return "is not a key of this table; examples/ has every key there is"
    if error["type"] == "missing":
        return "is required"
    given = error.get("input")
    if not isinstance(given, str | int | float) or str(given) in message:
        return message
    return f"{message} (it says {given!r})"


def _check_realms(config: Config, name: str) -> None:
    names = [each.name for each in config.realm]
    interfaces = [each.interface for each in config.realm]
    for at, each in enumerate(config.realm):
        if each.name in names[:at]:
            raise ConfigError(
                name, key=f"realm[{at}].name", reason=f"{each.name!r} is already the name of another realm"
            )
        if each.interface in interfaces[:at]:
            raise ConfigError(
                name, key=f"realm[{at}].interface", reason=f"{each.interface!r} leads into another realm already"
            )
    wanted = []
    if config.gateway is not None:
        wanted += [("gateway.near", config.gateway.near), ("gateway.realm", config.gateway.realm)]
        if config.gateway.near == config.gateway.realm:
            raise ConfigError(name, key="gateway.realm", reason="must be another realm than gateway.near")
    if config.host is not None:
        wanted.append(("host.near", config.host.near))
        for at, lease in enumerate(config.host.lease):
            if lease.device in interfaces:
                reason = (
                    f"{lease.device!r} is the interface of a [[realm]]; a lease gets a device of its own, like rsip0"
                )
                raise ConfigError(name, key=f"host.lease[{at}].device", reason=reason)
    for key, realm in wanted:
        if realm not in names:
            raise ConfigError(
                name, key=key, reason=f"{realm!r} is no [[realm]] of this file, which has {', '.join(names)}"
            )


def gateway_owner(config: Config) -> Owner:
    """At a host: the far end of its tunnels."""
    assert config.host is not None
    return Owner(config.realm_number(config.host.near), address(config.host.gateway))
