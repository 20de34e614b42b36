"""Takes personal data and secrets out of text before it reaches a disk. Standard library only.

A pattern finds candidates in time linear in the text (no run of characters is scanned from more than
a constant number of starts), and where form alone would take order numbers, prices, dates or hashes
for personal data, a check decides: Luhn and the issuer's range for cards, length and mod 97 for
IBANs, digit counts for telephone numbers, an address parser for IPv6, mixed characters for secrets.
It looks at text as written and as it reads (``router.store.escapes``). It lowers what leaks; it does not promise that
nothing does (names and street addresses stay).
"""

from __future__ import annotations

import ipaddress
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from router.store.escapes import EscapedText
from router.store.files import is_base64

Found = Iterator[tuple[int, int]]
LONG_CHARS = 8_192
PIECE_CHARS, OVERLAP_CHARS = 32_768, 8_192
LOOK_CHARS = 2**20
SHORTEST_CHARS = 6
NAMED_CHARS = 256
"""A value as long as that at most is looked at beside its key: what a word such as "password" says of it."""
NUMBERS = 10**7, 10**20
"""A smaller one holds too few digits for anything personal, a larger one too many."""


def _card_ok(match: str) -> bool:
    """A known issuer's range and length, and Luhn's check digit (ISO/IEC 7812-1, annex B)."""
    digits = re.sub(r"\D", "", match)
    if not _ISSUERS.fullmatch(digits):
        return False
    doubled = sum(sum(divmod(2 * int(d), 10)) for d in digits[-2::-2])
    return (doubled + sum(int(d) for d in digits[-1::-2])) % 10 == 0


def _iban_ok(match: str) -> bool:
    """Mod 97 (ISO 13616); the pattern has seen to each country's length."""
    compact = match.replace(" ", "").replace("-", "")
    return int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1


def _phone_ok(match: str) -> bool:
    digits = sum(c.isdigit() for c in match)
    return 8 <= digits <= 15 and not _DATE.match(match)


def _ipv6_ok(match: str) -> bool:
    groups = [g for g in match.split(":") if g]
    if len(groups) < 2 or max(map(len, groups)) < 3:
        return False
    try:
        ipaddress.IPv6Address(match)
    except ValueError:
        return False
    return True


def _token_ok(value: str) -> bool:
    """Words in kebab case have no digits; keys do."""
    return any(c.isdigit() for c in value) and any(c.isalpha() for c in value)


def _named_ok(value: str) -> bool:
    """What stands behind "password:" or "api_key=" and is not a word, a number or a placeholder."""
    kinds = (str.isdigit, str.isalpha, lambda c: not c.isalnum())
    mixed = sum(any(is_kind(c) for c in value) for is_kind in kinds) >= 2 and any(map(str.isdigit, value))
    return mixed or (len(value) >= 16 and _bits(value) > 3.3)


def _random_ok(value: str) -> bool:
    """Above 4.3 bits a character with cases and digits mixed: no hash (at most 4), no UUID, no words."""
    mixed = any(map(str.isdigit, value)) and any(map(str.isupper, value)) and any(map(str.islower, value))
    return mixed and _bits(value) > 4.3


def _bits(value: str) -> float:
    """Shannon entropy of the characters, in bits a character."""
    n = len(value)
    return -sum(c / n * math.log2(c / n) for c in Counter(value).values())


