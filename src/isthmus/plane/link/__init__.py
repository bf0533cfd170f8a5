# SPDX-License-Identifier: BSD-3-Clause
"""How octets reach a plane in user space."""
