# SPDX-License-Identifier: BSD-3-Clause
"""Bindings written down by hand, for 'isthmus check': the form of tests/fixtures/scenes.

::

    registered = ["private 10.0.0.4"]           # besides every owner of a binding

    [[bindings]]
    owner = "private 10.0.0.4"                  # realm and address
    id    = 1
    local = "149.112.240.55"                    # or a prefix, held whole
    ports = "10000-10063"                       # and, or instead: spis
    realm = "public"                            # default: the realm that is leased; at a host it is called "leased"
    remote = { network = "192.0.2.0/24", port = 80, admit = "contacted" }
    tunnel = "10.0.0.1 -> 10.0.0.4"             # default: from the gateway's address to the owner; a host must say
    kind  = "ipip"
    mtu   = 1480
    lasts = 3600                                # seconds from the first packet
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.address import Address, Prefix
from isthmus.border.binding import Binding, BindingKey, Lease, Method, Owner, Registration
from isthmus.border.crossing import Tunnel, TunnelKind
from isthmus.border.effect import Bind, Register
from isthmus.border.ranges import Ranges
from isthmus.border.selector import Admit, Kind, Remote, Selector
from isthmus.errors import ConfigError

_TOP = {"registered", "bindings", "realms", "tunnel_ends", "claims", "slice_size"}
"""What a scene has beside these two comes from the configuration here, and is passed over."""
_KEYS = {"owner", "id", "local", "ports", "spis", "realm", "remote", "tunnel", "kind", "mtu", "lasts", "device"}
_FAR = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a configuration says about bindings that a file leaves out."""

    realms: Mapping[str, int]
    "Realms by name."
    leased: int
    "The realm that selectors belong to."
    our_end: Address | None
    "Where our tunnels end; None: every binding must say."
    tunnel_mtu: int = 1480


def read(path: Path, place: Place, *, now: float) -> tuple[Register | Bind, ...]:
    """Read a file of bindings.

    Args:
        path: The file.
        place: Gives realms their numbers, and what a binding leaves out.
        now: When leases begin, in seconds since 1970.

    Raises:
        ConfigError: it cannot be read, or says something wrong.
    """
    try:
        script = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(path), key="", reason=f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(str(path), key="", reason=f"is not TOML: {error}") from error
    _only(path, "", script, _TOP)
    binds: list[Bind] = []
    owners: dict[Owner, None] = {}
    for at, text in enumerate(_list(path, script, "registered")):
        owners[_guarded(path, f"registered[{at}]", lambda text=text: _owner(text, place))] = None
    for at, table in enumerate(_list(path, script, "bindings")):
        key = f"bindings[{at}]"
        if not isinstance(table, dict):
            raise ConfigError(str(path), key=key, reason="must be a table")
        _only(path, key, table, _KEYS)
        bind = _guarded(path, key, lambda table=table: _bind(table, place, now))
        binds.append(bind)
        owners[bind.binding.key.owner] = None
    registrations = (
        Register(registration=Registration(owner=owner, client_id=at, expires_at=now + _FAR))
        for at, owner in enumerate(owners, start=1)
    )
    return (*registrations, *binds)


def _bind(table: dict[str, Any], place: Place, now: float) -> Bind:
    owner = _owner(table["owner"], place)
    if "tunnel" not in table and place.our_end is None:
        raise ValueError("tunnel is required where the configuration has no [gateway]")
    ends = str(table.get("tunnel", f"{place.our_end} -> {owner.address}")).split(" -> ")
    if len(ends) != 2:
        raise ValueError(f'tunnel {table["tunnel"]!r} is not "OURS -> THEIRS"')
    tunnel = Tunnel(
        realm=owner.realm,
        local=Address.parse(ends[0]),
        remote=Address.parse(ends[1]),
        kind=TunnelKind[str(table.get("kind", "ipip")).upper()],
        mtu=table.get("mtu", place.tunnel_mtu),
    )
    binding = Binding(
        key=BindingKey(owner, int(table["id"])),
        selectors=_selectors(table, place),
        crossing=tunnel,
        device=table.get("device"),
    )
    method = Method.RSAP_IP if binding.selectors[0].kind is not None else Method.RSA_IP
    lease = Lease(client_id=1, method=method, granted_at=now, expires_at=now + float(table.get("lasts", 3600)))
    return Bind(binding=binding, lease=lease)


def _selectors(table: dict[str, Any], place: Place) -> tuple[Selector, ...]:
    limit = table.get("remote", {})
    remote = Remote(
        network=Prefix.parse(limit["network"]) if "network" in limit else None,
        port=limit.get("port"),
        admit=Admit[str(limit.get("admit", "anyone")).upper()],
    )
    realm = _realm(table["realm"], place) if "realm" in table else place.leased
    local = Prefix.parse(table["local"])
    named = tuple(
        Selector(realm=realm, local=local, kind=kind, values=Ranges.parse(str(table[key])), remote=remote)
        for key, kind in (("ports", Kind.PORT), ("spis", Kind.SPI))
        if key in table
    )
    return named or (Selector(realm=realm, local=local, remote=remote),)


def _owner(text: object, place: Place) -> Owner:
    words = str(text).split()
    if len(words) != 2:
        raise ValueError(f'{text!r} is not "REALM ADDRESS"')
    return Owner(_realm(words[0], place), Address.parse(words[1]))


def _realm(name: str, place: Place) -> int:
    if name not in place.realms:
        raise ValueError(f"{name!r} is no realm of the configuration, which has {', '.join(place.realms)}")
    return place.realms[name]


def _guarded(path: Path, key: str, make: Any) -> Any:
    try:
        return make()
    except KeyError as error:
        raise ConfigError(str(path), key=key, reason=f"{error.args[0]} is required, or is no such thing") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(str(path), key=key, reason=str(error)) from error


def _list(path: Path, script: dict[str, Any], key: str) -> list[Any]:
    found = script.get(key, [])
    if not isinstance(found, list):
        raise ConfigError(str(path), key=key, reason="must be an array")
    return found


def _only(path: Path, key: str, table: dict[str, Any], allowed: set[str]) -> None:
    for each in sorted(set(table) - allowed):
        dotted = f"{key}.{each}" if key else each
        raise ConfigError(str(path), key=dotted, reason=f"is no key here; there are {', '.join(sorted(allowed))}")
