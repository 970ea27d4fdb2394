"""Host, Origin and Sec-Fetch-*: whose web page a request comes from."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.web.access.origin import Place, is_foreign_fetch, is_local_host, is_same_origin, place

PORTS = st.none() | st.integers(1, 65535)
NAMES = st.from_regex(r"[a-z][a-z0-9]{0,8}(\.[a-z0-9]{1,8}){0,3}", fullmatch=True)
ADDRESSES = st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(lambda found: f"[{found}]")
HOSTS = NAMES | ADDRESSES
SCHEMES = st.sampled_from(["http", "https"])


def written(host: str, port: int | None) -> str:
    return host if port is None else f"{host}:{port}"


@given(HOSTS, PORTS)
def test_a_host_is_read_as_it_was_written_in_any_case(host: str, port: int | None) -> None:
    assert place(written(host, port)) == place(written(host.upper(), port)) == Place(host.strip("[]"), port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "localhost.",
        "127.0.0.1.",
        "localhost..",
        ".localhost",
        "localhost:",
        "localhost:0x50",
        "localhost:99999",
        "localhost:123456",
        "localhost:80:80",
        "localhost:٣",
        "localhost:80\n",
        "localhost\n",
        "user@localhost",
        "user:pw@localhost:80",
        "localhost@evil.example",
        "localhost/path",
        "localhost?x",
        "localhost#x",
        "localhost, evil.example",
        "localhost evil.example",
        "http://localhost",
        "[::1",
        "::1",
        "[::1%lo]",
        "[::1%25lo]",
        "[:::1]",
        "[127.0.0.1]",
        "[]",
        "[::1]x",
        "ⅼocalhost",
        "１２７.0.0.1",
        "-",
        "*",
        "a" * 300,
    ],
)
def test_what_is_no_host(text: str) -> None:
    assert place(text) is None
    assert not is_same_origin(f"http://{text}", text, "http")
    assert is_local_host(text) == (text == ""), "without a Host it is no browser"


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:1",
        "127.0.0.1",
        "127.0.0.1:9108",
        "[::1]:9108",
        "[0:0::1]",
        "192.168.1.20",
        "ip6-localhost",
    ],
)
def test_hosts_that_are_this_machine_by_an_address_or_as_localhost(host: str) -> None:
    assert is_local_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.localhost",
        "127.0.0.1.nip.io:9108",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "127.0.0.01",
    ],
)
def test_a_name_that_may_resolve_to_this_machine_is_foreign(host: str) -> None:
    """DNS rebinding; and ways of writing an address that no browser sends."""
    assert not is_local_host(host)


@given(HOSTS, PORTS)
def test_only_addresses_and_localhost_are_local(host: str, port: int | None) -> None:
    bare = host.strip("[]")
    try:
        address = bool((IPv6Address if ":" in bare else IPv4Address)(bare))
    except ValueError:
        address = False
    assert is_local_host(written(host, port)) == (address or bare in ("localhost", "localhost.localdomain"))


@given(SCHEMES, HOSTS, PORTS)
def test_an_origin_is_the_same_as_its_own_host(scheme: str, host: str, port: int | None) -> None:
    assert is_same_origin(f"{scheme}://{written(host, port)}", written(host, port), scheme)
    assert is_same_origin(f"{scheme}://{written(host, port)}".upper(), written(host, port), scheme)
    assert not is_same_origin(
        f"{scheme}://{written(host, port)}", written(host, port), "http" if "s" in scheme else "https"
    )


@given(SCHEMES, HOSTS)
def test_the_usual_port_may_be_left_out(scheme: str, host: str) -> None:
    usual = {"http": 80, "https": 443}[scheme]
    assert is_same_origin(f"{scheme}://{host}", f"{host}:{usual}", scheme)
    assert is_same_origin(f"{scheme}://{host}:{usual}", host, scheme)
    assert not is_same_origin(f"{scheme}://{host}", f"{host}:{523 - usual}", scheme)


@given(SCHEMES, HOSTS, PORTS, HOSTS, PORTS)
def test_another_host_or_port_is_another_origin(
    scheme: str, host: str, port: int | None, other: str, other_port: int | None
) -> None:
    usual = {"http": 80, "https": 443}[scheme]
    same = (host, port or usual) == (other, other_port or usual)
    assert is_same_origin(f"{scheme}://{written(other, other_port)}", written(host, port), scheme) == same


@pytest.mark.slow
@given(
    HOSTS, PORTS, st.sampled_from(["/", "/x", "?x", "#x", " ", ".", ":", "@evil.example", ".evil.example", "\n", "%00"])
)
def test_an_origin_with_something_behind_it_is_none(host: str, port: int | None, more: str) -> None:
    assert not is_same_origin(f"http://{written(host, port)}{more}", written(host, port), "http")


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "http://",
        "127.0.0.1:9108",
        "//127.0.0.1:9108",
        "file://",
        "https://127.0.0.1:9108",
        "ws://127.0.0.1:9108",
        "http://me@127.0.0.1:9108",
        "http://127.0.0.1:9108/",
        " http://127.0.0.1:9108",
        "http://localhost:9108",
        "http://127.0.0.1:9109",
        "http://127.0.0.1",
        "http://127.0.0.1:9108, http://evil.example",
        "http://evil.example",
    ],
)
def test_origins_that_are_foreign(origin: str) -> None:
    assert not is_same_origin(origin, "127.0.0.1:9108", "http")


@given(st.text(max_size=80), st.text(max_size=80))
def test_any_text_is_foreign_or_the_same_and_never_an_error(origin: str, host: str) -> None:
    assert not is_same_origin(origin, host, "http") or place(host) is not None
    is_local_host(host)


@pytest.mark.parametrize(
    ("method", "site", "mode", "destination", "foreign"),
    [
        ("GET", "", "", "", False),  # no browser, or an old one
        ("GET", "same-origin", "cors", "empty", False),
        ("POST", "same-origin", "cors", "empty", False),
        ("GET", "none", "navigate", "document", False),  # typed
        ("GET", "cross-site", "navigate", "document", False),  # a link that was followed
        ("POST", "cross-site", "navigate", "document", True),  # a form
        ("GET", "cross-site", "navigate", "iframe", True),
        ("GET", "cross-site", "no-cors", "image", True),
        ("GET", "same-site", "no-cors", "image", True),  # another port of this machine
        ("GET", "cross-site", "no-cors", "script", True),
        ("GET", "whatever", "cors", "empty", True),
    ],
)
def test_what_a_browser_says_of_who_asks(method: str, site: str, mode: str, destination: str, foreign: bool) -> None:
    assert is_foreign_fetch(method, site, mode, destination) == foreign
