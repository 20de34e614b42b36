"""Why an answer ended, whatever its provider calls that.

OpenAI has five words for it; servers that speak its wire send those of the model's own API, of the engine behind it, or
of a client library. A word that nobody here knows stays as it is: it ends an answer, and nothing is learnt from that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

Finish = Literal["stop", "length", "content_filter", "tool_calls", "function_call", "error"]

_WORDS: Mapping[Finish, str] = {
    "stop": (
        "stop stopped stopsequence stopsequencereached stopstring stopstringfound stopcriteriamet stoptoken stopword "
        "eos eostoken eosfound eostokenfound stoppedeos stoppedword endturn endoftext endofturn endofsequence "
        "endtoken complete completed finish finished final done success normal word end"
    ),
    "length": (
        "length stoppedlimit limit maxtokens maxtoken maxoutput maxoutputtokens maxnewtokens maxlength maximumtokens "
        "maximumlength maxpredictedtokensreached tokenlimit tokenlimitreached timelimit modellength context "
        "contextlength contextlengthreached contextlengthexceeded contextwindowexceeded modelcontextwindowexceeded "
        "lengthlimit truncated truncatedfinal errorlimit incomplete pauseturn"
    ),
    "content_filter": (
        "contentfilter contentfiltered filtered filter safety moderation moderated sensitive blacklist blocklist "
        "blocked recitation prohibitedcontent spii language refusal refused guardrailintervened guardrail errortoxic "
        "imagesafety imageprohibitedcontent imagerecitation policyviolation"
    ),
    "tool_calls": "toolcalls toolcall tooluse",
    "function_call": "functioncall functioncalls",
    "error": (
        "error failed failure fault abort aborted cancelled canceled usercancel userstopped timeout timedout "
        "networkerror insufficientsystemresource modelunloaded malformedfunctioncall malformedtooluse "
        "malformedmodeloutput malformedresponse unexpectedtoolcall toomanytoolcalls missingthoughtsignature noimage "
        "imageother engineoverloaded overloaded"
    ),
}
"""By OpenAI's word (``error``: what it has none for), without anything that is no letter."""

_FINISHES: Mapping[str, Finish] = {word: finish for finish, words in _WORDS.items() for word in words.split()}
_UNSAYING = frozenset({"", "none", "null", "unspecified", "notfinished", "inprogress", "false"})
"""What some send with every part of a stream that goes on."""

_ENUM = re.compile(r"^(?:finish_?reason|stop_?reason|alternative_?status|candidate)[._]", re.IGNORECASE)
"""What enumerations put before their names."""
_NO_LETTER = re.compile(r"[^a-z]+")


def finish_of(told: object) -> str | None:
    """OpenAI's word for why an answer ended; ``error`` where it broke off, the provider's own where nobody here knows
    it, None where it did not say."""
    if not isinstance(told, str):
        return None
    if told in _WORDS:
        return told
    word = _NO_LETTER.sub("", _ENUM.sub("", told.strip()).lower())
    if word in _UNSAYING:
        return None
    return _FINISHES.get(word, told)
