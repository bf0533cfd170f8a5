# SPDX-License-Identifier: BSD-3-Clause
"""The records of a mapping zone, in little memory.

dnspython's own ``Zone`` has some twenty Python objects a record: a million networks are two gigabytes, and the
garbage collector stops the program for seconds to look at them. Here each record set is two strings of octets, name
and type to TTL and data, and ``dns.xfr`` writes to it as to any other of its transaction managers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.transaction

from isthmus.border.mapping import Mapping
from isthmus.errors import WireError
from isthmus.ipae.mapping import Fault, OwnNetwork, Rows, accept
from isthmus.ipae.records import NETWORK, Network, first_address, number_of

_IN = dns.rdataclass.IN


class ZoneRecords(dns.transaction.TransactionManager):
    """A zone of class IN with absolute names; empty at first."""

    def __init__(self, zone: dns.name.Name) -> None:
        self.zone = zone
        self.sets: dict[bytes, bytes] = {}
        "Name, type and covered type to TTL and data, each with its length before it."
        self._suffix = zone.to_digestable()

    def __len__(self) -> int:
        """How many record sets."""
        return len(self.sets)

    def mapping(self, own: Iterable[OwnNetwork] = ()) -> Mapping:
        """Make a mapping of the network records, as ``records.mapping_of`` does of any.

        Raises:
            MappingRefused: with everything that is wrong.
        """
        rows, faults = Rows(), list[Fault]()
        for key, value in self.sets.items():
            parse = _PARSERS.get(key[-4:])
            labels = _labels(key[:-4], self._suffix) if parse else ()
            if parse is None or not 1 <= len(labels) <= 4 or (number := number_of(labels)) is None:
                continue
            place = f"{b'.'.join(labels).decode()}.{self.zone}"
            for octets in _data(value):
                try:
                    if (network := parse(octets)) is None:
                        continue
                    first = first_address(number, len(labels), network.length)
                except (WireError, ValueError) as error:
                    faults.append(Fault(place, str(error)))
                    continue
                rows.numbers.append(first)
                rows.lengths.append(network.length)
                rows.uppers.append(network.upper)
                rows.places.append(place)
        return accept(rows, source=f"zone {self.zone}", own=own, faults=faults)

    def least_ttl(self) -> int:
        """Find the least TTL of its network records, at most a day, in seconds."""
        ttls = (int.from_bytes(value[:4], "big") for key, value in self.sets.items() if key[-4:] in _PARSERS)
        return min(86400, min(ttls, default=86400))

    @property
    def serial(self) -> int | None:
        """The serial number of its SOA record; None: it has none."""
        soa = self.reader().get(self.zone, dns.rdatatype.SOA)
        return None if soa is None else int(soa[0].serial)

    def reader(self) -> dns.transaction.Transaction:
        """Begin to read."""
        return _Writing(self, read_only=True)

    def writer(self, replacement: bool = False) -> dns.transaction.Transaction:
        """Begin to write: additions and deletions, or a whole new content."""
        return _Writing(self, replacement=replacement)

    def origin_information(self) -> tuple[dns.name.Name, bool, dns.name.Name]:
        """The zone; names stay absolute."""
        return self.zone, False, self.zone

    def get_class(self) -> dns.rdataclass.RdataClass:
        """IN."""
        return _IN


class _Writing(dns.transaction.Transaction):
    """What is written comes to the zone at the end, all of it or nothing."""

    manager: ZoneRecords

    def __init__(self, manager: ZoneRecords, *, replacement: bool = False, read_only: bool = False) -> None:
        super().__init__(manager, replacement, read_only)
        self._written: dict[bytes, bytes] = {}
        self._deleted: set[bytes] = set()

    def _find(self, key: bytes) -> bytes | None:
        if (written := self._written.get(key)) is not None:
            return written
        return None if self.replacement or key in self._deleted else self.manager.sets.get(key)

    def _get_rdataset(self, name: dns.name.Name, rdtype: Any, covers: Any) -> dns.rdataset.Rdataset | None:
        key = _key(name, rdtype, covers)
        value = self._find(key)
        return None if value is None else _read(key, value)

    def _put_rdataset(self, name: dns.name.Name, rdataset: dns.rdataset.Rdataset) -> None:
        value = bytearray(rdataset.ttl.to_bytes(4, "big"))
        for each in rdataset:
            octets = each.to_wire() or b""
            value += len(octets).to_bytes(2, "big") + octets
        self._written[_key(name, rdataset.rdtype, rdataset.covers)] = bytes(value)

    def _delete_rdataset(self, name: dns.name.Name, rdtype: Any, covers: Any) -> None:
        key = _key(name, rdtype, covers)
        self._written.pop(key, None)
        self._deleted.add(key)

    def _changed(self) -> bool:
        return bool(self._written or self._deleted or self.replacement)

    def _end_transaction(self, commit: bool) -> None:
        if not commit or self.read_only:
            return
        if self.replacement:
            self.manager.sets = self._written
            return
        for key in self._deleted:
            self.manager.sets.pop(key, None)
        self.manager.sets.update(self._written)


def _key(name: dns.name.Name, rdtype: int, covers: int) -> bytes:
    """The name in lower case, the type, and the type that a signature covers."""
    return name.to_digestable() + int(rdtype).to_bytes(2, "big") + int(covers).to_bytes(2, "big")


def _data(value: bytes) -> Iterator[bytes]:
    at = 4
    while at < len(value):
        end = at + 2 + int.from_bytes(value[at : at + 2], "big")
        yield value[at + 2 : end]
        at = end


def _read(key: bytes, value: bytes) -> dns.rdataset.Rdataset:
    rdtype, covers = (dns.rdatatype.RdataType.make(int.from_bytes(each, "big")) for each in (key[-4:-2], key[-2:]))
    rdataset = dns.rdataset.Rdataset(_IN, rdtype, covers, int.from_bytes(value[:4], "big"))
    for octets in _data(value):
        rdataset.add(dns.rdata.from_wire(_IN, rdtype, octets, 0, len(octets)))
    return rdataset


def _labels(name: bytes, zone: bytes) -> Sequence[bytes]:
    """The labels of a name before those of the zone; none if it is not below it."""
    if not name.endswith(zone):
        return ()
    labels, at, end = [], 0, len(name) - len(zone)
    while at < end:
        labels.append(name[at + 1 : at + 1 + name[at]])
        at += 1 + name[at]
    return labels if at == end else ()


def _parse_text(octets: bytes) -> Network | None:
    """Read the RDATA of a TXT record: strings, each with its length before it (RFC 1035 §3.3.14)."""
    text, at = b"", 0
    while at < len(octets):
        text += octets[at + 1 : at + 1 + octets[at]]
        at += 1 + octets[at]
    return Network.parse_text(text.decode("ascii", "replace"))


_PARSERS: dict[bytes, Callable[[bytes], Network | None]] = {
    NETWORK.to_bytes(2, "big") + b"\0\0": Network.parse,
    dns.rdatatype.TXT.to_bytes(2, "big") + b"\0\0": _parse_text,
}
"""By type, as keys end."""
