"""Personal data and secrets are found; what only looks like them stays."""

import json
import time
from typing import Any

import pytest

from router.store import redaction as store_redact
from router.store.redaction import KINDS, LOOK_CHARS, OVERLAP_CHARS, PIECE_CHARS, _finders, _tells, redact, redact_json

TAIL = "Ab12Cd34Ef56Gh78Ij90Kl12Mn34Op56Qr78"
HEX = "0123456789abcdef" * 2
VENDORS = [
    *(f"{prefix}{TAIL}" for prefix in (
        "sk-", "sk-ant-api03-", "gsk_", "xai-", "r8_", "AIza", "ghp_", "github_pat_", "glpat-", "hf_", "npm_", "fw_",
        "lin_api_", "secret_", "ntn_", "hvs.", "dp.pt.", "nvapi-", "tvly-", "pcsk_", "figd_", "dckr_pat_",
        "tskey-auth-", "sq0atp-", "sk_live_", "rk_live_", "whsec_", "ATATT3xFfGF0", "EAA", "ya29.", "AGE-SECRET-KEY-1",
    )),
    *(f"{prefix}{HEX}" for prefix in (
        "sk-or-v1-", "pplx-", "dapi", "shpat_", "key-", "sbp_", "SK", "lsv2_pt_", "pypi-",
    )),
    f"glsa_{TAIL}_01234567", f"PMAK-{HEX}-{HEX}", "NRAK-ABCDEFGHIJ0123456789ABCDEFG", "ASIAY34FZKBOKMUTVV7A",
    "xoxb-123456789012-1234567890123-AbCdEfGhIjKlMnOpQrStUvWx",
]  # fmt: skip

PLANTED = [
    ("email", "write to ada.lovelace+x@mail.example.co.uk, please", "write to [EMAIL], please"),
    ("email", "<jürgen@exämple.de>.", "<[EMAIL]>."),
    ("phone", "call +49 (0)171 234-5678 now", "call [PHONE] now"),
    ("phone", "+14155552671", "[PHONE]"),
    ("phone", "US: (415) 555-2671 or 415-555-2671.", "US: [PHONE] or [PHONE]."),
    ("phone", "UK 020 7946 0958, FR 06 12 34 56 78, DE 0171/2345678", "UK [PHONE], FR [PHONE], DE [PHONE]"),
    ("phone", "my phone number is 4155552671!", "my phone number is [PHONE]!"),
    ("phone", "0049 171 2345678", "[PHONE]"),
    ("card", "paid with 4111 1111 1111 1111 today", "paid with [CARD] today"),
    ("card", "cards 5555-5555-5555-4444, 378282246310005, 3782 822463 10005", "cards [CARD], [CARD], [CARD]"),
    ("card", "order 1234 4111 1111 1111 1111", "order 1234 [CARD]"),
    ("iban", "to DE89 3704 0044 0532 0130 00 AND GB82WEST12345698765432.", "to [IBAN] AND [IBAN]."),
    ("iban", "nl91abna0417164300", "[IBAN]"),
    ("ip", "from 192.168.13.37 and 2001:db8:85a3::8a2e:370:7334", "from [IP] and [IP]"),
    ("ip", "at 10.0.0.1.", "at [IP]."),
    ("secret", "key sk-proj-Ab12Cd34Ef56Gh78Ij90 ok", "key [SECRET] ok"),
    ("secret", "ghp_abcdefghijklmnopqrstuvwxyz0123456789", "[SECRET]"),
    ("secret", "AKIAIOSFODNN7EXAMPLE", "[SECRET]"),
    ("secret", "Authorization: Bearer abc.DEF-123456789xyz", "Authorization: Bearer [SECRET]"),
    ("secret", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "[SECRET]"),
    ("secret", "a -----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc=\n-----END RSA PRIVATE KEY----- b", "a [SECRET] b"),
    ("secret", "-----BEGIN PRIVATE KEY-----\nMIIE cut off", "[SECRET]"),
    ("secret", "postgres://app:hunter2@db/x", "postgres://[SECRET]@db/x"),
    ("secret", "DB_PASSWORD=corr3ct-horse;", "DB_PASSWORD=[SECRET];"),
    ("secret", 'my password is "Tr0ub4dor&3"', 'my password is "[SECRET]"'),
    ("secret", r"{\"api_key\": \"a1b2c3d4e5\"}", r"{\"api_key\": \"[SECRET]\"}"),
    ("secret", "X_SIGNING=aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dF", "X_SIGNING=[SECRET]"),
    ("secret", "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQOY\n-----END PGP PRIVATE KEY BLOCK-----.", "[SECRET]."),
    (
        "secret",
        "Passwort: geheim123, 'password': 'correct-horse-battery-staple'",
        "Passwort: [SECRET], 'password': '[SECRET]'",
    ),
    ("secret", "https://hooks.slack.com/services/T01/B04/a1B2c3D4e5F6g7H8", "https://hooks.slack.com/[SECRET]"),
    *(("secret", f"use {key} now", "use [SECRET] now") for key in VENDORS),
    ("phone", "1-800-555-0199, 06.12.34.56.78, (030) 1234567, 01712345678", "[PHONE], [PHONE], [PHONE], [PHONE]"),
    ("iban", "DE89-3704-0044-0532-0130-00", "[IBAN]"),
]

