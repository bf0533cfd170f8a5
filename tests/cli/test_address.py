# SPDX-License-Identifier: BSD-3-Clause
"""isthmus address: what a SIP address is elsewhere."""

from __future__ import annotations

import pytest

from cli.program import answer, refused, run


def test_an_address_in_every_form():
    assert answer("address", "1:213:77:5:192.3.4.1") == [
        {
            "sip": "1.213.77.5/192.3.4.1",
            "hex": "01D5:4D05:C003:0401",
            "c": 0,
            "site": "1.213.77.5",
            "ipv4": "192.3.4.1",
            "ipv6": "fd49:5041:4500:6d74:1d5:4d05:c003:401",
            "ipv6_compatible": "fd53:4950:4300:2781:1d5:4d05:c003:401",
            "dns": r"TYPE65401 \# 8 01D54D05C0030401",
            "carried": "fd49:5041:4500:6d74:1d5:4d05:c003:401/128",
        }
    ]


def test_one_without_sip_has_the_compatible_address_only():
    (row,) = answer("address", "129.2.2.8/201.5.7.250")
    assert row["sip"] == "c1.2.2.8/201.5.7.250"
    assert row["ipv6"].startswith("fd53:4950:4300:")
    assert "ipv6_compatible" not in row


@pytest.mark.parametrize("text", ["c1.2.2.8/201.5.7.250", "1.213.77.5/192.3.4.1", "1.2.2.8", "1.2.2.8/201.5.7.0/56"])
def test_what_is_shown_is_read(text):
    (row,) = answer("address", text)
    shown = [row[each] for each in ("sip", "carried", "ipv6", "ipv6_compatible", "hex") if each in row]
    assert answer("address", *shown) == [row] * len(shown)


def test_other_prefixes_of_programs():
    (row,) = answer("address", "1.2.2.8/201.5.7.250", "--full", "fd00:0:0:2ff::/64")
    assert row["ipv6"] == "fd00::2ff:102:208:c905:7fa"
    assert "the fourth has to be 2ff" in refused("address", "1.2.2.8", "--full", "fd00::/64")


@pytest.mark.parametrize("text", ["x", "::1", "1.2.3.4/24", "1.2.3.4.5/1.2.3.4"])
def test_what_is_no_address(text):
    assert text.split("/")[0] in refused("address", text)


def test_as_text():
    result = run("address", "1.2.2.8/201.5.7.250", "1.2.")
    assert "C bit                           0, takes SIP" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
