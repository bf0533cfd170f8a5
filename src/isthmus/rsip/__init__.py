# SPDX-License-Identifier: BSD-3-Clause
"""RSIP without I/O: leases bindings (RFC 3102, RFC 3103)."""