@dataclass(frozen=True, slots=True)
class _Finder:
    """A pattern and its check. What is replaced is the group ``hit`` where the pattern names one.

    Nothing is searched where the text, in lower case, holds none of ``needs`` or none of ``beside``, or no digit where
    ``digits`` says that every hit has one: most text is done with at that.
    ``again``: after a failed check, look again one character on rather than behind the match; only
    for patterns whose matches are bounded, so that the time stays linear.
    """

    pattern: re.Pattern[str]
    check: Callable[[str], bool] | None = None
    needs: tuple[str, ...] = ("",)
    beside: tuple[str, ...] = ("",)
    again: bool = False
    digits: bool = True

    def spans(self, text: str) -> Found:
        at, group = 0, "hit" if "hit" in self.pattern.groupindex else 0
        while m := self._next(text, at):
            start, end = m.span(group)
            if self.check is None or self.check(text[start:end]):
                yield start, end
                at = max(end, m.end())
            else:
                at = m.start() + 1 if self.again else m.end()

    def _next(self, text: str, at: int) -> re.Match[str] | None:
        """The first match from ``at`` on. A long text is searched piece by piece, since each search holds the
        interpreter; what reaches the end of a piece may go on behind it, so it is looked at in a longer one."""
        size = PIECE_CHARS
        while at + size < len(text):
            end = at + size
            found = self.pattern.search(text, at, end)
            if found is not None and found.end() < end - OVERLAP_CHARS:
                return found
            if found is not None and found.start() <= at + OVERLAP_CHARS:
                at, size = found.start(), 2 * size
            else:
                at = found.start() if found is not None else end - OVERLAP_CHARS
            time.sleep(0)  # lets the event loop in
        return self.pattern.search(text, at)


