# SPDX-License-Identifier: BSD-3-Clause
"""The whole error tree of isthmus.

Every message names the thing, the limit and the value. The data plane never
raises for a packet: it returns a verdict (see ``isthmus.border.verdict``).
"""

from __future__ import annotations


class IsthmusError(Exception):
    """The root: catch this to catch everything isthmus raises on purpose."""


class WireError(IsthmusError):
    """Octets that do not parse.

    Args:
        field: The field that was being read, in the words of the RFC.
        at: Offset of that field in octets from the start of the buffer.
        problem: What is wrong, naming the limit and the value.
    """

    def __init__(self, field: str, *, at: int, problem: str) -> None:
        super().__init__(f"{field} at octet {at}: {problem}")
        self.field = field
        self.at = at
        self.problem = problem


class Truncated(WireError):
    """More octets were needed than there are.

    Args:
        field: The field that was being read.
        at: Offset of that field in octets.
        need: How many octets it needs from there.
        have: How many octets there are.
    """

    def __init__(self, field: str, *, at: int, need: int, have: int) -> None:
        super().__init__(field, at=at, problem=f"needs {need} octets, {have} left")
        self.need = need
        self.have = have


class Malformed(WireError):
    """The octets are there and their values contradict the format."""


class ProtocolError(IsthmusError):
    """A rule of RSIP was broken; ``code`` is the error number that says so (RFC 3103 §14).

    Args:
        code: The RSIP error number, 101 to 403.
        problem: What is wrong, for the log.
    """

    def __init__(self, code: int, problem: str) -> None:
        super().__init__(f"{problem} (RSIP error {code})")
        self.code = code
        self.problem = problem


class LocalProtocolError(ProtocolError):
    """Our own caller broke the rules: nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the rules: answer with ``code``, or ignore."""


class StoreError(IsthmusError):
    """The lease store could not do what was asked."""


class Conflict(StoreError):
    """A resource, or a key, is already held by somebody else.

    Args:
        resource: What was asked for, as text.
    """

    def __init__(self, resource: str) -> None:
        super().__init__(f"{resource} is already held")
        self.resource = resource


class StoreUnavailable(StoreError):
    """The store cannot be opened, read or written; nothing was made durable."""


class PlaneError(IsthmusError):
    """A data plane cannot be set up or changed."""


class Unsupported(PlaneError):
    """The machine lacks something the plane needs.

    Args:
        feature: What is missing.
        remedy: What to do about it.
    """

    def __init__(self, feature: str, *, remedy: str) -> None:
        super().__init__(f"{feature}: {remedy}")
        self.feature = feature
        self.remedy = remedy


class AbiMismatch(PlaneError):
    """The eBPF object and this package were built from different sources."""


class ConfigError(IsthmusError):
    """A configuration that is wrong; nothing was changed.

    Args:
        path: The file; "" where it is not known any more.
        key: The key in it, dotted, or "" for the file as a whole.
        reason: What is wrong and what would be right.
    """

    def __init__(self, path: str, *, key: str, reason: str) -> None:
        super().__init__(": ".join(each for each in (path, key, reason) if each))
        self.path = path
        self.key = key
        self.reason = reason
