"""The systems that are compared, each with the smallest configuration that does its job well."""

from __future__ import annotations

from benchmarks.proxy.systems import apache, nginx, oauth2_proxy, ours, tutorial
from benchmarks.proxy.systems.system import Kind

KINDS: tuple[Kind, ...] = (nginx.KIND, *apache.KINDS, oauth2_proxy.KIND, tutorial.KIND, *ours.KINDS)
