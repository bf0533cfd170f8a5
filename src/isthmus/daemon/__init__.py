# SPDX-License-Identifier: BSD-3-Clause
"""Drivers with a real clock and real sockets: the gateway and the host."""
