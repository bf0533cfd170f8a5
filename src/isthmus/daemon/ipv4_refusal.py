# SPDX-License-Identifier: BSD-3-Clause
"""A SIP-only system takes no IPv4 packets from its link (erratum E28; spec 2.7).

It needs the machine's ARP, and the machine answers ARP only for addresses that it has; so IPv4 packets would come to
the machine's IP stack. A table of nftables drops and counts them, behind the kernel plane's program and before the
rules that steer packets into ports.
"""

from __future__ import annotations

import contextlib
import json

from isthmus.daemon.offloop import off_loop
from isthmus.errors import PlaneError
from isthmus.plane.link.nft import nft

_RULES = """table netdev {table}
delete table netdev {table}
table netdev {table} {{
  counter refused {{ }}
  chain from {{
    type filter hook ingress device "{interface}" priority -310; policy accept;
    ether type ip @nh,0,4 4 counter name "refused" drop
  }}
}}
"""


class Ipv4Refusal:
    """The rule of one interface.

    Args:
        name: The table is called ``isthmus_NAME_only``.
        interface: Which.
    """

    def __init__(self, name: str, interface: str) -> None:
        self._table = f"isthmus_{name.replace('.', '_').replace('-', '_')}_only"
        self._interface = interface

    def start(self) -> None:
        """Begin to refuse.

        Raises:
            PlaneError: nftables cannot be had.
        """
        _nft("-f", "-", text=_RULES.format(table=self._table, interface=self._interface))

    def count(self) -> int:
        """How many packets were refused."""
        try:
            said = json.loads(_nft("-j", "list", "counter", "netdev", self._table, "refused"))
        except (PlaneError, ValueError):
            return 0
        return sum(int(each["counter"]["packets"]) for each in said["nftables"] if "counter" in each)

    def stop(self) -> None:
        """Refuse no longer."""
        with contextlib.suppress(PlaneError):
            _nft("delete", "table", "netdev", self._table)


@off_loop
def _nft(*words: str, text: str = "") -> str:
    return nft(*words, text=text, what="refusing IPv4 at a SIP-only system")
