# SPDX-License-Identifier: BSD-3-Clause
"""IPAE: 64-bit addresses above IPv4 (seed IPAE). No I/O and no clock: time is an argument."""
