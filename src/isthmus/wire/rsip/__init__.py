# SPDX-License-Identifier: BSD-3-Clause
"""The messages of RSIP as they look on the wire (RFC 3103 §8, §9; RFC 3104 §6)."""
