# SPDX-License-Identifier: BSD-3-Clause
"""A part of the million messages, the same every time."""

import pytest

from fuzz.million import run


@pytest.mark.rfc("3103", "9.1")
def test_random_messages_get_no_exception_and_at_most_one_answer_each():
    seen = run(20_000)
    assert {"ERROR_RESPONSE", "REGISTER_RESPONSE", "ASSIGN_RESPONSE_RSAP_IP", "FREE_RESPONSE"} <= set(seen), (
        "messages must get as far as being granted"
    )
    assert seen["silence"]
