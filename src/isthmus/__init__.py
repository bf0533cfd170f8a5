# SPDX-License-Identifier: BSD-3-Clause
"""isthmus joins address realms: RSIP leases bindings, IPAE derives them from an address."""
