"""What is taken out of a bundle, shape by shape, and what is left in."""

from __future__ import annotations

import pytest

from edgeinfer.environment.redact import Redactor, secrets_of

MARK = "Zq9x8w7v6u5t"
JWT = f"eyJ{MARK}.eyJ{MARK}.{MARK}-_{MARK}"


@pytest.mark.parametrize(
    "text",
    [
        *(f"see {kind}-{MARK} here" for kind in ("glpat", "hf", "sk", "nvapi", "xoxb", "xoxa", "xoxp")),
        *(f"{kind}_{MARK}" for kind in ("ghp", "gho", "ghs", "github_pat", "hf")),
        JWT,
        f"({JWT})",
        f"mail to {MARK}@example.org, or not",
        f"/home/{MARK}/x",
        f"/Users/{MARK}",
        f"/media/{MARK}:/x",
        f"rtsp://{MARK}",
        f"postgres://u:a b c {MARK}@h/x",
        *(f"{name}={MARK}" for name in ("password", "passwd", "PASSPHRASE", "pwd", "my_secret", "TOKEN", "api_key")),
        *(f'"{name}": "a {MARK}"' for name in ("apikey", "api-key", "some_key", "credential", "Authorization")),
        f"bearer {MARK}",
        f"Cookie: a={MARK}",
        f"passwordOfTheCamera = {MARK}",
    ],
)
def test_what_is_taken_out(text: str) -> None:
    assert MARK not in Redactor().text(text)
    assert MARK not in str(Redactor().data({"a": [text, (text,)], "b": {"c": text}}))


def test_only_a_secret_goes_and_what_is_around_it_stays() -> None:
    assert Redactor().text(f"see /home/{MARK}/models, sent by {MARK}@x.org: ok") == (
        "see /home/<user>/models, sent by <redacted>: ok"
    )
    assert Redactor().text("first line\nrtsp://a\nlast line") == "first line\n://<redacted>\nlast line".replace(
        "://", "rtsp://"
    )


@pytest.mark.parametrize("text", ["GPU 0: Orin, 8 SMs", "/usr/lib/x.so.10", "sky-high", "eyJ", "monkeys", "a@"])
def test_what_is_left_in(text: str) -> None:
    assert Redactor().text(text) == text


def test_names_go_as_words_and_in_any_case() -> None:
    redactor = Redactor(names=["alice", "nvidia", "Root", ""])
    assert redactor.text("Alice on ALICE, alice's, malice, nvidia, root") == (
        "<name> on <name>, <name>'s, malice, nvidia, root"
    )


def test_a_secret_that_holds_another_goes_as_a_whole() -> None:
    assert Redactor(["abcd", "abcdefgh", ""]).text("x abcdefgh y abcd") == "x <redacted> y <redacted>"


def test_numbers_and_keys_stay() -> None:
    value = {"token": 5, "a": None, "b": [True, 1.5], f"{MARK}@x": "plain"}
    assert Redactor().data(value) == value


@pytest.mark.parametrize(
    ("name", "found"),
    [("DB_PASSWORD", True), ("HF_TOKEN", True), ("NGC_API_KEY", True), ("COOKIE", True), ("PATH", False)],
)
def test_variables_by_their_names(name: str, found: bool) -> None:
    assert secrets_of({name: "abcd"}) == ({"abcd"} if found else set())
    assert secrets_of({name: "abc"}) == set(), "too short to be looked for"


def test_credentials_of_any_variable_that_holds_a_url() -> None:
    assert secrets_of({"PROXY": "http://alice:pw:123@h:80/x@y"}) == {"alice", "pw:123@h:80/x"}
    assert secrets_of({"PROXY": "http://h:80/x"}) == set()
