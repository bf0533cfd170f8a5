# SPDX-License-Identifier: BSD-3-Clause
"""Configuration: one TOML file to frozen values; every error names file, key and reason.

A file names realms and their interfaces, and the roles that this machine plays among
them: ``[gateway]`` leases, ``[host]`` holds leases. Nothing is changed on the machine
before the whole file has been read and understood.
"""

from __future__ import annotations

import tomllib
from ipaddress import IPv4Address, IPv4Network, ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from isthmus.address import Address, Prefix
from isthmus.border.binding import Owner
from isthmus.border.ranges import Ranges
from isthmus.errors import ConfigError


class _Section(BaseModel):
    """A table of the file: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


def _ports(text: object) -> Ranges:
    if isinstance(text, Ranges):
        return text
    if isinstance(text, int):
        text = str(text)
    if not isinstance(text, str):
        raise ValueError('write ports as text, like "10000-19999" or "80,443"')  # noqa: TRY004 - pydantic wants it
    try:
        ranges = Ranges.parse(text)
    except ValueError:
        raise ValueError(f'{text!r} is not a list of ports like "10000-19999" or "80,443"') from None
    if not ranges or ranges.pairs[0][0] < 1 or ranges.pairs[-1][1] > 65535:
        raise ValueError(f"{text!r}: ports are 1 to 65535")
    return ranges


def _network(text: object) -> IPv4Network:
    if isinstance(text, IPv4Network):
        return text
    try:
        return IPv4Network(str(text))
    except ValueError as error:
        raise ValueError(f"{error}; write it like 192.0.2.0/24") from None


Network = Annotated[IPv4Network, BeforeValidator(_network)]
Ports = Annotated[Ranges, BeforeValidator(_ports)]
Seconds = Annotated[int, Field(ge=1, le=2**31)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Interface = Annotated[str, Field(min_length=1, max_length=15)]


class General(_Section):
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


class RealmSection(_Section):
    """``[[realm]]``: an addressing realm that this machine has a leg in."""

    name: Name
    interface: Interface


class LeaseSection(_Section):
    """``[gateway.lease]``: lease times in seconds."""

    default: Seconds = 3600
    minimum: Seconds = 60
    maximum: Seconds = 86400
    registration: Seconds = 3600


class QuotaSection(_Section):
    """``[gateway.quota]``: the most that one host may hold."""

    bindings: Annotated[int, Field(ge=1)] = 64
    ports: Annotated[int, Field(ge=1)] = 4096
    addresses: Annotated[int, Field(ge=0)] = 4
    spis: Annotated[int, Field(ge=0)] = 256


class PoolSection(_Section):
    """``[[gateway.pool]]``: either one address leased by port, or a prefix leased by address."""

    address: IPv4Address | None = None
    ports: Ports | None = None
    prefix: Network | None = None


class ClientSection(_Section):
    """``[[gateway.client]]``: which hosts may register, and under which flow policies (RFC 3103 §7)."""

    network: Network
    local_policy: Literal["macro", "micro"] = "macro"
    remote_policy: Literal["none", "macro", "micro"] = "none"


class GatewaySection(_Section):
    """``[gateway]``: lease the resources of one realm to the hosts of another."""

    near: Name
    "The realm that the hosts are in."
    realm: Name
    "The realm whose addresses are leased."
    address: IPv4Address
    "Our address in the near realm: tunnels end here, and the control protocol listens here."
    port: Annotated[int, Field(ge=1, le=65535)] = 4555
    transports: tuple[Literal["udp", "tcp"], ...] = ("udp", "tcp")
    tunnel_mtu: Annotated[int, Field(ge=576, le=65000)] = 1480
    admit: Literal["contacted", "anyone"] = "contacted"
    "Who may write to a leased port: the peers that its host has written to, or anyone."
    rest: Annotated[int, Field(ge=0)] = 120
    "Seconds that a freed resource rests (RFC 3102 §6.1)."
    slice_size: Annotated[int, Field(ge=1, le=4096)] = 64
    "Ports of an aligned slice; a power of two."
    requests_per_second: Annotated[float, Field(ge=0)] = 100.0
    "Control messages that one host may send, on the average; more are not answered. 0: no limit."
    requests_burst: Annotated[int, Field(ge=1)] = 200
    "And at once."
    lease: LeaseSection = LeaseSection()
    quota: QuotaSection = QuotaSection()
    pool: Annotated[tuple[PoolSection, ...], Field(min_length=1)]
    client: tuple[ClientSection, ...] = ()
    "None: everybody in the near realm."

    @field_validator("slice_size")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError(f"{value} is not a power of two")
        return value


class HostLeaseSection(_Section):
    """``[[host.lease]]``: something that this host wants to hold."""

    ports: int | Ports = 64
    "How many ports of any shared address, or the very ports."
    address: IPv4Address | Literal["any"] | None = None
    "An address to hold whole (RSA-IP) when ``whole`` is set; otherwise the shared address wanted."
    whole: bool = False
    device: Interface = "rsip0"
    "The device that gets the leased address on this machine."
    routes: tuple[Network, ...] = ()
    "Destinations that are reached from the leased address."
    seconds: Seconds | None = None
    "The lease time to suggest."
    ephemeral: bool = True
    "Whether the programs of this machine draw their ephemeral ports from the lease (RFC 3102 §3.1)."

    @field_validator("ports", mode="before")
    @classmethod
    def _count_or_ports(cls, value: object) -> object:
        if isinstance(value, int) and not 1 <= value <= 255:
            raise ValueError(f"{value} ports: one lease holds 1 to 255 (RFC 3103 §8.2)")
        return value if isinstance(value, int) else _ports(value)


class HostSection(_Section):
    """``[host]``: hold leases from a gateway."""

    near: Name
    gateway: IPv4Address
    port: Annotated[int, Field(ge=1, le=65535)] = 4555
    transport: Literal["udp", "tcp"] = "udp"
    first_timeout: Annotated[float, Field(gt=0, le=60)] = 0.1
    "Seconds before the first retransmission; it doubles six times (RFC 3103 §5 begins with 0.0125)."
    lease: tuple[HostLeaseSection, ...] = ()


class Config(_Section):
    """A whole file."""

    isthmus: General = General()
    realm: Annotated[tuple[RealmSection, ...], Field(min_length=1)]
    gateway: GatewaySection | None = None
    host: HostSection | None = None

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
        first = error.errors()[0]
        raise ConfigError(name, key=_dotted(first["loc"]), reason=_sentence(first)) from error
    _check_realms(config, name)
    if config.gateway is None and config.host is None:
        raise ConfigError(name, key="", reason="has neither [gateway] nor [host]: there is nothing to do")
    if config.gateway is not None:
        _check_pools(config.gateway, name)
    return config


def _dotted(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text


def _sentence(error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return "is not a key of this table; see docs/cli.md and examples/ for the keys there are"
    if error["type"] == "missing":
        return "is required"
    given = error.get("input")
    return f"{message} (it says {given!r})" if isinstance(given, str | int | float) else message


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
    for key, realm in wanted:
        if realm not in names:
            raise ConfigError(
                name, key=key, reason=f"{realm!r} is no [[realm]] of this file, which has {', '.join(names)}"
            )


def _check_pools(gateway: GatewaySection, name: str) -> None:
    seen: set[IPv4Address] = set()
    for at, pool in enumerate(gateway.pool):
        key = f"gateway.pool[{at}]"
        if (pool.address is None) == (pool.prefix is None):
            raise ConfigError(name, key=key, reason="needs either address and ports, or prefix")
        if pool.address is not None and pool.ports is None:
            raise ConfigError(name, key=f"{key}.ports", reason="is required with address: which ports may be leased?")
        if pool.prefix is not None and pool.ports is not None:
            raise ConfigError(
                name, key=f"{key}.ports", reason="does not go with prefix, whose addresses are leased whole"
            )
        if pool.prefix is not None and pool.prefix.prefixlen < 16:
            raise ConfigError(name, key=f"{key}.prefix", reason=f"{pool.prefix} is larger than a /16")
        addresses = {pool.address} if pool.address is not None else set(pool.prefix or ())
        if again := seen & addresses:
            raise ConfigError(name, key=key, reason=f"{min(again)} is in another pool already")
        seen |= {each for each in addresses if each is not None}
    lease = gateway.lease
    if not lease.minimum <= lease.default <= lease.maximum:
        raise ConfigError(name, key="gateway.lease", reason="minimum <= default <= maximum does not hold")


def address(value: IPv4Address) -> Address:
    """An address of the configuration as one of ours."""
    return Address.from_octets(ip_address(value).packed)


def prefix(value: IPv4Network) -> Prefix:
    """A network of the configuration as a prefix."""
    return Prefix(address(value.network_address), value.prefixlen)


def gateway_owner(config: Config) -> Owner:
    """At a host: the far end of its tunnels."""
    assert config.host is not None
    return Owner(config.realm_number(config.host.near), address(config.host.gateway))