# Patterns begin with what a hit can begin with and look back afterwards: the engine then skips to such
# characters, several times faster than it tries every place.
_ISSUERS = re.compile(
    r"4\d{12}(?:\d{3}){0,2}"  # Visa
    r"|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"  # Mastercard
    r"|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}"  # American Express, Diners Club
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12,15}|62\d{14,17}|35(?:2[89]|[3-8]\d)\d{12}"  # Discover, UnionPay, JCB
)
_DATE = re.compile(r"\d{1,2}([-/. ])\d{1,2}\1\d{4}|\d{4}([-/. ])\d{1,2}\2\d{1,2}")
_IBAN_COUNTRIES = (
    "15NO 16BE 18DK FI FO GL NL 19MK SI 20AT BA EE KZ LT LU XK 21CH HR LI LV 22BG BH CR DE GB GE IE ME RS VA "
    "23AE GI IL IQ TL 24AD CZ ES MD PK RO SA SE SK TN VG 25LY PT ST 26IS TR 27FR GR IT MC MR SM "
    "28AL AZ BY CY DO GT HU LB PL SV 29BR EG PS QA UA 30JO KW MU 31MT SC 32LC"
)
_IBAN = (
    r"(?i)(?<![A-Z0-9])(?=[A-Z]{2}\d\d)(?:"
    + "|".join(
        rf"(?:{'|'.join(group[2:].split())})\d\d(?:[ -]?[A-Z0-9]){{{int(group[:2]) - 4}}}"
        for group in re.split(r" (?=\d\d)", _IBAN_COUNTRIES)
    )
    + r")(?![A-Z0-9])"
)
_ATS = ("@", "\uff20", "\ufe6b")  # Chinese and Japanese keyboards write the wide and the small one, and such dots
_EMAIL = (
    r"(?<![\w.\uff0e+-])[\w.\uff0e+-]{1,128}+[@\uff20\ufe6b]"
    r"(?:[^\W_](?:[\w-]{0,62})[.\uff0e\ufe52]){1,8}[^\W\d_]{2,24}(?!\w)"
)
_CARD = (
    r"[2-6](?<!\d.)(?<!\d[.,].)"
    r"(?:\d{12,18}+|\d{3}([ -])\d{4}\1\d{4}\1\d{1,4}(?:\1\d{1,3})?|\d{3}([ -])\d{6}\2\d{4,5})(?!\d)(?![.,]\d)"
)
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = rf"(?<![\w.])(?<!version )(?<!Version )(?:{_OCTET}\.){{3}}{_OCTET}(?![\w]|\.\d)"
_IPV6 = r"(?<![\w:.])[0-9A-Fa-f]{0,4}+(?::[0-9A-Fa-f]{0,4}+){2,7}(?![\w:])"
_PHONE_PLUS = r"\+(?<![\w+].)\d{1,3}(?:[ .-]?\(?\d{1,12}\)?){1,7}(?!\d)"
_PHONE_US = r"\d(?<![\w.-].)(?:\d\d|[-. ]\d{3})[-. ]\d{3}[-. ]\d{4}(?![\w-])"
_PHONE_AREA = r"\((?:\d{3}\) ?\d{3}[-. ]\d{4}|0\d{1,4}\) ?\d{4,9})(?![\w-])"
_PHONE_BARE = r"0(?<![\w.,/:#=-].)(?:1[5-7]\d{8,9}|7\d{9}|[67]\d{8}|\d(?:\.\d\d){4})(?![\w-])(?![.,:]\d)"
_PHONE_ZERO = r"0(?<![\w.,/:-].)(?<!\d .)(?:0\d{1,3}|\d{1,4})(?:[ /-]\d{2,8}){1,4}(?![\w-])(?![.,:]\d)"
_PHONE_WORDS = ("phone", "mobile", "tel", "cell", "call", "fax", "whatsapp")
_PHONE_NAMED = (
    r"[pmtcfwPMTCFW](?i:hone|obile|el|ell|all|ax|hatsapp)[a-z]{0,6}\W{1,4}"
    r"(?:(?:no|number|is|me|us|at|on)\W{1,3}){0,3}(?P<hit>\d{8,15}+)(?!\w)"
)
_PEM = (
    r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
    r"(?s:.*?)(?:-----END [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----|\Z)"
)
_JWT = r"e(?<![\w-].)yJ[\w-]{5,}+\.[\w-]{5,}+\.[\w-]*+"
_KEYS = (  # known vendors' prefixes, less their first letter
    r"[AENPSdfghklnprstvwxy](?<![\w-].)(?:k-[\w-]{16,}+|k_(?:live|test)_\w{10,}+|h[pousr]_\w{20,}+"
    r"|ithub_pat_\w{20,}+|lpat-[\w-]{16,}+|ox[abeoprs]-[\w-]{10,}+|(?:KIA|SIA|BIA|CCA)[A-Z0-9]{16}(?!\w)"
    r"|Iza[\w-]{30,}+|a29\.[\w-]{20,}+|[fw]_\w{20,}+|sk_\w{20,}+|pm_\w{30,}+|ypi-[\w-]{20,}+|hsec_\w{20,}+"
    r"|op_v1_\w{40,}+|G\.[\w-]{16,}+\.[\w-]{16,}+|K[0-9a-f]{32}(?!\w)|(?:ai|plx|vapi|vly|skey|ey)-[\w-]{20,}+"
    r"|8_\w{20,}+|api[\w-]{30,}+|(?:in_api|hp(?:at|ss|ca|pa)|ckr_pat|igd|tn|csk|sv2_[a-z]{2}|ecret|bp|l(?:sa|c))_[\w-]{20,}+"
    r"|(?:MAK|RAK)-[\w-]{20,}+|TATT[\w=-]{20,}+|v[sb]\.[\w-]{20,}+|p\.[a-z]{2,4}\.\w{20,}+|AA\w{30,}+"
    r"|q0[a-z]{3}-[\w-]{20,}+|GE-SECRET-KEY-\w{20,}+)"
)
_WEBHOOK = r"(?<=hooks\.slack\.com/)(?P<hit>[\w/]{20,}+)"
_BEARER = r"(?i:\b(?:bearer|basic))\s{1,4}(?P<hit>[\w.~+/-]{16,}+=*)"
_USERINFO = r"(?<=://)(?P<hit>[^\s/:@]{1,64}+:[^\s/@]{1,128}+)(?=@)"
_NAMED_WORDS = ("key", "secret", "token", "passw", "passphrase", "pwd")
_NAMED = (
    r"[aApPsStT](?i:pi[_-]?key|ccess[_-]?key|rivate[_-]?key|ecret(?:[_-]?(?:access[_-]?)?key)?|oken|assword|asswd"
    r"|assphrase|asswort|wd)"
    r"(?:\\?[\"'])?\s{0,3}(?:[:=]|\bis\b)\s{0,3}(?:\\?[\"'])?(?P<hit>[^\s\"'\\,;()\[\]{}<>$]{6,}+)"
)
_RANDOM = r"[:=]\s?[\"']?(?P<hit>[\w+/-]{32,}+={0,2})"

