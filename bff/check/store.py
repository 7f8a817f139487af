"""Redis: reachable, new enough, writable, and set up so that sessions stay."""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Generator, Iterator
from typing import Any

import redis
from redis.exceptions import (
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
)

from bff.check.configuration import Configuration
from bff.check.finding import Finding, error, ok, plain, warning
from bff.check.store_failures import explain
from bff.sessions.connect import connect, is_cluster
from bff.sessions.lasting import WAIT_SECONDS, ask_and_wait
from bff.settings import Settings

AREA = "redis"
OLDEST = (6, 2)
_FAILURES = (RedisError, RedisClusterException, OSError, TimeoutError)


def check_store(configuration: Configuration) -> Iterator[Finding]:
    """Everything about Redis."""
    settings = configuration.settings
    if settings is None or not configuration.usable("redis_url"):
        yield ok(AREA, "not looked at: BFF_REDIS_URL cannot be used")
        return
    if configuration.usable("env"):
        yield from check_url(settings)
    address = settings.redis_address
    client = connect(address, connections=1)
    try:
        if (yield from _reaches(client, tls=address.tls is not None)):
            yield from _check_writing(client, settings.redis_prefix)
            if address.replicated:
                yield from _check_replica(client, settings.redis_prefix)
            yield from check_facts(client)
    finally:
        client.close()


