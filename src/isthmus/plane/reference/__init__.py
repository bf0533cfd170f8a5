# SPDX-License-Identifier: BSD-3-Clause
"""The reference plane: the specification, and the slow path."""