_DIGIT = re.compile(r"\d")
_FINDERS: dict[str, tuple[_Finder, ...]] = {
    "secret": (
        _Finder(re.compile(_PEM), needs=("private key",), digits=False),
        _Finder(re.compile(_JWT), needs=("eyj",), digits=False),
        _Finder(re.compile(_KEYS), _token_ok),
        _Finder(re.compile(_WEBHOOK), needs=("hooks.slack.com/",)),
        _Finder(re.compile(_BEARER), _token_ok, needs=("bearer", "basic")),
        _Finder(re.compile(_USERINFO), needs=("://",), digits=False),
        _Finder(re.compile(_NAMED), _named_ok, needs=_NAMED_WORDS, beside=(":", "=", "is"), digits=False),
        _Finder(re.compile(_RANDOM), _random_ok, needs=(":", "=")),
    ),
    "email": (_Finder(re.compile(_EMAIL), needs=_ATS, digits=False),),
    "iban": (_Finder(re.compile(_IBAN), _iban_ok, again=True),),
    "card": (_Finder(re.compile(_CARD), _card_ok, again=True),),
    "phone": (
        _Finder(re.compile(_PHONE_PLUS), _phone_ok, needs=("+",), again=True),
        _Finder(re.compile(_PHONE_US), _phone_ok, again=True),
        _Finder(re.compile(_PHONE_AREA), _phone_ok, needs=("(",), again=True),
        _Finder(re.compile(_PHONE_ZERO), _phone_ok, needs=("0",), again=True),
        _Finder(re.compile(_PHONE_BARE), _phone_ok, needs=("0",), again=True),
        _Finder(re.compile(_PHONE_NAMED), _phone_ok, needs=_PHONE_WORDS, again=True),
    ),
    "ip": (
        _Finder(re.compile(_IPV4), needs=(".",)),
        _Finder(re.compile(_IPV6), _ipv6_ok, needs=(":",), again=True),
    ),
}
KINDS = frozenset(_FINDERS)


def redact(text: str, kinds: Collection[str]) -> str:
    """Replaces what the kinds name by ``[EMAIL]``, ``[CARD]`` and so on. Unknown kinds raise KeyError."""
    return _redacted(text, *_finders(tuple(kinds)))


def _redacted(text: str, with_digits: _Plan, without: _Plan) -> str:
    if len(text) < SHORTEST_CHARS:
        return text
    if "\\" in text or "%" in text:
        text = _redacted_as_read(text, with_digits, without)
    for label, finder in _steps(text, with_digits, without):
        text = _replace(text, finder.spans(text), label)
        if len(text) > LONG_CHARS:
            time.sleep(0)  # a pass holds the interpreter: let the event loop in between two
    return text


def _redacted_as_read(text: str, with_digits: _Plan, without: _Plan) -> str:
    """Looked for with the escapes read, replaced as it was written: what else stands there stays as it is."""
    read = EscapedText(text)
    if not read:
        return text
    for label, finder in _steps(read.text, with_digits, without):
        if found := [read.span(*span) for span in finder.spans(read.text)]:
            text = _replace(text, iter(found), label)
            read = EscapedText(text)
        if len(text) > LONG_CHARS:
            time.sleep(0)
    return text


def _steps(text: str, with_digits: _Plan, without: _Plan) -> _Plan:
    """Those that may find anything. A long text is looked at piece by piece: each look holds the interpreter."""
    if len(text) <= LOOK_CHARS:
        return _steps_of_piece(text, with_digits, without)
    found: set[tuple[str, _Finder]] = set()
    for at in range(0, len(text), LOOK_CHARS):
        found.update(_steps_of_piece(text[at : at + LOOK_CHARS + OVERLAP_CHARS], with_digits, without))
    return [step for step in with_digits if step in found]


def _steps_of_piece(text: str, with_digits: _Plan, without: _Plan) -> _Plan:
    if text.isalpha():
        return ()
    lower = text.lower()
    has_digit = _has_digit(text)
    if not has_digit and not _tells(lower):
        return ()
    plan = with_digits if has_digit else without
    return [step for step in plan if _has_one(lower, step[1].needs) and _has_one(lower, step[1].beside)]


