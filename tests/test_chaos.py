"""What the faults' suite says follows from what it saw: causes, broken promises, tables."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from contextlib import suppress

import pytest

from benchmarks.chaos.__main__ import main
from benchmarks.chaos.front import Front, owner
from benchmarks.chaos.judgement import Round, Seen, judge
from benchmarks.chaos.ledger import Death, Ledger, Redeem
from benchmarks.chaos.report import summary, table
from benchmarks.chaos.visitors import Kind, Lost, Phase, ask
from benchmarks.chaos.visitors import judge as kind_of
from benchmarks.proxy.programs import free_port

GRANTED = {"access_token": "a"}
REFUSED = {"error": "invalid_grant"}
WORKER = 17
linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's own")


def send(
    ledger: Ledger, token: str, now: float, new: str = "", status: int = 200, heard: bool = True
) -> Redeem:
    """A redeem that is answered at once, with a new refresh token or `status`."""
    redeem = ledger.begin(token, WORKER, now)
    if status:
        answer = GRANTED | {"refresh_token": new} if status == 200 else REFUSED
        ledger.answered(redeem, status, answer)
        redeem.delivered = now + 0.1 if heard else None
    return redeem


def signed_in() -> Ledger:
    """A session that was refreshed once: its tokens live for three seconds."""
    ledger = Ledger()
    ledger.signed_in({"refresh_token": "r0"}, 0.0)
    send(ledger, "r0", 1.6, "r1")
    return ledger


def lost_one(heard: bool = True, status: int = 200) -> Ledger:
    """A session whose refresh token was sent twice, and refused the second time."""
    ledger = signed_in()
    send(ledger, "r1", 3.2, "r2", status=status, heard=heard)
    send(ledger, "r1", 20.0, status=400)
    return ledger


def phase(**kinds: int) -> Phase:
    found = Phase("a fault", 0.0, 2.0)
    found.kinds[Kind.GOOD] = 9
    found.kinds.update({Kind[kind]: number for kind, number in kinds.items()})
    return found


def judged(
    ledger: Ledger,
    *,
    grace: int = 0,
    lost: tuple[int, ...] = (),
    deaths: tuple[Death, ...] = (),
    phases: tuple[Phase, ...] = (phase(),),
    allowed: frozenset[Kind] = frozenset(),
) -> Round:
    ended = [Lost(session, "a fault", 21.0) for session in lost]
    seen = Seen(grace, 1, list(phases), ended, ledger, list(deaths))
    return judge(seen, {"a fault": allowed}, 3.0)


def killed(at: float, process: int = WORKER, *, store: bool = False) -> Death:
    return Death(process, "it was killed", at, at, store=store)


def test_one_redeem_for_each_expiry_is_kept() -> None:
    """Each refresh token once, and not before half of the life of what it came with."""
    found = judged(signed_in())
    assert (found.expiries, found.redeems, found.repeats, found.broken) == (1, 1, [], [])


CAUSES = {
    "its process was killed before the answer": (lost_one(heard=False), [killed(3.25)], "it was killed"),
    "its process was killed before it could save": (lost_one(), [killed(3.5)], "it was killed"),
    "Redis was killed before it had written": (lost_one(), [killed(5.0, 1, store=True)], "on its disk"),
    "its process stood still": (lost_one(), [Death(WORKER, "it stood still", 3.0, 19.0)], "it stood still"),
    "the provider was silent": (lost_one(status=0), [], "no answer"),
    "nobody heard the answer": (lost_one(heard=False), [], "lost on its way"),
    "the provider failed": (lost_one(status=503), [], "answered 503"),
}


@pytest.mark.parametrize(("ledger", "deaths", "words"), CAUSES.values(), ids=CAUSES)
def test_a_redeem_of_unknown_outcome_may_be_sent_again(
    ledger: Ledger, deaths: list[Death], words: str
) -> None:
    """Then the second one is listed with the cause, and so is a session that is lost under strict rotation;
    with a grace period its loss breaks a promise."""
    found = judged(ledger, lost=(1,), deaths=tuple(deaths))
    assert found.broken == []
    assert [words in str(repeat.cause) for repeat in found.repeats] == [True]
    assert words in str(found.ended[0].cause)
    assert (
        "in spite of the grace period" in judged(ledger, grace=60, lost=(1,), deaths=tuple(deaths)).broken[0]
    )


UNEXPLAINED = {
    "nothing happened": [],
    "another process was killed": [killed(3.3, process=4)],
    "it was killed long after": [killed(15.0)],
    "it was killed before": [killed(3.1)],
    "Redis was killed long after": [killed(9.0, 1, store=True)],
}


@pytest.mark.parametrize("deaths", UNEXPLAINED.values(), ids=UNEXPLAINED)
def test_a_redeem_of_known_outcome_must_not_be_sent_again(deaths: list[Death]) -> None:
    """Nor may its session be lost."""
    found = judged(lost_one(), lost=(1,), deaths=tuple(deaths))
    assert [line.partition(" was ")[2][:10] for line in found.broken] == ["lost (a fa", "sent again"]
    assert "NO CAUSE" in summary(found)


def test_a_session_that_ends_without_a_refusal_is_a_bug() -> None:
    """Signed out although the provider has refused nothing."""
    assert judged(signed_in(), lost=(1,)).broken == [
        "session 1 was lost (a fault), and no redeem of it was cut off"
    ]


def test_hammering_is_a_bug() -> None:
    """A redeem before half of the token's life is over."""
    ledger = signed_in()
    send(ledger, "r1", 2.0, "r2")
    assert len(judged(ledger).broken) == 1


