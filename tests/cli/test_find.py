# SPDX-License-Identifier: BSD-3-Clause
"""``isthmus find``: what it refuses; what it finds is shown by the scenario ``discovery``."""

from __future__ import annotations

import pytest

from cli.program import refused, run


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--interface", "nosuch0"), "'nosuch0' does not exist"),
        (("--interface", "lo", "--way", "dns"), "--way: Input should be 'dhcp' or 'slp'"),
        (("--interface", "lo", "--option", "43"), "--option: Input should be greater than or equal to 224"),
        (("--interface", "lo", "--agent", "nobody"), "--agent: Input is not a valid IPv4 address"),
        (("--interface", "lo", "--predicate", "(load"), "--predicate: "),
    ],
)
def test_what_makes_no_sense_is_refused(words, problem):
    assert problem in refused("find", *words)


def test_nobody_there_is_an_empty_answer():
    words = ("find", "--interface", "lo", "--way", "slp", "--agent", "127.0.0.1", "--seconds", "0.3")
    done = run(*words, "--json")
    assert (done.exit_code, done.stdout.strip()) == (1, "[]")
    assert run(*words).stdout == "No gateway answers on lo.\n"
