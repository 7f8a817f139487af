"""A small asynchronous HTTP/1.1 client for the data plane, on httptools.

It does only what a proxy needs: one request, one response, both streamed with back-pressure, header and
path bytes as given. A connection serves one exchange at a time and is used again only when the response
was read to its last byte and nothing else came: answers are never mixed up.
"""

from bff.upstream.origin import Origin, Upstreams
from bff.upstream.response import Response

__all__ = ["Origin", "Response", "Upstreams"]
