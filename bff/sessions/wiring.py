"""From an address to the wire that the data plane asks."""

from __future__ import annotations

from functools import partial

from bff.sessions.cluster_wire import ClusterWire
from bff.sessions.line import Dialler
from bff.sessions.sentinels import Sentinels
from bff.sessions.wire import Wire
from bff.settings.redis_url import RedisAddress


def wire_to(address: RedisAddress) -> Wire | ClusterWire:
    """To a Redis, to whichever Redis the sentinels name, or to all primaries of a cluster. Connects later."""
    tls = None if address.tls is None else address.tls.context()
    dialler = Dialler(address.login, address.db, tls)
    if address.kind == "cluster":
        return ClusterWire(dialler, address.hosts)
    if address.kind == "sentinel":
        sentinels = Sentinels(Dialler(address.sentinel_login, tls=tls), address.hosts, address.service)
        return Wire(partial(sentinels.open_primary, dialler), at_end=sentinels.hang_up)
    return Wire(partial(dialler.open, address.path or address.hosts[0]))
