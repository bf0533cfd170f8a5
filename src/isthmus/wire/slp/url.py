# SPDX-License-Identifier: BSD-3-Clause
"""Service URLs: ``service:rsip://gateway.mydomain:4455`` (RFC 2608 §4.1, RFC 2609 §2.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from isthmus.errors import Malformed

_URL = re.compile(
    r"(?P<type>service:[a-z][a-z0-9+-]*(?:\.[a-z0-9+-]+)?(?::[a-z][a-z0-9+-]*(?:\.[a-z0-9+-]+)?)?)"
    r"://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]*)(?::(?P<port>[0-9]{1,5}))?(?P<path>[/;][\x21-\x7e]*)?",
    re.IGNORECASE,
)
LONGEST = 1024
"""Octets of a URL that is looked at; RFC 2608 allows 65,535 and nothing needs them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceUrl:
    """Where a service is."""

    service_type: str
    "With its scheme: ``service:rsip``."
    host: str
    "An address or a name; an IPv6 address without brackets."
    port: int | None = None
    "None: the service's own."
    path: str = ""
    "Whatever follows, with its slash or semicolon."

    def __post_init__(self) -> None:
        """Refuse what would not be read back."""
        if self.port is not None and not 0 < self.port <= 65535:
            raise Malformed("url", at=0, problem=f"port {self.port} is not 1 to 65535")
        if not _URL.fullmatch(str(self)):
            raise Malformed("url", at=0, problem=f"{str(self)[:80]!r} is no service URL")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one.

        Raises:
            Malformed: it is none, or longer than ``LONGEST``.
        """
        if len(text) > LONGEST:
            raise Malformed("url", at=0, problem=f"{len(text)} octets, more than {LONGEST}")
        found = _URL.fullmatch(text.strip())
        if found is None:
            raise Malformed("url", at=0, problem=f"{text[:80]!r} is no service URL")
        port = found["port"]
        return cls(
            service_type=found["type"].lower(),
            host=found["host"].strip("[]"),
            port=int(port) if port is not None else None,
            path=found["path"] or "",
        )

    def __str__(self) -> str:
        """The text form."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        return f"{self.service_type}://{host}{port}{self.path}"