INNOCENT = [
    "order 4929100200300400 was late",  # 16 digits in Visa's range, no valid check digit
    "order 112-1234567-1234567, invoice 2024-000123, ticket #0012345",
    "it costs 1,299.00 USD, or 1 200 000 for all; 0.25 each",
    "on 2024-01-02 at 12:30:45, 01/02/2024, 01-02-2024 and 2024-01-02T12:30:45.123Z",
    "unix 1700000000 and 1700000000123, ISBN 978-0-306-40615-7",
    "commit 9fceb02d0ae598e95dc970b74767f19372d61af8, etag=9fceb02d0ae598e95dc970b74767f193",
    "id=550e8400-e29b-41d4-a716-446655440000",
    "version 1.2.3.4 and v10.0.0.1, section 3.2.1",
    "std::vector and a::b, 12:30:45, 00:1B:44:11:3A:B7",
    "max_tokens: 4096, token: required, password: ********",
    "the secret is kindness; a token of affection",
    "sk-learn-is-a-kebab-cased-name",
    "say @everyone, a@b, x = y@z",
    "DE12 is a road, GB99 too",
    "rooms 101 102 103 104, scores 10 20 30 40 50 60",
    "3.14159265358979323846, 4111.1111",
    "the secret_santa_list and a key-value-store, an api_reference, dp.table.columns, shp_files, monkey-patching",
    "padded 0001234567, item 0812345678, part no. 01.02.03, release 10.06.12.34",
    "call tell and fax, mobile-first, a cell of 12345678 rows",
]


@pytest.mark.parametrize(("kind", "text", "expected"), PLANTED)
def test_planted_data_is_replaced_by_its_kind(kind: str, text: str, expected: str) -> None:
    assert redact(text, [kind]) == expected


@pytest.mark.parametrize("text", INNOCENT)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert redact(text, KINDS) == text


def test_kinds_not_named_stay() -> None:
    assert redact("a@example.com 4111111111111111", ["card"]) == "a@example.com [CARD]"
    assert redact("a@example.com", []) == "a@example.com"


def test_messages_are_walked_and_left_as_they_were() -> None:
    body = {
        "model": "gpt-4o",
        "temperature": 0.2,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "I am a@example.com"}, {"type": "image_url"}]},
            {"role": "assistant", "tool_calls": [{"function": {"arguments": '{"to": "b@example.com"}'}}]},
        ],
        "image": "data:image/png;base64,iVBORw0KGgo4111111111111111",
    }
    before = json.dumps(body)
    clean = redact_json(body, KINDS)
    assert json.dumps(body) == before
    assert clean["messages"][0]["content"][0]["text"] == "I am [EMAIL]"
    assert clean["messages"][1]["tool_calls"][0]["function"]["arguments"] == '{"to": "[EMAIL]"}'
    assert (clean["model"], clean["temperature"], clean["image"]) == ("gpt-4o", 0.2, body["image"])


