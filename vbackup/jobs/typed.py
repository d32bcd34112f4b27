"""Keys as rows of letters that people can type from paper, with checks that find what they mistyped.

The bytes are ``kind (1) | key | check (4)``, in base32 (RFC 4648): upper case letters and 2 to 7, sixteen to a row.
Each row ends with four more characters that check it and its number.
"""

from __future__ import annotations

import base64
import binascii
import re

from blake3 import blake3

from vbackup.api import ConfigError, Unsupported
from vbackup.repository.keys import KEY_FILE_PREFIX, PRIVATE_PREFIX

_KINDS = {1: KEY_FILE_PREFIX, 2: PRIVATE_PREFIX}
_ROW, _GROUP, _CHECK = 16, 4, 4
_LINE = re.compile(r"^[ \t]*(\d{1,2})[ \t]*:(.*)$", re.MULTILINE | re.ASCII)
_ALIKE = str.maketrans("018", "OIB")  # base32 has no such digits


def rows_of(secret: bytes) -> list[str]:
    """Return the rows (``1: ABCD ...``) of a key file's content. Raises: `Unsupported` for any other secret."""
    for kind, prefix in _KINDS.items():
        body = secret.removeprefix(prefix)
        if secret.startswith(prefix) and (data := _decoded(body)) is not None:
            return _rows(bytes((kind,)) + data)
    raise Unsupported("this is no key file that vbackup made: it cannot be printed", hint="print it yourself")


def parse_rows(text: str) -> bytes:
    """Return the key file's content from a text with its rows, whatever else is in it.

    Raises: `ConfigError` naming the row that is not as it was printed.
    """
    letters = ""
    for expected, (number, row) in enumerate(_LINE.findall(text), 1):
        typed = re.sub(r"[\s-]", "", row).upper().translate(_ALIKE)
        if int(number) != expected:
            raise ConfigError(f"row {expected} of the key is missing, or is not in its place")
        if len(typed) > _ROW + _CHECK or _check(expected, typed[:-_CHECK]) != typed[-_CHECK:]:
            raise ConfigError(f"row {expected} of the key is mistyped", hint="compare it with the paper")
        letters += typed[:-_CHECK]
    data = _unbased(letters)
    body, check = data[:-4], data[-4:]
    if len(body) < 2 or blake3(body).digest(4) != check or body[0] not in _KINDS:
        raise ConfigError("the key is not complete", hint="type all its rows, each with its number, as `1: ABCD ...`")
    return _KINDS[body[0]] + base64.b64encode(body[1:])


def _rows(body: bytes) -> list[str]:
    letters = _based(body + blake3(body).digest(4))
    parts = [letters[at : at + _ROW] for at in range(0, len(letters), _ROW)]
    return [f"{number}: {_grouped(part + _check(number, part))}" for number, part in enumerate(parts, 1)]


def _grouped(letters: str) -> str:
    return " ".join(letters[at : at + _GROUP] for at in range(0, len(letters), _GROUP))


def _check(number: int, letters: str) -> str:
    return _based(blake3(f"{number}:{letters}".encode()).digest(5))[:_CHECK]


def _based(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=")


def _unbased(letters: str) -> bytes:
    try:
        return base64.b32decode(letters + "=" * (-len(letters) % 8))
    except (binascii.Error, ValueError):
        return b""


def _decoded(body: bytes) -> bytes | None:
    try:
        data = base64.b64decode(body, validate=True)
    except binascii.Error:
        return None
    return data if data and base64.b64encode(data) == body else None
