"""`bff check` at sentinels and at a cluster, and `bff sessions` there."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from bff.check.masking import mask_url
from bff.cli import main
from tests.check.conftest import Setup
from tests.fakes import SUBJECT, token_set
from tests.support.redis_servers import Cluster, Replicated, cluster, replicated
from tests.test_redis_deployments import rigged

pytestmark = [pytest.mark.e2e, pytest.mark.redis_server]
WORDS = ("--user", "bff", "on", ">a-word", "~bff:*", "~test:*", "+@all")


@pytest.fixture(scope="module")
def redises() -> Iterator[Replicated]:
    with replicated(replicas=1, sentinels=1, options=WORDS) as found:
        yield found


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """Without any replica."""
    with cluster(3, 0, *WORDS) as found:
        yield found


@pytest.fixture(autouse=True)
def _unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica may take its time: this machine is busy with other tests."""
    monkeypatch.setattr("bff.check.store.WAIT_SECONDS", 1.5)


def test_all_is_well(setup: Setup, redises: Replicated) -> None:
    """Primary and replica, as one hopes to find them."""
    setup.set(redis_url=redises.url.replace("://", "://bff:a-word@"))
    report = setup.report()
    told = [each["what"] for each in report["findings"] if (each["area"], each["level"]) == ("redis", "ok")]
    assert told[:3] == [
        "Redis answers",
        "keys that begin with bff: can be written, read and deleted",
        "a replica acknowledges writes in time",
    ]


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("/sessions/", "/others/", "no sentinel answers and knows a primary"),
        ("a-word", "wrong", "refuses the password"),
        ("127.0.0.1:", "127.0.0.1:1,127.0.0.1:", ""),
    ],
)
def test_what_is_wrong_with_sentinels(
    setup: Setup, redises: Replicated, old: str, new: str, part: str
) -> None:
    """It says which word is wrong; a sentinel that is down is no fault while another answers."""
    setup.set(redis_url=redises.url.replace("://", "://bff:a-word@").replace(old, new))
    if part:
        assert setup.says("error", "redis", part)
    else:
        assert setup.says("ok", "redis", "acknowledges")


def test_a_user_who_may_not_wait(setup: Setup, redises: Replicated) -> None:
    """Is told what to do; signing out works all the same, counted as not replicated."""
    setup.set(redis_url=redises.url.replace("://", "://bff:a-word@"))
    redises.primary.run("ACL", "SETUSER", "bff", "-wait")
    try:
        assert setup.says("warning", "redis", "WAIT", "+wait")
        with rigged(setup.address) as rig:
            record = rig.begin()
            assert rig.store.end(rig.codec.session(record.key)) is not None
            assert rig.store.lasting.missing == 1
    finally:
        redises.primary.run("ACL", "SETUSER", "bff", "+wait")


def test_a_cluster_without_replicas(setup: Setup, nodes: Cluster) -> None:
    """Works, and is warned of: whatever dies takes its sessions with it."""
    setup.set(redis_url=nodes.url.replace("://", "://bff:a-word@"))
    assert setup.says("warning", "redis", "no replica acknowledges")
    assert setup.says("ok", "redis", "written, read and deleted")
    assert setup.says("ok", "redis", "Redis is version")


def test_the_wrong_kind_of_address(setup: Setup, nodes: Cluster, redises: Replicated) -> None:
    """One node's for a cluster, a cluster's for one Redis, a wrong password: each has its sentence."""
    node = nodes.nodes[0].port
    setup.set(redis_url=f"redis://bff:a-word@127.0.0.1:{node}")
    assert setup.says("error", "redis", "redis+cluster://")
    setup.set(redis_url=f"redis+cluster://bff:a-word@127.0.0.1:{redises.primary.port}")
    assert setup.says("error", "redis", "no node of a cluster")
    setup.set(redis_url=f"redis+cluster://bff:wrong@127.0.0.1:{node}")
    assert setup.says("error", "redis", "refuses the password")
    setup.set(redis_url="redis+cluster://127.0.0.1:1")
    assert setup.says("error", "redis", "cannot be reached")


def test_no_password_is_shown(setup: Setup) -> None:
    """Neither Redis's nor the sentinels'."""
    rest = "127.0.0.1:1/main/0?sentinel_username=watcher&sentinel_password=hidden%26too&db=1"
    setup.set(redis_url=f"redis+sentinel://app:hidden-word@{rest}")
    text = setup.text(show_config=True)
    assert "hidden" not in text
    assert "redis+sentinel://app:********@127.0.0.1:1/main/0?sentinel_username=watcher&sent" in text
    setup.set(redis_url=f"redis+sentinel://{rest}")
    assert "hidden" not in setup.text(show_config=True)


def test_a_short_password_of_sentinels() -> None:
    """Is hidden where it stands, not only where its text is met again."""
    url = "redis+sentinel://one/main/0?db=1&sentinel_password=ab"
    assert mask_url(url) == url.removesuffix("ab") + "********"


def test_operators_see_and_end_sessions_on_all_nodes(setup: Setup, nodes: Cluster) -> None:
    """`bff sessions` lists and revokes what lies on any node."""
    setup.set(redis_url=nodes.url.replace("://", "://bff:a-word@"), redis_prefix="test:")
    setup.set(secret_keys="AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", oidc_issuer="https://issuer.example")
    with rigged(setup.address) as rig:
        for number in range(12):
            rig.begin(f"{number:043}", token_set(rig.clock, refresh_token=None))

        def run(*arguments: str) -> str:
            done = CliRunner().invoke(main, ["sessions", *arguments], env=setup.environ)
            assert done.exit_code == 0, done.output
            return done.output

        assert len(json.loads(run("list", "--json"))) == 12
        (first, *_) = json.loads(run("list", "--user", SUBJECT, "--json"))
        assert "1" in run("revoke", first["id"])
        assert len(json.loads(run("list", "--json"))) == 11
        run("revoke", "--all")
        assert json.loads(run("list", "--json")) == []