def _has_one(lower: str, pieces: tuple[str, ...]) -> bool:
    for piece in pieces:  # noqa: SIM110  (a generator would cost as much again)
        if piece in lower:
            return True
    return False


def _has_digit(text: str) -> bool:
    if text.isascii():  # several times faster than the expression
        raw = text.encode()
        return len(raw.translate(None, b"0123456789")) < len(raw)
    return _DIGIT.search(text) is not None


def _tells(lower: str) -> bool:
    """Whether a text without a digit can hold anything: what its finders need has one of these in it each."""
    return (
        "@" in lower or _ATS[1] in lower or _ATS[2] in lower
        or "key" in lower or "secret" in lower or "token" in lower or "pass" in lower or "pwd" in lower
        or "eyj" in lower or "://" in lower
    )  # fmt: skip


_Plan = Sequence[tuple[str, _Finder]]


@cache
def _finders(kinds: tuple[str, ...]) -> tuple[_Plan, _Plan]:
    """(what replaces a hit, finder) in the order of ``_FINDERS``: for text with digits, and without."""
    if unknown := set(kinds) - KINDS:
        raise KeyError(f"no such kind of personal data: {sorted(unknown)}")
    plan = tuple((f"[{kind.upper()}]", f) for kind, found in _FINDERS.items() if kind in kinds for f in found)
    return plan, tuple(step for step in plan if not step[1].digits)


def _replace(text: str, spans: Found, label: str) -> str:
    pieces: list[str] = []
    at = 0
    for start, end in spans:
        pieces += (text[at:start], label)
        at = end
    return "".join((*pieces, text[at:])) if pieces else text


def redact_json(value: Any, kinds: Collection[str]) -> Any:
    """The same for all that parsed JSON says, as a copy: strings, keys, and whole numbers as long as a card's; a value
    also for what its key says of it. Pictures and sound stay, in base64."""
    return _redacted_json(value, *_finders(tuple(kinds)))


def _redacted_json(value: Any, with_digits: _Plan, without: _Plan) -> Any:
    if isinstance(value, str):
        return value if is_base64(None, value) else _redacted(value, with_digits, without)
    if isinstance(value, dict):
        return _redacted_items(value, with_digits, without)
    if isinstance(value, list | tuple):
        return [_redacted_json(item, with_digits, without) for item in value]
    return _redacted_number(value, "", with_digits, without) if isinstance(value, int | float) else value


def _redacted_items(value: dict[Any, Any], with_digits: _Plan, without: _Plan) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key, item in value.items():
        name = _redacted(key, with_digits, without) if isinstance(key, str) else key
        if isinstance(item, str) and is_base64(key, item):
            clean: Any = item
        elif isinstance(item, str) and len(item) <= NAMED_CHARS and isinstance(name, str) and _tells_of(name):
            clean = _redacted(f"{name}: {item}", with_digits, without).removeprefix(f"{name}: ")
        elif isinstance(item, int | float):
            clean = _redacted_number(item, f"{name}: ", with_digits, without)
        else:
            clean = _redacted_json(item, with_digits, without)
        found[_free(name, found) if name != key else key] = clean
    return found


def _redacted_number(value: float, before: str, with_digits: _Plan, without: _Plan) -> Any:
    if not NUMBERS[0] <= abs(value) < NUMBERS[1] or (isinstance(value, float) and not value.is_integer()):
        return value
    written = f"{before}{int(value)}"
    clean = _redacted(written, with_digits, without)
    return value if clean == written else clean.removeprefix(before)


def _tells_of(key: str) -> bool:
    """Whether a key may say of its value that it is a secret or somebody's number."""
    lower = key.lower()
    return _has_one(lower, _NAMED_WORDS) or _has_one(lower, _PHONE_WORDS)


def _free(name: str, taken: Collection[Any]) -> str:
    """Two keys may have held the same kind of thing: neither's value goes for it."""
    found, n = name, 1
    while found in taken:
        n += 1
        found = f"{name} {n}"
    return found
