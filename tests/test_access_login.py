"""Sessions and tries, and both of them bounded."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.guard.limits import ALL_LOGIN_TRIES, LOGIN_TRIES, MAX_COOKIE_BYTES, MAX_SESSIONS
from edgeinfer.web.access.login import LIFE_S, MAX_IDS, WINDOW_S, Sessions, Tries, identities, network
from edgeinfer.web.access.tokens import Token

VIEWER, ADMIN = Token("viewer", "v", "0" * 64), Token("admin", "a", "1" * 64)
ID = "eis_" + "x" * 43


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_session_lasts_twelve_hours() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    session, identity = sessions.begin(ADMIN)
    clock.now_s += LIFE_S - 1
    assert sessions.find([identity]) == session
    clock.now_s += 1
    assert sessions.find([identity]) is None
    assert not sessions.is_open(session)


def test_a_session_is_kept_as_a_hash_and_ends_with_the_logout() -> None:
    sessions = Sessions()
    session, identity = sessions.begin(VIEWER)
    assert len(identity.removeprefix("eis_")) == 43  # 256 bits in base64
    assert identity not in repr(vars(sessions))
    sessions.end(session)
    assert sessions.find([identity]) is None
    sessions.end(session)


def test_a_flood_of_logins_ends_no_session_of_another_token() -> None:
    sessions = Sessions()
    admin, of_admin = sessions.begin(ADMIN)
    _, of_first = sessions.begin(VIEWER)
    flood = [sessions.begin(VIEWER)[1] for _ in range(MAX_SESSIONS * 2)]
    assert sessions.find([of_admin]) == admin
    assert sessions.find([of_first]) is None
    assert sum(sessions.find([each]) is not None for each in flood) == MAX_SESSIONS - 1


def test_sessions_that_are_over_take_no_room() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    for _ in range(MAX_SESSIONS):
        sessions.begin(VIEWER)
    clock.now_s += LIFE_S
    sessions.begin(VIEWER)
    assert len(sessions._open) == 1


def test_logins_at_once_get_a_session_each() -> None:
    sessions, found = Sessions(), list[str]()
    threads = [threading.Thread(target=lambda: found.append(sessions.begin(VIEWER)[1])) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 16
    assert all(sessions.find([each]) for each in found)


def test_five_wrong_tries_a_minute() -> None:
    clock = Clock()
    tries = Tries(clock)
    for _ in range(LOGIN_TRIES):
        assert tries.take("192.0.2.1") == 0
        clock.now_s += 1
    assert tries.take("192.0.2.1") == WINDOW_S - LOGIN_TRIES
    assert tries.take("192.0.2.2") == 0
    clock.now_s += WINDOW_S - LOGIN_TRIES
    assert tries.take("192.0.2.1") == 0, "the first of them is a minute old"
    assert tries.take("192.0.2.1") == 1.0


def test_a_right_try_does_not_count() -> None:
    tries = Tries(Clock())
    for _ in range(LOGIN_TRIES * 2):
        assert tries.take("192.0.2.1") == 0
        tries.forgive("192.0.2.1")
    tries.forgive("192.0.2.1")


def test_sixty_wrong_tries_a_minute_from_everywhere() -> None:
    clock = Clock()
    tries = Tries(clock)
    for index in range(ALL_LOGIN_TRIES):
        assert tries.take(f"10.0.0.{index}") == 0
    assert tries.take("192.0.2.1") == WINDOW_S
    clock.now_s += WINDOW_S
    assert tries.take("192.0.2.1") == 0


def test_a_flood_of_tries_takes_no_memory_and_prolongs_nothing() -> None:
    clock = Clock()
    tries = Tries(clock)
    for index in range(10_000):
        tries.take(f"10.0.{index >> 8}.{index & 255}")
    assert len(tries._wrong) == ALL_LOGIN_TRIES
    clock.now_s += WINDOW_S
    assert tries.take("10.0.0.0") == 0


def test_tries_at_once_are_no_more_than_one_after_the_other() -> None:
    tries, found = Tries(Clock()), list[float]()
    threads = [threading.Thread(target=lambda: found.append(tries.take("a"))) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found.count(0.0) == LOGIN_TRIES


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("", "192.0.2.1", False),
    ],
)
def test_what_counts_as_one_address(one: str, other: str, same: bool) -> None:
    assert (network(one) == network(other)) == same


@given(st.text())
def test_any_address_is_counted_and_kept_short(address: str) -> None:
    assert len(network(address)) <= 64


@given(st.text(max_size=200))
def test_any_cookies_are_looked_through(header: str) -> None:
    assert list(identities(header, "s")) == []
    assert list(identities(f"s={ID}", "s")) == [ID]


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (f"s={ID}", 1),
        (f"a=b; s={ID}; c=d", 1),
        (f"a=b;s={ID};c", 1),
        (f"s={ID}; s={ID[:-1]}y", 2),
        (f"s=rubbish; s={ID}", 1),
        (f"S={ID}", 0),
        (f"xs={ID}", 0),
        (f's="{ID}"', 0),
        (f"s={ID}x", 0),
        (f"s={ID}\n", 1),
        (f"s= {ID}", 0),
        ("s", 0),
        ("", 0),
        (";;;=;s=", 0),
    ],
)
def test_cookies(header: str, found: int) -> None:
    assert len(list(identities(header, "s"))) == found


def test_cookies_that_are_too_many() -> None:
    """Another server on this machine may set as many as the browser keeps."""
    assert len(list(identities("; ".join([f"s={ID}"] * 50), "s"))) == MAX_IDS
    assert list(identities(f"s={ID}; a={'b' * MAX_COOKIE_BYTES}", "s")) == []
