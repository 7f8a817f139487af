"""The systems that are compared, each with the smallest configuration that does its job well."""

from __future__ import annotations

from benchmarks.proxy.systems import nginx, ours
from benchmarks.proxy.systems.system import Kind

KINDS: tuple[Kind, ...] = (nginx.KIND, *ours.KINDS)
