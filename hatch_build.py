# SPDX-License-Identifier: BSD-3-Clause
"""Build hook: compile bpf/ with clang so that an installed wheel carries the objects."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileBpf(BuildHookInterface):  # type: ignore[type-arg]
    """Runs ``make -C bpf`` before the files of a wheel are gathered."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        """Compile; a failure ends the build with clang's own words."""
        build_data["pure_python"] = True
        subprocess.run(["make", "-s", "-C", str(Path(self.root) / "bpf")], check=True)
