# SPDX-License-Identifier: BSD-3-Clause
"""The scenarios of the lab, one file each."""
