# SPDX-License-Identifier: BSD-3-Clause
"""What 'isthmus doctor' finds: one line each, with what to do."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Status(enum.StrEnum):
    """How good a finding is."""

    OK = "OK"
    WARN = "WARN"
    "It works without, or works worse."
    MISSING = "MISSING"
    "Something cannot work."


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing about this machine."""

    name: str
    "What was looked at; stable, for scripts."
    status: Status
    detail: str
    "What was seen."
    remedy: str = ""
    "What to do about it; empty where all is well."


def ok(name: str, detail: str) -> Finding:
    """All is well."""
    return Finding(name=name, status=Status.OK, detail=detail)


def warn(name: str, detail: str, remedy: str) -> Finding:
    """It works without, or works worse."""
    return Finding(name=name, status=Status.WARN, detail=detail, remedy=remedy)


def missing(name: str, detail: str, remedy: str) -> Finding:
    """Something cannot work."""
    return Finding(name=name, status=Status.MISSING, detail=detail, remedy=remedy)
