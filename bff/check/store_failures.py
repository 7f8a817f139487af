"""Words for a Redis that cannot be reached."""

from __future__ import annotations

import redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisClusterException

_WORDS: list[tuple[tuple[str, ...], str, str]] = [
    (
        ("NOAUTH", "WRONGPASS", "INVALID USERNAME"),
        "Redis refuses the password, or wants one",
        "compare user and password in BFF_REDIS_URL",
    ),
    (
        ("CLUSTER SUPPORT DISABLED",),
        "this Redis is no node of a cluster",
        "let BFF_REDIS_URL begin with redis:// or rediss://",
    ),
    (
        ("CERTIFICATE",),
        "the certificate of Redis is not trusted",
        "name its authority with ssl_ca_certs in BFF_REDIS_URL",
    ),
    (
        ("NO MASTER FOUND",),
        "no sentinel answers and knows a primary of that name that is up",
        "check hosts, sentinel_password and the service's name in BFF_REDIS_URL, and the sentinels' log",
    ),
    (
        ("SSL", "CONNECTION CLOSED BY SERVER", "CONNECTION RESET"),
        "Redis broke the connection off: one side speaks TLS and the other does not",
        "use rediss:// where Redis has TLS, redis:// where it has not",
    ),
    (
        ("NOT KNOWN", "NAME RESOLUTION"),
        "the host of Redis cannot be resolved",
        "check the spelling of the host in BFF_REDIS_URL",
    ),
]
"""What an error's text contains, in the order in which to look; the server's own words are not passed on."""


def explain(failure: Exception, *, tls: bool) -> tuple[str, str]:
    """Words for a failed connection, and what to do. `tls`: whether the address asks for it."""
    failure = _cause(failure)
    text = "WRONGPASS" if isinstance(failure, AuthenticationError) else str(failure).upper()
    if isinstance(failure, NoPermissionError):
        return (
            "Redis does not allow PING to this user",
            "give the user the commands of docs/troubleshooting.md",
        )
    for words, why, fix in _WORDS:
        if any(word in text for word in words):
            return why, fix
    if isinstance(failure, redis.TimeoutError | TimeoutError) and tls:
        return (
            "Redis does not answer in time: perhaps it does not speak TLS there",
            "check host and port, and firewalls; use redis:// where Redis has no TLS",
        )
    if isinstance(failure, redis.TimeoutError | TimeoutError):
        return "Redis does not answer in time", "check host and port, firewalls, and that Redis does not hang"
    if isinstance(failure, redis.ConnectionError | OSError):
        return "Redis cannot be reached", "check BFF_REDIS_URL, and that Redis is running"
    return (
        f"Redis answers with an error ({type(failure).__name__})",
        "check the database number in BFF_REDIS_URL",
    )


def _cause(failure: Exception) -> Exception:
    """What lies behind the last node's failure, which is all that a cluster's client tells."""
    while isinstance(failure, RedisClusterException):
        behind = failure.__cause__ or failure.__context__
        if not isinstance(behind, Exception):
            break
        failure = behind
    return failure