HOSTILE = [
    "a" * 50, "a@", "1 ", "1-", "0 12 ", "+1 ", "(1", "eyJa.", "sk-", "sk-a", "::", "1.", "://a:", "token=",
    "password is ", "-----BEGIN PRIVATE KEY-----", "bearer ", "DE89 3704 ", "phone no ", "=aB3", "a.", "SG.",
    "\\", "\\u0040", "\\u005c", "%25", "\\u005cu005c", "a\\u0040",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_time_is_linear_in_hostile_text(piece: str) -> None:
    def seconds(size: int) -> float:
        text = piece * (size // len(piece))
        start = time.process_time()
        redact(text, KINDS)
        return time.process_time() - start

    # Ten times the text may take ten times the time; quadratic patterns would take a hundred.
    assert seconds(200_000) < 40 * max(seconds(20_000), 0.002)


def test_no_finder_needs_what_the_first_glance_passes_over() -> None:
    """A text without digits is done with where none of a few pieces is in it; each finder's needs must have one."""
    _, without = _finders(tuple(KINDS))
    assert without
    for label, finder in without:
        assert all(_tells(piece) for piece in finder.needs), label


SECRETS = {
    "email": "jo.doe@example.com", "card": "4111 1111 1111 1111", "iban": "DE89 3704 0044 0532 0130 00",
    "phone": "+49 30 123456 78", "secret": "sk-abcdefghij0123456789klmn",
}  # fmt: skip


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("around", [" ", "word "])
def test_in_a_long_text_nothing_is_missed_where_it_is_cut(kind: str, around: str) -> None:
    """A long text is searched piece by piece: what lies across an edge is found as anywhere."""
    found = SECRETS[kind]
    for edge in (PIECE_CHARS, PIECE_CHARS - OVERLAP_CHARS, 2 * PIECE_CHARS - OVERLAP_CHARS):
        for shift in range(0, len(found) + 2, 3):
            before = (around * PIECE_CHARS * 2)[: edge - shift - 1]
            text = f"{before} {found} " + around * PIECE_CHARS
            assert redact(text, [kind]) == text.replace(found, f"[{kind.upper()}]")


def test_a_secret_longer_than_a_piece_goes_whole() -> None:
    key = "-----BEGIN PRIVATE KEY-----\n" + "abcdefgh\n" * PIECE_CHARS + "-----END PRIVATE KEY-----"
    text = "a word " * PIECE_CHARS + key + " and a word" * PIECE_CHARS
    assert redact(text, ["secret"]) == text.replace(key, "[SECRET]")
    assert redact(f"x {key[:-25]}", ["secret"]) == "x [SECRET]"


def test_no_look_is_at_more_than_a_piece_of_a_long_text(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    look = store_redact._steps_of_piece

    def noted(text: str, *plans: Any) -> Any:
        looked.append(len(text))
        return look(text, *plans)

    monkeypatch.setattr(store_redact, "_steps_of_piece", noted)
    for filler in ("a", "ab1. ", "漢é "):
        text = filler * (2 * LOOK_CHARS) + " anna@example.com"
        assert redact(text, KINDS) == filler * (2 * LOOK_CHARS) + " [EMAIL]"
    assert max(looked) <= LOOK_CHARS + OVERLAP_CHARS


def twice(text: str) -> str:
    """A text inside JSON inside JSON, with every sign that is no letter written as an escape."""
    inner = "".join(c if c.isalnum() else f"\\u{ord(c):04x}" for c in text)
    return json.dumps({"body": f'{{"to":"{inner}"}}'})


ESCAPED = [
    ("email", r'{"to":"ada\u0040example.com"}', '{"to":"[EMAIL]"}'),
    ("email", r'{"to":"\u0061da@example\u002ecom","n":1}', '{"to":"[EMAIL]","n":1}'),
    ("email", r'{"to":"x\nada@example.com"}', r'{"to":"x\n[EMAIL]"}'),
    ("email", r'{"to":"ada\u0040example.com', '{"to":"[EMAIL]'),
    ("email", r"He wrote ```{\"to\":\"ada\\u0040example.com\"}```", r"He wrote ```{\"to\":\"[EMAIL]\"}```"),
    ("email", r"ada\u005cu0040example.com", "[EMAIL]"),
    ("email", "https://x.example/?to=ada%40example.com&n=1", "https://x.example/?to=[EMAIL]&n=1"),
    ("phone", r'{"text":"call\n+49 171 2345678\tnow"}', r'{"text":"call\n[PHONE]\tnow"}'),
    ("phone", r'{"text":"\u002b49 171 2345678"}', '{"text":"[PHONE]"}'),
    ("card", r'{"n":"4111\u00201111\u00201111\u00201111"}', '{"n":"[CARD]"}'),
    ("secret", r'{"password"\u003a "corr3ct-horse"}', r'{"password"\u003a "[SECRET]"}'),
    ("secret", r'{"k":"\u0073k-proj-Ab12Cd34Ef56Gh78Ij90"}', '{"k":"[SECRET]"}'),
    ("secret", r"postgres://app:hun\ter2@db/x", "postgres://[SECRET]@db/x"),
]


@pytest.mark.parametrize(("kind", "text", "expected"), ESCAPED)
def test_what_is_written_in_escapes_is_replaced_and_what_stands_around_it_is_not(
    kind: str, text: str, expected: str
) -> None:
    assert redact(text, {kind}) == expected


@pytest.mark.parametrize(("kind", "text", "_"), PLANTED)
def test_no_layer_of_json_hides_anything(kind: str, text: str, _: str) -> None:
    hidden = twice(text)
    clean = redact(hidden, {kind})
    assert f"[{kind.upper()}]" in clean
    if "cut off" not in text:  # a key without an end may go on to the end
        json.loads(json.loads(clean)["body"])


ESCAPES = [r"C:\new\table", "100% of 5%20", r"\u12", r"a\\b", "\\" * 5, r'{"a":"\ud83d\ude00"}']


@pytest.mark.parametrize("text", [*INNOCENT, *ESCAPES])
def test_escapes_of_what_only_looks_like_it_stay(text: str) -> None:
    assert redact(text, KINDS) == text
    assert redact(twice(text), KINDS) == twice(text)


def test_json_is_looked_at_key_by_key() -> None:
    body = {
        "messages": [{"role": "ada@example.com", "content": "data: ada@example.com"}],
        "metadata": {"ada@example.com": {"model": "bob@example.com"}, "eve@example.com": [4111111111111111]},
        "tools": [{"function": {"name": "pay", "parameters": {"enum": ["ada@example.com", 4111111111111111.0]}}}],
        "extra": {"password": "corr3ct-horse", "phone": 4155552671, "token_count": 4155552671, "n": [1e300, 10**30]},
        "file": {"data": "ada@example.com," * 200},
    }
    assert redact_json(body, KINDS) == {
        "messages": [{"role": "[EMAIL]", "content": "data: [EMAIL]"}],
        "metadata": {"[EMAIL]": {"model": "[EMAIL]"}, "[EMAIL] 2": ["[CARD]"]},
        "tools": [{"function": {"name": "pay", "parameters": {"enum": ["[EMAIL]", "[CARD]"]}}}],
        "extra": {"password": "[SECRET]", "phone": "[PHONE]", "token_count": 4155552671, "n": [1e300, 10**30]},
        "file": {"data": "[EMAIL]," * 200},
    }


def test_pictures_stay_as_they_are() -> None:
    picture = "data:image/png;base64," + "4111111111111111" * 100
    body = {"content": [{"image_url": {"url": picture}}, {"input_audio": {"data": "4111111111111111" * 100}}]}
    assert redact_json(body, KINDS) == body


@pytest.mark.parametrize(
    "written",
    [
        "jo\uff20example.com",
        "jo.doe\uff20example\uff0ecom",
        "jo\uff0edoe\ufe6bmail.example\ufe52com",
        "\uff4a\uff4f\uff20\uff45\uff58\uff0e\uff43\uff4f\uff4d",
    ],
)
def test_addresses_in_wide_characters_are_found(written: str) -> None:
    for said in (f"an {written}, bitte", json.dumps(f"an {written}, bitte")):
        assert redact(said, ["email"]) == said.replace(json.dumps(written)[1:-1], "[EMAIL]").replace(written, "[EMAIL]")
    assert redact("9 \uff20 home. \uff20", ["email"]) == "9 \uff20 home. \uff20"
