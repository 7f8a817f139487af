"""What connections to the provider cost, and what the machine around has to say about them."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import requests

from bff.provider import connections, deadline
from bff.provider.transport import AnswerBroken, BoundedAdapter, get_json
from bff.turn import Turn
from tests.support.authority import Authority
from tests.support.stopwatch import Stopwatch
from tests.support.wire import until

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"a": 12}'


class Counting:
    """A server that counts connections, keeps them, and notes what it is asked."""

    def __init__(
        self,
        answer: bytes,
        delay: float,
        more: bytes,
        pause: float,
        tls: ssl.SSLContext | None,
        *,
        once: bool,
    ) -> None:
        self._answer = answer
        self._delay = delay
        self._more = more
        self.pause = pause
        self._tls = tls
        self._once = once
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}/keys"
        self.connections = 0
        self.open = 0
        self.together = 0
        """So many requests are waited for before the first answer."""
        self.said_more = 0
        self.requests: list[bytes] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        self.open += 1
        with suppress(ConnectionError, ssl.SSLError):
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            self._answer_all(connection)
        connection.close()
        self.open -= 1

    def _answer_all(self, connection: socket.socket) -> None:
        served = False
        with connection:
            while request := connection.recv(65_536):
                self.requests.append(request)
                if self._once and served:
                    return
                served = True
                time.sleep(self._delay)
                until(lambda: len(self.requests) >= self.together, within=10)
                pieces = [bytes([octet]) for octet in self._answer] if self.pause else [self._answer]
                for piece in pieces:
                    connection.sendall(piece)
                    time.sleep(self.pause)
                if self._more:
                    time.sleep(0.05)
                    connection.sendall(self._more)
                    self.said_more += 1
                if b"Connection: close" in self._answer:
                    return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture(autouse=True)
def _kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection may rest for a minute: a busy machine lets it rest for more than a second now and then."""
    monkeypatch.setattr(connections, "KEEP_SECONDS", 60)


@contextmanager
def counting(
    answer: bytes = ANSWER,
    delay: float = 0,
    more: bytes = b"",
    pause: float = 0,
    tls: ssl.SSLContext | None = None,
    *,
    once: bool = False,
) -> Iterator[Counting]:
    """`more` is said a moment after each answer, though nobody has asked; `pause` is between its bytes.
    `once`: a second request on a connection is read, and the connection closed."""
    server = Counting(answer, delay, more, pause, tls, once=once)
    try:
        yield server
    finally:
        server.close()


def test_a_connection_serves_many_exchanges() -> None:
    """Each exchange has a session of its own; what they share is the connection, and its handshake."""
    adapter = BoundedAdapter(5)
    with counting() as server:
        for _ in range(5):
            assert get_json(adapter, server.url) == {"a": 12}
        assert (server.connections, len(server.requests)) == (1, 5)


def test_a_connection_that_has_rested_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server may be about to close it, and what became of the request would not be known."""
    monkeypatch.setattr(connections, "KEEP_SECONDS", 0.1)
    adapter = BoundedAdapter(5)
    with counting() as server:
        get_json(adapter, server.url)
        time.sleep(0.2)
        get_json(adapter, server.url)
        assert server.connections == 2


def test_connections_of_a_rush_do_not_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next exchange closes what has rested, also what nobody takes again."""
    monkeypatch.setattr(connections, "KEEP_SECONDS", 0.3)
    adapter = BoundedAdapter(5)
    with counting() as server, ThreadPoolExecutor(8) as pool:
        server.together = 8
        list(pool.map(get_json, [adapter] * 8, [server.url] * 8))
        assert server.connections == server.open == 8
        time.sleep(0.5)
        get_json(adapter, server.url)
        assert until(lambda: server.open == 1)


def test_what_follows_an_answer_is_nobodys() -> None:
    """A server that says more than it was asked for cannot answer the next request beforehand."""
    adapter = BoundedAdapter(5)
    forged = ANSWER.replace(b"12", b"66")
    with counting(ANSWER + forged) as server:
        assert [get_json(adapter, server.url) for _ in range(3)] == [{"a": 12}] * 3
    with counting(more=forged) as server:
        for number in range(3):
            assert get_json(adapter, server.url) == {"a": 12}
            assert until(lambda: server.said_more == number + 1)  # noqa: B023 -- used at once
        assert server.connections == 3


