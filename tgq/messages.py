"""Text for people: in messages, logs and tables of the console. It is one line, and holds no control characters and no secrets.

Ids, titles, names of files and addresses come from outside. A newline in one of them could forge a line of a log, an escape sequence could
rewrite a terminal, and a bidirectional override could show another text than stands there.
"""

from __future__ import annotations

import json
import re
from typing import Any

STARS = "***"
LONGEST = 4000  # characters of a message
# controls of C0 and C1, line and paragraph separators, bidirectional controls, invisible tags, and what is half a character
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]")
# names of settings, and of parameters of addresses, whose values nobody should read; tokens (in the plural) are counted, not kept
_NAMES = r"secret|passw(?:or)?d|passphrase|token(?!s)|credential|signature|(?:access|account|private|api|encryption|signing|shared|storage)[._-]?key"
SECRET = re.compile(rf"{_NAMES}|(?<![a-z])(?:pwd|sas)(?![a-z])", re.IGNORECASE)
_PARAMETER = re.compile(rf"(?<![\w.-])([\w.-]*(?:{_NAMES})[\w.-]*|(?<=[?&;])(?:key|sig|pwd))=[^\s&;#'\",)]+?(?=:?(?:[\s&;#'\",)]|$))", re.IGNORECASE)
# user:password@ of an address; a password may hold '@' and '/', and what looks like a port is none
_PASSWORD = re.compile(r"(://[^\s/@:'\"]*:)(?!\d+[/?#])(?:[^\s/'\"]*|[^\s'\"]*)@")
_USER = re.compile(r"(https?://)[^\s/@:'\"]+@", re.IGNORECASE)  # a token alone; in other addresses that is a name (abfss://container@account)


def printable(text: str) -> str:
    """The text in one line: characters that steer a terminal or change the order of others are escaped, as in `\\n` and `\\x1b`."""
    if text.isascii() and text.isprintable():
        return text
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def masked(text: str) -> str:
    """The text with stars in place of `user:password@` in addresses, of parameters such as `?token=`, and of values in `password=value`."""
    if "=" in text:
        text = _PARAMETER.sub(rf"\1={STARS}", text)
    if "@" in text:
        text = _USER.sub(rf"\1{STARS}@", _PASSWORD.sub(rf"\1{STARS}@", text))
    return text


def presentable(text: str) -> str:
    """The text for a message: at most LONGEST characters, without secrets and control characters. Doing it twice changes nothing."""
    if len(text) > LONGEST:
        text = text[: LONGEST - 20] + "... (cut)"
    return printable(masked(text))


def json_line(value: Any) -> str:
    """A value as JSON in one line, readable in every script; what `printable` escapes is escaped here too, as JSON has it."""
    return _UNPRINTABLE.sub(lambda found: json.dumps(found[0])[1:-1], json.dumps(value, ensure_ascii=False))
