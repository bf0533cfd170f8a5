# SPDX-License-Identifier: BSD-3-Clause
"""When a mapping zone is asked about, fetched, kept and given up."""

import pytest

from isthmus.border.mapping import Mapping
from isthmus.ipae.mapping import parse
from isthmus.ipae.zone_copy import AskSerial, CopyRules, Fetch, Replace, Soa, ZoneCopy

MAPPING = parse(b"129.144.0.0/16 c20.4.0.3").mapping


def soa(serial):
    return Soa(serial=serial, refresh=600, retry=60)


def a_copy(**rules):
    made = ZoneCopy(CopyRules(**rules), now=0)
    made.handle_timer(0)
    assert made.next_effects() == [AskSerial()]
    return made


def with_zone(serial=5, ttl=3600.0):
    made = a_copy()
    made.receive_soa(soa(serial), now=1)
    made.receive_zone(MAPPING, serial=serial, ttl=ttl, now=2)
    assert made.next_effects() == [Fetch(None), Replace(MAPPING, serial)]
    return made


@pytest.mark.rfc("ipae", "8.1")
def test_the_serial_number_is_asked_for_every_refresh_interval():
    made = with_zone()
    assert made.get_timer() == 602
    made.handle_timer(601)
    assert made.next_effects() == []
    made.handle_timer(602)
    assert made.next_effects() == [AskSerial()]
    assert made.get_timer() is None
    made.receive_soa(soa(5), now=603)
    assert made.next_effects() == []
    assert made.get_timer() == 1203


def test_only_a_newer_version_is_fetched():
    made = with_zone(serial=5)
    for serial, effects in ((5, []), (4, []), (6, [Fetch(5)])):
        made.look_now(made.get_timer())
        made.next_effects()
        made.receive_soa(soa(serial), now=700)
        assert made.next_effects() == effects


def test_serial_numbers_go_round():
    made = with_zone(serial=(1 << 32) - 1)
    made.look_now(700)
    made.receive_soa(soa(3), now=700)
    assert made.next_effects() == [AskSerial(), Fetch((1 << 32) - 1)]


def test_after_a_failure_it_is_tried_again_after_the_retry_interval():
    made = a_copy()
    made.failed(now=1)
    assert made.get_timer() == 11
    made = with_zone()
    made.handle_timer(602)
    made.failed(now=604)
    assert made.get_timer() == 664


def test_rules_of_ours_count_before_the_soa_record():
    made = a_copy(refresh=5.0, retry=2.0)
    made.receive_soa(soa(1), now=0)
    made.receive_zone(MAPPING, serial=1, ttl=60, now=0)
    assert made.get_timer() == 5
    made.handle_timer(5)
    made.failed(now=5)
    assert made.get_timer() == 7


def test_a_silent_server_leaves_the_copy_for_three_times_its_ttl():
    made = with_zone(ttl=100.0)
    now = made.get_timer()
    assert now > 3 * 100
    failures = 0
    while made.serial is not None:
        made.handle_timer(now)
        for effect in made.next_effects():
            if isinstance(effect, AskSerial):
                failures += 1
                made.failed(now=now)
            else:
                assert effect == Replace(Mapping.of(), None)
        first, now = 602, made.get_timer()
        assert made.serial is None or now <= first + 300
    assert failures == 6
    made.look_now(2000)
    made.receive_soa(soa(5), now=2000)
    assert made.next_effects()[-1] == Fetch(None)


def test_an_answer_in_time_saves_the_copy():
    made = with_zone(ttl=100.0)
    made.handle_timer(602)
    made.failed(now=602)
    made.handle_timer(662)
    made.receive_soa(soa(5), now=663)
    made.next_effects()
    made.handle_timer(902)
    assert made.next_effects() == []
    assert made.serial == 5


def test_a_version_that_was_refused_is_not_fetched_again():
    made = with_zone(ttl=100.0)
    made.look_now(600)
    made.receive_soa(soa(6), now=600)
    made.refused(now=601)
    assert made.serial == 5
    assert made.next_effects() == [AskSerial(), Fetch(5)]
    made.look_now(700)
    made.receive_soa(soa(6), now=700)
    assert made.next_effects() == [AskSerial()]
    made.look_now(701)
    made.receive_soa(soa(7), now=701)
    assert made.next_effects() == [AskSerial(), Fetch(5)]
    made.receive_zone(MAPPING, serial=7, ttl=100, now=702)
    assert made.serial == 7
    made.handle_timer(1000)
    assert made.next_effects() == [Replace(MAPPING, 7)]


def test_one_question_at_a_time():
    made = a_copy()
    made.look_now(1)
    made.look_now(2)
    assert made.next_effects() == []
