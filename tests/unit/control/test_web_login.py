"""Tokens and sessions of the web page, under a clock of the test."""

from __future__ import annotations

import pytest

from halftunnel_vpn.control.web.login import (
    MAX_SESSIONS,
    MAX_TOKENS,
    MAX_TRIES,
    MAX_WRONG,
    SESSION_IDLE,
    SESSION_LIFE,
    TOKEN_LIFE,
    WRONG_PERIOD,
    Login,
    WrongToken,
)


def refusal(login: Login, token: str, now: float) -> str:
    with pytest.raises(WrongToken) as wrong:
        login.log_in(token, now)
    return wrong.value.reason


def test_a_token_works_once_and_until_its_time_is_over():
    login = Login()
    token = login.issue(0.0)
    granted = login.log_in(token, TOKEN_LIFE - 1)
    assert login.session_of(granted.cookie, granted.code, TOKEN_LIFE)
    assert refusal(login, token, TOKEN_LIFE) == "wrong-token"
    late = login.issue(0.0)
    assert refusal(login, late, TOKEN_LIFE) == "wrong-token"


@pytest.mark.parametrize(
    "text", ["", ".", "x" * 10_000, "0123456789abcdef.", "\u00e9" * 60, "0" * 16 + "." + "A" * 43]
)
def test_what_is_no_token_is_wrong(text):
    assert refusal(Login(), text, 0.0) == "wrong-token"


def test_a_token_is_void_after_some_wrong_secrets():
    login = Login()
    token = login.issue(0.0)
    for _ in range(MAX_TRIES):
        assert refusal(login, token[:17] + "A" * 43, 1.0) == "wrong-token"
    assert refusal(login, token, 1.0) == "wrong-token"


def test_guesses_are_limited_for_a_time_and_lock_nobody_out():
    login = Login()
    token = login.issue(0.0)
    reasons = [refusal(login, f"{number:016x}." + "A" * 43, 1.0) for number in range(MAX_WRONG + 2)]
    assert reasons == ["wrong-token"] * MAX_WRONG + ["too-many-tries"] * 2
    assert login.log_in(token, 2.0)
    assert refusal(login, "x", 1.0 + WRONG_PERIOD) == "wrong-token"


def test_of_too_many_tokens_the_oldest_is_void():
    login = Login()
    tokens = [login.issue(0.0) for _ in range(MAX_TOKENS + 1)]
    assert refusal(login, tokens[0], 0.0) == "wrong-token"
    assert all(login.log_in(token, 0.0) for token in tokens[1:])


def test_a_session_needs_cookie_and_code_and_ends_by_time_idleness_or_log_out():
    login = Login()
    first, second = (login.log_in(login.issue(0.0), 0.0) for _ in range(2))
    assert login.session_of(first.cookie, second.code, 1.0) is None
    assert login.session_of(first.cookie, "", 1.0) is None
    assert login.session_of("", first.code, 1.0) is None
    now = 0.0
    while now + SESSION_IDLE / 2 < SESSION_LIFE:
        now += SESSION_IDLE / 2
        assert login.session_of(first.cookie, first.code, now)
    assert login.session_of(second.cookie, second.code, now) is None, "it was idle"
    assert login.session_of(first.cookie, first.code, SESSION_LIFE) is None
    third = login.log_in(login.issue(now), now)
    session = login.session_of(third.cookie, third.code, now)
    assert session is not None and login.is_open(session, now)
    login.log_out(session)
    assert not login.is_open(session, now) and login.session_of(third.cookie, third.code, now) is None


def test_of_too_many_browsers_the_first_is_logged_out():
    login = Login()
    granted = [login.log_in(login.issue(0.0), 0.0) for _ in range(MAX_SESSIONS + 1)]
    assert login.session_of(*granted[0], 1.0) is None
    assert all(login.session_of(*one, 1.0) for one in granted[1:])


def test_no_secret_is_kept():
    login = Login()
    token = login.issue(0.0)
    granted = login.log_in(login.issue(0.0), 0.0)
    kept = repr([(name, one.digest) for name, one in login._tokens.items()])
    kept += repr([(name, one.digest, one.code_digest) for name, one in login._sessions.items()])
    for secret in (token, *granted):
        assert secret.partition(".")[2] not in kept