def test_what_follows_an_answer_is_nobodys_over_tls(tmp_path: Path) -> None:
    """TLS opens a record whole: what of it has not been read is nothing that the system knows of."""
    authority = Authority(tmp_path)
    signed = authority.sign("provider", "127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(signed.certificate, signed.key)
    adapter = BoundedAdapter(5, authority.file)
    filler = b"x" * (8192 - len(ANSWER))  # as much is read at once
    with counting(ANSWER + filler + ANSWER.replace(b"12", b"66"), tls=context) as server:
        assert [get_json(adapter, server.url) for _ in range(3)] == [{"a": 12}] * 3
        assert server.connections == 3


@pytest.mark.parametrize("status", ["100 Continue", "102 Processing", "103 Early Hints"])
def test_an_interim_answer_is_not_the_answer(status: str) -> None:
    """RFC 9110 §15.2: the one that follows is, however late, and belongs to nobody else."""
    adapter = BoundedAdapter(5)
    interim = f"HTTP/1.1 {status}\r\nLink: </style.css>\r\n\r\n".encode()
    with counting(interim * 2, more=ANSWER) as server:
        assert [get_json(adapter, server.url) for _ in range(3)] == [{"a": 12}] * 3
        assert (server.connections, len(server.requests)) == (1, 3)


@pytest.mark.parametrize(
    "head",
    [
        b"101 Switching Protocols\r\n",
        b"200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: gzip, chunked\r\n",
        b"200 OK\r\nContent-Length: 9\r\nContent-Length: 9\r\n",
        b"200 OK\r\nContent-Length: 9\r\nContent-Length: 18\r\n",
    ],
)
def test_a_connection_is_not_used_again_after_a_doubtful_answer(head: bytes) -> None:
    """Where an answer ends in doubt, what follows may be the rest of it, and not the next one."""
    adapter = BoundedAdapter(0.5)
    with counting(b"HTTP/1.1 " + head + b"\r\n" + b'{"a": 12}') as server:
        for _ in range(2):
            with suppress(requests.RequestException, ValueError):
                get_json(adapter, server.url)
        assert server.connections == 2


def test_a_deadline_bites_on_a_connection_used_again() -> None:
    """It is the exchange's, not the connection's; one that was met cuts nobody later."""
    with counting() as server:
        adapter = BoundedAdapter(2)
        for _ in range(3):  # the deadlines of the first ones pass while the last ones are under way
            get_json(adapter, server.url)
            time.sleep(0.8)
        server.pause = 0.2  # from here on it drips
        watch = Stopwatch()
        with pytest.raises(requests.RequestException):
            get_json(adapter, server.url)
        assert watch.own < 6
        server.pause = 0
        assert get_json(adapter, server.url) == {"a": 12}
        assert server.connections == 2


def test_a_connection_that_the_server_closes() -> None:
    """Is not missed: the next exchange opens another."""
    adapter = BoundedAdapter(5)
    with counting(ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)) as server:
        for _ in range(3):
            get_json(adapter, server.url)
        assert server.connections == 3


def test_a_head_that_is_cut_is_no_answer() -> None:
    """Not even within the length that it tells: http.client takes the end of the connection for its end."""
    with counting(b"HTTP/1.1 200 OK\r\nContent-Length:") as server, pytest.raises(AnswerBroken):
        get_json(BoundedAdapter(2), server.url)


def test_a_server_that_closes_without_saying_so() -> None:
    """Costs one exchange, not every second one; after a while it is tried again."""
    adapter, failed = BoundedAdapter(5), 0
    with counting(once=True) as server:
        for _ in range(10):
            try:
                get_json(adapter, server.url)
            except requests.ConnectionError:
                failed += 1
        assert failed == 1
        adapter._distrusts_until -= 60  # as if a minute had passed
        with pytest.raises(requests.ConnectionError):
            [get_json(adapter, server.url) for _ in range(2)]


def test_many_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread keeps the time for all exchanges: the long ones, begun before, hold up no short one."""
    monkeypatch.setattr(deadline, "_kennel", deadline.Kennel())  # no deadline of another test wakes it
    before = list(threading.enumerate())
    with counting(pause=0.05) as slow, counting() as quick, ThreadPoolExecutor(8) as pool:
        long = [pool.submit(get_json, BoundedAdapter(10), slow.url) for _ in range(4)]
        assert until(lambda: slow.connections == 4)
        watch = Stopwatch()
        for _ in range(3):
            with pytest.raises(requests.RequestException):
                get_json(BoundedAdapter(0.2), slow.url)
        assert watch.own < 1.5
        for _ in range(20):
            get_json(BoundedAdapter(10), quick.url)
        named = [thread.name for thread in threading.enumerate() if thread not in before]
        assert named.count("deadlines") == 1
        assert len(named) < 40
        assert [each.result() for each in long] == [{"a": 12}] * 4


def test_the_environments_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTPS_PROXY and its like are obeyed, NO_PROXY too; each is looked up once for a host."""
    for name in ("HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with counting() as proxy, counting() as server:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        adapter = BoundedAdapter(5)
        assert get_json(adapter, "http://provider.example/keys") == {"a": 12}
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert get_json(adapter, server.url) == {"a": 12}
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        assert get_json(adapter, "http://provider.example/keys") == {"a": 12}
        assert [request.split(b"\r\n", 1)[0] for request in proxy.requests] == [
            b"GET http://provider.example/keys HTTP/1.1"
        ] * 2
        assert len(server.requests) == 1


def test_no_password_of_a_netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever runs the program may have one for the provider's host: it is not for this client."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password hunter2\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with counting() as server:
        get_json(BoundedAdapter(5), server.url)
        assert b"uthorization" not in server.requests[0]


def test_authorities_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """REQUESTS_CA_BUNDLE counts, unless authorities are configured."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "theirs.pem"))
    with counting() as server:
        url = server.url.replace("http:", "https:")
        with pytest.raises(requests.exceptions.SSLError, match=r"theirs\.pem"):
            get_json(BoundedAdapter(5), url)
        with pytest.raises(requests.exceptions.SSLError, match=r"ours\.pem"):
            get_json(BoundedAdapter(5, tmp_path / "ours.pem"), url)


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_an_empty_name_of_authorities_is_none(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Compose and its like set what nobody has given to nothing: certificates are verified all the same."""
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    monkeypatch.setenv(name, "")
    signed = Authority(tmp_path).sign("provider", "127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(signed.certificate, signed.key)
    with counting(tls=context) as server:
        with pytest.raises(requests.exceptions.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
            get_json(BoundedAdapter(5), server.url)
        assert server.requests == []


def test_waiting_for_the_provider_is_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that take turns wait for a slow provider all at once, not one behind the other."""
    monkeypatch.setattr("bff.turn.PATIENCE_SECONDS", 30)
    turn, adapter = Turn(), BoundedAdapter(10)

    def work(url: str) -> object:
        with turn:
            return get_json(adapter, url)

    with counting(delay=0.5) as server, ThreadPoolExecutor(8) as pool:
        watch = Stopwatch()
        assert list(pool.map(work, [server.url] * 8)) == [{"a": 12}] * 8
        assert watch.own < 3
