"""nginx as a plain proxy: it knows no sessions, and is what proxying alone costs."""

from __future__ import annotations

from benchmarks.proxy.systems.system import Kind, System
from benchmarks.proxy.world import Provider, World

CONTENT = """
  upstream fast {{ server 127.0.0.1:{fast}; keepalive 128; keepalive_requests 1000000000; }}
  upstream slow {{ server 127.0.0.1:{slow}; keepalive 512; }}
  proxy_http_version 1.1; proxy_set_header Connection "";
  server {{
    listen 127.0.0.1:{port};
    location = /weather {{ proxy_pass http://fast; }}
    location = /slow {{ proxy_pass http://slow; }}
  }}
"""


def start(world: World, _provider: Provider, port: int) -> System:
    """Two workers. The client itself sends a token, for the upstream wants to see one; the proxy looks at
    nothing."""
    content = CONTENT.format(fast=world.upstream.port, slow=world.slow.port, port=port)
    program = world.start_nginx("nginx", port, content, workers=2)
    headers = (f"Host: localhost:{port}", "Authorization: Bearer of-the-client")
    return System("nginx", KIND.title, program, headers)


KIND = Kind("nginx", "nginx, plain proxy", "", start)