def check_url(settings: Settings) -> Iterator[Finding]:
    """What the address alone says: in production nobody on the network may read or change sessions."""
    address = settings.redis_address
    if address.tls is not None and address.tls.cert_reqs == "none":
        yield warning(
            AREA,
            "ssl_cert_reqs=none: the certificate of Redis is not verified",
            "take it out, and name a private authority with ssl_ca_certs",
        )
    if not settings.production or all(_is_loopback(host) for host, _ in address.hosts):
        return
    if address.tls is None:
        yield warning(AREA, "the connection to Redis is not encrypted", "use rediss:// (TLS)")
    if not address.login.password:
        yield warning(
            AREA, "no password for Redis", "set one, and put it into BFF_REDIS_URL (or BFF_REDIS_URL_FILE)"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reaches(client: redis.Redis, *, tls: bool) -> Generator[Finding, None, bool]:
    try:
        client.ping()
    except _FAILURES as failure:
        why, fix = explain(failure, tls=tls)
        yield error(AREA, why, fix)
        return False
    yield ok(AREA, "Redis answers")
    return True


def _check_writing(client: redis.Redis, prefix: str) -> Iterator[Finding]:
    """Write, read, run a script and delete, as sessions need it, under a key that nobody else has."""
    key, value = f"{prefix}check:{secrets.token_hex(8)}", secrets.token_hex(8).encode()
    step = "SET"
    try:
        client.set(key, value, ex=10)
        step = "GET"
        same = client.get(key) == value
        step = "EVAL (with TIME in it)"
        client.eval("return redis.call('TIME')[1]", 0)
        step = "DEL"
        client.delete(key)
    except ReadOnlyError:
        yield error(AREA, "this Redis is a read-only replica", "let BFF_REDIS_URL name the primary")
    except MovedError:
        yield _one_of_many()
    except NoPermissionError:
        yield error(
            AREA,
            f"Redis does not allow {step} on keys that begin with {prefix}",
            f"give the user ~{prefix}* and the commands of docs/troubleshooting.md",
        )
    except _FAILURES as failure:
        full = isinstance(failure, OutOfMemoryError)
        yield error(
            AREA,
            "Redis is full and takes no more" if full else f"{step} fails: {type(failure).__name__}",
            "give it more memory, or remove what does not belong there"
            if full
            else "look at the log of Redis",
        )
    else:
        if same:
            yield ok(AREA, f"keys that begin with {prefix} can be written, read and deleted")
        else:
            yield error(AREA, "what was written could not be read back", "let BFF_REDIS_URL name the primary")


def _one_of_many() -> Finding:
    return error(AREA, "this Redis is a node of a cluster", "let BFF_REDIS_URL begin with redis+cluster://")


def _check_replica(client: redis.Redis, prefix: str) -> Iterator[Finding]:
    """Whether a replica has a write in the time that a sign-out waits for one."""
    key = f"{prefix}check:{secrets.token_hex(8)}"
    try:
        _, replicas = ask_and_wait(client, key, ("SET", key, "", "EX", 1), WAIT_SECONDS)
    except _FAILURES as failure:
        yield error(AREA, f"a write fails: {type(failure).__name__}", "look at the log of Redis")
        return
    if isinstance(replicas, int) and replicas > 0:
        yield ok(AREA, "a replica acknowledges writes in time")
    elif isinstance(replicas, NoPermissionError):
        yield warning(AREA, "Redis does not allow WAIT to this user", "give the user +wait")
    else:
        yield warning(
            AREA,
            f"no replica acknowledges a write within {WAIT_SECONDS:g} s: a failover would undo sign-outs",
            "give the primary a replica, near it",
        )


def check_facts(client: redis.Redis) -> Iterator[Finding]:
    """What the server says of itself, as far as it is allowed to (managed services hide some of it)."""
    try:
        facts = _facts(client.info())
    except _FAILURES:
        yield ok(AREA, "could not tell version, eviction policy and persistence: INFO is not to be had here")
        return
    if str(facts.get("cluster_enabled", "0")) == "1" and not is_cluster(client):
        yield _one_of_many()
    yield from _check_version(str(facts.get("redis_version", "")))
    yield from _check_eviction(
        str(facts.get("maxmemory_policy") or _configured(client, "maxmemory-policy") or "")
    )
    yield from _check_persistence(client, facts)


def _facts(info: Any) -> dict[str, Any]:
    """Of one server; a cluster answers for each of its nodes."""
    if "redis_version" not in info and info and all(isinstance(each, dict) for each in info.values()):
        info = next(iter(info.values()))
    return dict(info)


def _check_version(version: str) -> Iterator[Finding]:
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None:
        yield ok(AREA, "could not tell the version of Redis")
    elif (int(numbers[1]), int(numbers[2])) < OLDEST:
        yield error(AREA, f"Redis is version {plain(version, 20)}", "use version 6.2 or newer")
    else:
        yield ok(AREA, f"Redis is version {plain(version, 20)}")


def _check_eviction(policy: str) -> Iterator[Finding]:
    if not policy:
        yield ok(AREA, "could not tell the eviction policy")
    elif policy == "noeviction":
        yield ok(AREA, "nothing is evicted when memory is full")
    else:
        yield warning(
            AREA,
            f"maxmemory-policy is {plain(policy, 40)}: when memory is full, people are signed out at random",
            "set maxmemory-policy noeviction, and enough memory",
        )


def _check_persistence(client: redis.Redis, facts: dict[str, Any]) -> Iterator[Finding]:
    if str(facts.get("aof_enabled", "0")) == "1":
        yield ok(AREA, "an append-only file keeps sessions over a restart of Redis")
        return
    save = _configured(client, "save")
    if save is None:
        yield ok(
            AREA,
            "could not tell whether Redis keeps its data: no append-only file, and CONFIG is not allowed",
        )
    elif save:
        yield ok(
            AREA, "snapshots keep most sessions over a restart of Redis; an append-only file would keep all"
        )
    else:
        yield warning(
            AREA,
            "Redis keeps nothing over its restart: everybody is signed out then",
            "switch on the append-only file (appendonly yes)",
        )


def _configured(client: redis.Redis, name: str) -> str | None:
    """One value of the configuration; None where it may not be read."""
    try:
        found: Any = client.config_get(name)
    except _FAILURES:
        return None
    values = [value for key, value in dict(found).items() if key in (name, name.encode())]
    if not values:
        return None
    return values[0].decode() if isinstance(values[0], bytes) else str(values[0])
