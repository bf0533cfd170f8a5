# SPDX-License-Identifier: BSD-3-Clause
"""The kernel plane: the decisions of plane.reference in eBPF, loaded, fed and read from here."""
