# SPDX-License-Identifier: BSD-3-Clause
"""Which realms have a program at XDP, before the one at TC.

It shares the maps, decides what it can decide to the end, and leaves the rest to TC. It sends only into realms that
have it, too: many drivers take frames from XDP only where there is a program.
"""

from __future__ import annotations

from isthmus.errors import PlaneError
from isthmus.plane.kernel.attach import Link, Links
from isthmus.plane.kernel.pinned import Loaded


class AtXdp:
    """The realms with a program at XDP.

    Args:
        loaded: The programs and their maps.
        links: The interfaces.
    """

    def __init__(self, loaded: Loaded, links: Links) -> None:
        self._loaded = loaded
        self._links = links
        self.realms: set[int] = set()

    def attach(self, realm: int, link: Link, *, ipae: bool) -> str:
        """Attach at an interface of a realm.

        Args:
            realm: Its number.
            link: The interface.
            ipae: Whether there are SIP realms.

        Returns:
            Why it cannot be; "" if it can.
        """
        if link.bare:
            refused = "its packets have no link header"
        else:
            refused = self._try(link, "ipae" if ipae else "border")
        if refused:
            self.detach(realm, link)
        else:
            self.realms.add(realm)
        return refused

    def _try(self, link: Link, program: str) -> str:
        try:
            return self._links.attach_xdp(link.index, self._loaded.xdp(program).fd)
        except PlaneError as error:
            return str(error)

    def detach(self, realm: int, link: Link) -> str:
        """Take away from an interface of a realm what an earlier process has left there, whichever maps that has."""
        self._links.detach_xdp(link.index)
        self.realms.discard(realm)
        return ""
