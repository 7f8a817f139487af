"""The one form of a request path. Pure.

One path decides and the same path is sent: rules that match a parsed path while the raw one travels on
are how proxies have been walked around. What could be read in two ways is refused with 400.
"""

from __future__ import annotations

import re

from bff.errors import BadRequest

_PLAIN = re.compile(rb"(?=/)(?:/[A-Za-z0-9\-_~!$&'()*+,=:@][A-Za-z0-9\-._~!$&'()*+,=:@]*)*/?\Z")
_PATH = re.compile(rb"/[\x21-\x7e]*\Z")
_QUERY = re.compile(rb"[\x21-\x7e]*\Z")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")
_FORBIDDEN = re.compile(rb'[\\#?"<>^`{|}\[\]]')
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_OVERLONG = re.compile("%C[01]%[89AB]|%E0%[89]|%F0%8")
_AMBIGUOUS = frozenset(b"/\\#?%;") | frozenset(range(0x20)) | {0x7F}


def canonical(path: bytes, *, encoded_slashes: bool = False) -> str:
    """The one form of a raw request path, which is matched and sent. Raises BadRequest.

    With `encoded_slashes` these stay in it as they are, and are no borders of segments.

    Escapes of unreserved characters are undone and the others written in upper case (RFC 3986 §6.2.2);
    encoded slashes, backslashes, percent signs and the like, also in overlong UTF-8, empty and dot
    segments, path parameters and control characters mean different things to different servers and are
    refused.
    """
    if _PLAIN.match(path):
        return path.decode("ascii")
    if not _PATH.match(path) or _FORBIDDEN.search(path):
        raise BadRequest("The path has a character that does not belong there.")
    plain = _ESCAPE.sub(_unescape_but_slashes if encoded_slashes else _unescape, path).decode("ascii")
    segments = plain.split("/")[1:]
    if any(segment == "" for segment in segments[:-1]):
        raise BadRequest("The path has an empty segment.")
    if any(segment in (".", "..") for segment in segments):
        raise BadRequest("The path has a dot segment.")
    if _OVERLONG.search(plain):  # a lenient decoder finds dots and slashes there (RFC 3629 §10)
        raise BadRequest("The path has a character in more bytes than it needs.")
    if ";" in plain:
        raise BadRequest("The path has a parameter (;), which servers read in different ways.")
    return plain


def _unescape(match: re.Match[bytes]) -> bytes:
    if match[1] is None:
        raise BadRequest("The path has a % that begins no escape.")
    octet = int(match[1], 16)
    if octet in _AMBIGUOUS:
        raise BadRequest("The path has an escape that servers read in different ways.")
    return bytes([octet]) if octet in _UNRESERVED else b"%" + match[1].upper()


def _unescape_but_slashes(match: re.Match[bytes]) -> bytes:
    return match[0] if match[0] in (b"%2F", b"%2f") else _unescape(match)


def check_query(query: bytes) -> None:
    """Refuse a query that HTTP does not allow; it is sent as it came."""
    if not _QUERY.match(query):
        raise BadRequest("The query has a character that does not belong there.")
