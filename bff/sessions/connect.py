"""Connections to Redis that fail fast: short time-outs, one quick retry, and as many as there are threads.

A primary is looked up by its sentinels for every new connection, a cluster's map is kept by redis-py.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Any, cast

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool

from bff.settings.redis_url import Login, RedisAddress

CONNECT_SECONDS = 0.5
ANSWER_SECONDS = 0.7
SENTINEL_SECONDS = 0.25
"""For connecting to a sentinel, and for its answer: another one may know as well."""
LOOK_SECONDS = 1.0
"""How often sentinels are asked whether another Redis has become the primary."""
POOL_WAIT_SECONDS = 1.0
RETRIES = 1
_BACKOFF = {"cap": 0.1, "base": 0.02}


def connect(address: RedisAddress, *, connections: int) -> redis.Redis:
    """A client for so many threads. Nothing is asked yet: a Redis that is down stops no start."""
    options = _login(address.login) | {
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": ANSWER_SECONDS,
        "decode_responses": False,
    }
    if address.kind == "cluster":
        return cast("redis.Redis", LazyCluster(address, options | _tcp(address)))
    options |= {"db": address.db, "health_check_interval": 0, "retry": _retry()}
    if address.kind == "sentinel":
        return _of_sentinels(address, options | _tcp(address))
    pool = redis.BlockingConnectionPool(  # type: ignore[no-untyped-call]
        **_place(address), max_connections=connections, timeout=POOL_WAIT_SECONDS, **options
    )
    return redis.Redis.from_pool(pool)  # closed with the client


class LazyCluster:
    """redis-py's client of a cluster, made when it is first asked for something: it connects at once."""

    def __init__(self, address: RedisAddress, options: dict[str, Any]) -> None:
        self._hosts = address.hosts
        self._options = options
        self._lock = threading.Lock()
        self._made: RedisCluster | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cluster(), name)

    def cluster(self) -> RedisCluster:
        """The client itself. Raises RedisClusterException where no node answers."""
        with self._lock:
            if self._made is None:
                self._made = RedisCluster(
                    startup_nodes=[ClusterNode(*host) for host in self._hosts],  # type: ignore[no-untyped-call]
                    retry=_retry(),
                    reinitialize_steps=1,
                    **self._options,
                )
            return self._made

    def close(self) -> None:
        """Hang up."""
        if self._made is not None:
            self._made.close()

    def __enter__(self) -> LazyCluster:
        return self

    def __exit__(self, *_failure: object) -> None:
        self.close()


class AllSentinels(Sentinel):
    """redis-py's, but for how it finds the primary: it takes the first sentinel's word, and waits until that
    one counts the failover as over, with all replicas moved. A promoted primary works seconds before."""

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Host and port of the primary. Raises MasterNotFoundError."""
        named: Counter[tuple[str, int]] = Counter()
        failures = []
        for sentinel in self.sentinels:
            try:
                found: Any = sentinel.sentinel_get_master_addr_by_name(service_name)
            except redis.RedisError as failure:
                failures.append(repr(failure))
            else:
                named.update([] if found is None else [(found[0].decode(), int(found[1]))])
        if not named:
            raise MasterNotFoundError(f"No master found: {', '.join(failures)}")
        hosts = [host for host, _ in named.most_common()]
        return next((host for host in hosts if len(hosts) > 1 and self._is_primary(*host)), hosts[0])

    def _is_primary(self, host: str, port: int) -> bool:
        """Asked where they disagree: some have not heard of a failover yet."""
        try:
            with redis.Redis(host, port, **self.connection_kwargs) as client:
                role: Any = client.role()
        except redis.RedisError:
            return False
        return bool(role[0] == b"master")


class WatchfulPool(SentinelConnectionPool):
    """Looks now and then who is the primary, also while all connections are well: one that was replaced by
    hand goes on for seconds, and what is written there is lost."""

    def __init__(self, service: str, sentinel: Sentinel, **options: Any) -> None:
        super().__init__(service, sentinel, **options)  # type: ignore[no-untyped-call]
        self._look_at = 0.0

    def get_connection(self, *_command: Any, **_options: Any) -> Any:
        """A connection to the primary. Raises RedisError."""
        if time.monotonic() > self._look_at:
            self._look_at = time.monotonic() + LOOK_SECONDS
            with suppress(redis.RedisError):  # no sentinel is no reason to leave a primary that answers
                self.get_master_address()  # type: ignore[no-untyped-call]  # lets connections to another one go
        return super().get_connection()

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Hang up; for good, and on the sentinels, too, unless connections in use are spared."""
        super().disconnect(inuse_connections)
        if inuse_connections:
            self.sentinel_manager.close()


def is_cluster(client: Any) -> bool:
    """Whether a client is a cluster's."""
    return isinstance(client, LazyCluster)


def _of_sentinels(address: RedisAddress, options: dict[str, Any]) -> redis.Redis:
    quick: dict[str, Any] = {
        "socket_connect_timeout": SENTINEL_SECONDS,
        "socket_timeout": SENTINEL_SECONDS,
        "retry": Retry(NoBackoff(), 0),
    }
    kwargs = _tcp(address) | quick
    sentinel = AllSentinels(  # type: ignore[no-untyped-call]
        address.hosts,
        sentinel_kwargs=kwargs | _login(address.sentinel_login),
        **kwargs | _login(address.login),
    )
    pool = WatchfulPool(address.service, sentinel, **options)
    return redis.Redis.from_pool(pool)


def _place(address: RedisAddress) -> dict[str, Any]:
    if address.path is not None:
        return {"connection_class": redis.UnixDomainSocketConnection, "path": address.path}
    tcp = _tcp(address)
    secure = tcp.pop("ssl", False)
    ((host, port),) = address.hosts
    return tcp | {
        "connection_class": redis.SSLConnection if secure else redis.Connection,
        "host": host,
        "port": port,
    }


def _tcp(address: RedisAddress) -> dict[str, Any]:
    """What redis-py takes for connections over the network."""
    options: dict[str, Any] = {"socket_keepalive": True}
    if (tls := address.tls) is not None:
        options |= {
            "ssl": True,
            "ssl_ca_certs": tls.ca_certs,
            "ssl_certfile": tls.certfile,
            "ssl_keyfile": tls.keyfile,
            "ssl_cert_reqs": tls.cert_reqs,
            "ssl_check_hostname": tls.check_hostname and tls.cert_reqs != "none",
        }
    return options


def _login(login: Login) -> dict[str, Any]:
    return {"username": login.username, "password": login.password}


def _retry() -> Retry:
    """Once more where a connection was lost or refused; one that hangs has had its time."""
    return Retry(ExponentialBackoff(**_BACKOFF), RETRIES, supported_errors=(redis.ConnectionError,))
