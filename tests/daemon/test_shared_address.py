# SPDX-License-Identifier: BSD-3-Clause
"""The rules by which what programs send to a shared address leaves the machine, in a namespace of their own."""

import os
import secrets
import subprocess

import pytest
from pyroute2 import IPRoute

from isthmus.address import Address
from isthmus.daemon.device import inside
from isthmus.daemon.shared_address import TABLES, lead_out

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root"),
]
ONE, OTHER = Address.parse("149.112.240.55"), Address.parse("149.112.240.56")
USUAL = ["0: from all lookup local", "32766: from all lookup main", "32767: from all lookup default"]
MOVED = ["1: from all lookup local", *USUAL[1:]]


@pytest.fixture
def links():
    name = f"isthmus-t{secrets.token_hex(3)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        with inside(name), IPRoute() as made:
            made.link("set", index=1, state="up")
            yield made
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def rules():
    shown = subprocess.run(["ip", "rule"], capture_output=True, text=True, check=True).stdout
    return [" ".join(line.split()) for line in shown.splitlines()]


def to(address, table):
    return f"0: from all to {address} iif lo lookup {table}"


def test_the_rules_come_and_go_and_local_is_looked_at_always(links):
    table = TABLES + 1
    assert rules() == USUAL
    lead_out(links, {ONE: table})
    assert rules() == [to(ONE, table), *MOVED]
    lead_out(links, {OTHER: table}, {ONE: table})
    assert rules() == [to(OTHER, table), *MOVED]
    lead_out(links, {OTHER: table}, {OTHER: table})
    assert rules() == [to(OTHER, table), *MOVED]
    lead_out(links, {}, {OTHER: table})
    assert rules() == USUAL


def test_the_rules_of_another_agent_stay(links):
    table = TABLES + 1
    lead_out(links, {ONE: table})
    lead_out(links, {OTHER: table})
    lead_out(links, {}, {OTHER: table})
    assert rules() == [to(ONE, table), *MOVED]


def test_what_a_killed_daemon_left_goes_with_its_device(links):
    lead_out(links, {ONE: TABLES + 4711})
    lead_out(links, {})
    assert rules() == USUAL
