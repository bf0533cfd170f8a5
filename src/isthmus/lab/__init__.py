# SPDX-License-Identifier: BSD-3-Clause
"""Networks of namespaces in which the installed program is tried."""
