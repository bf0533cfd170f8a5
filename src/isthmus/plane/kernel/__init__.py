# SPDX-License-Identifier: BSD-3-Clause
"""The kernel plane: the same decisions as ``plane.reference``, in eBPF at TC.

==============  ======================================================================
module          holds
==============  ======================================================================
``plane``       ``KernelPlane``: effects into maps, interfaces, pins
``image``       what the maps should hold, and in which order it changes
``index``       bindings as entries and slice words
``direct``      plain leases as words
``blocks``      these words, where a rule says them, by 64 in 16 octets, for the program to look at first
``briefs``      these words in half as many octets, for it to look at next
``contact``     peers that were written to, in the program's own memory
``path``        who sent what in ESP and AH, likewise
``ring``        what was sent as IPAE datagrams, likewise
``mapping``     IPAE's mapping tables, in memory shared with the program
``number``      first slices, endpoint numbers, owners' tags
``maps``        values of the model as octets, by layout
``pinned``      the programs and their maps: loaded, pinned, adopted
``trace``       events of the program as violations
``attach``      programs at interfaces: filters at TC, and XDP
``xdp``         which realms have a program at XDP
``btf``         layouts and enums out of the object
``libbpf``      the library, by ctypes
``loader``      objects, maps and programs
``budget``      what programs cost the verifier
==============  ======================================================================

The program is in ``bpf/``; ``docs/data-plane.md`` is the contract.
"""

from isthmus.plane.kernel.pinned import Sizes, ensure_bpffs
from isthmus.plane.kernel.plane import KernelPlane

__all__ = ["KernelPlane", "Sizes", "ensure_bpffs"]
