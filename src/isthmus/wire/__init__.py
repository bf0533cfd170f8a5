# SPDX-License-Identifier: BSD-3-Clause
"""Octets and values, both ways; no policy, no table, no clock.

Two kinds of thing live here. A *view* reads and edits a header in place, so that bits
which are not ours stay as they were; forwarding uses views only. A *value* is frozen
and lossless: parsing and emitting it gives the same octets; endpoints use values.
Octets that do not parse raise ``isthmus.errors.WireError`` and nothing else.
"""