def test_no_expiry_is_no_test() -> None:
    """A round in which nothing was refreshed proves nothing."""
    assert judged(Ledger()).broken == ["no token expired: nothing was tried"]


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in (Kind.GOOD, Kind.SIGNED_OUT)])
def test_only_the_failures_of_a_fault_are_allowed(kind: Kind) -> None:
    """What the fault explains is no broken promise, anything else is."""
    ledger = signed_in()
    seen = (phase(**{kind.name: 3}),)
    assert judged(ledger, phases=seen, allowed=frozenset({kind})).broken == []
    assert judged(ledger, phases=seen).broken == [
        f"a fault: 3 requests got {kind.value}" + " ()" * (kind == "other")
    ]


def test_a_slow_machine_is_told_from_a_bug() -> None:
    """Where an answer of the provider reached nobody, a 503 is noted, and breaks no promise."""
    ledger = signed_in()
    send(ledger, "r1", 3.2, "r2", heard=False)
    found = judged(ledger, phases=(phase(PROVIDER=1),))
    assert (found.broken, len(found.notes)) == ([], 1)


def test_recovery_is_bounded() -> None:
    """A fault that goes on hurting long after its end breaks a promise, as does one that nobody survived."""
    slow, dead = phase(), phase()
    slow.note(Kind.STORE, "", 39.0, 40.0)
    dead.kinds.clear()
    found = judged(signed_in(), phases=(slow, dead), allowed=frozenset({Kind.STORE}))
    assert found.broken == ["a fault: it took 38 s to recover", "a fault: no request was answered well"]
    assert "| 38.0 s |" in table(found)


ANSWERS = {
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]": Kind.GOOD,
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[]": Kind.RESET,
    b"HTTP/1.1 200 OK\r\nContent-Le": Kind.RESET,
    b"": Kind.RESET,
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}": Kind.OTHER,
    b'HTTP/1.1 500 X\r\nContent-Length: 25\r\n\r\n{"code":"internal_error"} '[:-1]: Kind.OTHER,
    b'HTTP/1.1 503 X\r\nRetry-After: 2\r\nContent-Length: 28\r\n\r\n{"code":"store_unavailable"}': Kind.STORE,
    b'HTTP/1.1 503 X\r\nContent-Length: 28\r\n\r\n{"code":"store_unavailable"}': Kind.OTHER,
    b'HTTP/1.1 401 X\r\nContent-Length: 26\r\n\r\n{"code":"session_expired"}': Kind.SIGNED_OUT,
    b'HTTP/1.1 401 X\r\nContent-Length: 2\r\n\r\n""': Kind.OTHER,
}


@pytest.mark.parametrize(("answer", "kind"), ANSWERS.items(), ids=map(str, range(len(ANSWERS))))
def test_answers_are_told_apart(answer: bytes, kind: Kind) -> None:
    """Whole and broken, ours and anybody's, with what must come along and without it."""
    assert kind_of(answer)[0] is kind


def test_nobody_listens() -> None:
    """A port that is closed is told from a connection that breaks."""
    assert asyncio.run(ask(free_port(), "http://localhost", ""))[0] is Kind.REFUSED


@linux
def test_the_owner_of_a_connection_is_found() -> None:
    """By its two ports, among the processes that it may be."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        to = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", to)) as client:
            port = client.getsockname()[1]
            assert owner(port, to, [1, os.getpid()]) == os.getpid()
            assert owner(port, to, [os.getppid()]) == 0
            assert owner(to, to, [os.getpid()]) == 0


def test_words_that_no_fault_has(capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence that names those there are."""
    assert main(["--only", "meteorite"]) == 1
    assert "a worker is killed" in capsys.readouterr().err


@linux
@pytest.mark.e2e
@pytest.mark.redis_server
@pytest.mark.timeout(300)
def test_the_worst_faults(capsys: pytest.CaptureFixture[str]) -> None:
    """`make chaos QUICK=1`: a worker, a node, Redis and the provider are killed under load, and every promise
    is kept."""
    status = main(["--quick"])
    said = capsys.readouterr()
    if "redis-server is missing" in said.err:
        pytest.skip("needs redis-server: apt install redis-server")
    assert status == 0, said.out + said.err
    assert said.out.count("All promises were kept.") == 2


@pytest.mark.parametrize("rounds", range(1, 7))
def test_a_front_that_closes_cuts_all_connections(rounds: int) -> None:
    """Also those that it has accepted only just now, so many rounds of the loop ago."""

    async def run() -> bytes:
        front = Front(free_port(), 1, Ledger(), list)
        await front.open()
        with socket.create_connection(("127.0.0.1", front.port), timeout=20) as client:
            for _ in range(rounds):
                await asyncio.sleep(0)
            await front.close()
            with suppress(ConnectionResetError):
                return await asyncio.to_thread(client.recv, 1)
        return b""

    assert asyncio.run(run()) == b""
