"""What crosses when a device comes by its tokens: exact shapes, and codes as people type them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.identity import (
    CODE_ALPHABET,
    CODE_SYMBOLS,
    PUBLIC_KEY_BYTES,
    EnrolRequest,
    NonceAnswer,
    NotAnAnswer,
    NotARequest,
    TokenAnswer,
    TokenError,
    TokenRequest,
    key_of,
    key_text,
    plain_code,
    shown_code,
)

CODES = st.text(CODE_ALPHABET, min_size=CODE_SYMBOLS, max_size=CODE_SYMBOLS)


@given(CODES)
def test_a_code_survives_being_shown_and_typed(code: str) -> None:
    """In groups, in small letters, and with the letters that look like digits."""
    assert plain_code(shown_code(code)) == code
    assert plain_code(f" {shown_code(code).lower()} ") == code
    assert plain_code(code.replace("0", "o").replace("1", "I")) == code
    assert plain_code(code.replace("1", "l")) == code


@given(st.text(max_size=40))
def test_whatever_is_typed_it_is_a_code_or_none(typed: str) -> None:
    """Nothing else comes of it."""
    code = plain_code(typed)

    assert code is None or (len(code) == CODE_SYMBOLS and set(code) <= set(CODE_ALPHABET))


@given(st.binary(min_size=PUBLIC_KEY_BYTES, max_size=PUBLIC_KEY_BYTES))
def test_a_key_has_one_way_to_be_written(key: bytes) -> None:
    """So that who signed for a text signed for a key."""
    assert key_of(key_text(key)) == key
    assert key_of(key_text(key) + "=") is None
    assert key_of(key_text(key)[:-1]) is None


@given(st.text(max_size=60))
def test_whatever_the_text_it_is_a_key_of_32_bytes_or_none(text: str) -> None:
    """And the same text comes back."""
    key = key_of(text)

    assert key is None or key_text(key) == text


def test_answers_and_requests_survive_the_way() -> None:
    """Each as it was."""
    nonce, error = NonceAnswer("n-1", 1_800_000_000), TokenError("invalid_grant", "no")
    token = TokenAnswer("a.b.c", "Bearer", 60, "pi-05")
    asked = EnrolRequest("CODE", "key", "a.b.c", "pi-05")

    assert NonceAnswer.parse(nonce.to_json()) == nonce
    assert TokenError.parse(error.to_json()) == error
    assert TokenAnswer.parse(token.to_json()) == token
    assert EnrolRequest.parse(asked.to_json()) == asked
    assert TokenRequest.parse(TokenRequest("a.b.c").to_form()) == TokenRequest("a.b.c")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Free WiFi</html>",
        b"{}",
        b"[]",
        b"\xff",
        b'{"access_token":"x","token_type":"mac","expires_in":1,"device_id":"pi-05"}',
        b'{"access_token":"x","token_type":"Bearer","expires_in":"1","device_id":"pi-05"}',
    ],
)
def test_a_portals_page_is_neither_token_nor_nonce(body: bytes) -> None:
    """Nor is anything else that has not exactly the shape."""
    with pytest.raises(NotAnAnswer):
        TokenAnswer.parse(body)
    with pytest.raises(NotAnAnswer):
        NonceAnswer.parse(body)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "invalid_request"),
        (b"grant_type", "invalid_request"),
        (b"grant_type=client_credentials", "invalid_request"),
        (b"grant_type=password", "unsupported_grant_type"),
        (b"\xff", "invalid_request"),
        (TokenRequest("a").to_form() + b"&client_assertion=b", "invalid_request"),
        (b"&".join(b"a%d=1" % number for number in range(50)), "invalid_request"),
    ],
)
def test_a_form_that_is_none_is_named_as_in_rfc_6749(body: bytes, error: str) -> None:
    """Parameters twice included."""
    with pytest.raises(NotARequest, match=error):
        TokenRequest.parse(body)


def test_no_secret_is_in_a_repr() -> None:
    """It would end up in a traceback."""
    shown = repr((EnrolRequest("CODE", "key", "ASSERTION"), TokenRequest("ASSERTION"), TokenAnswer("TOKEN", "", 1, "")))

    assert [secret for secret in ("CODE", "ASSERTION", "TOKEN") if f"'{secret}'" in shown] == []
