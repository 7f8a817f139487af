"""`bff dev`: the local stack as processes of its own, started in order, watched, and stopped together."""

from __future__ import annotations

import signal
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from functools import partial
from urllib.parse import urlsplit

from bff.devstack.plan import Plan, make_plan, reachable
from bff.devstack.processes import Console, Part, Stack, StackFailed, Stopped
from bff.devstack.redis import start_redis
from bff.devstack.trust import explanation


def run(environ: Mapping[str, str], *, reset: bool, https: bool) -> int:
    """Start everything and wait. The exit status: 0 after a signal, 1 where something is wrong."""
    console = Console()
    if environ.get("BFF_ENV", "development") != "development":
        console.say("bff dev is for development; for production, see `bff serve --help`")
        return 2
    stack = Stack(console)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stack.ask_to_stop)
    try:
        plan = make_plan(environ, reset=reset, https=https)
        start(stack, plan, console)
        console.say(start_block(plan, stack.redis))
        stack.watch()
    except Stopped:
        console.say("stopping")
        return 0
    except StackFailed as error:
        console.say(f"bff: {error}")
        return 1
    finally:
        stack.stop()  # a second signal leaves another note: stopping is not cut short
    return 0


def start(stack: Stack, plan: Plan, console: Console) -> None:
    """Start the parts in the order in which they need each other. Raises StackFailed."""
    console.say("starting the local stack …")
    environ = dict(plan.environ)
    if plan.own_redis:
        environ["BFF_REDIS_URL"] = start_redis(stack, plan.state)
    if plan.local_idp:
        host = urlsplit(plan.idp_public_url).netloc
        stack.start(_python_part("idp", environ, "/health", plan.certificates.get("idp"), host))
    stack.start(_python_part("api", environ, "/health", plan.certificates.get("api")))
    stack.await_ready()
    stack.start(_python_part("bff", environ, "/health/ready", plan.certificates.get("bff")))
    stack.await_ready()


def _python_part(
    name: str, environ: dict[str, str], health: str, certificate: str | None, host: str = "localhost"
) -> Part:
    """A part that is a command of ours; it sees its own settings and nobody else's."""
    command = "serve" if name == "bff" else name
    mine = {k: v for k, v in environ.items() if not k.startswith(("BFF_", "API_", "IDP_"))}
    mine |= {k: v for k, v in environ.items() if k.startswith((f"{name.upper()}_", "BFF_ENV"))}
    scheme = "http" if certificate is None else "https"
    url = f"{scheme}://{reachable(environ[f'{name.upper()}_BIND'])}{health}"
    ready = partial(_answers, url, host, certificate)
    return Part(name, [sys.executable, "-m", "bff", command], mine, ready)


def _answers(url: str, host: str, certificate: str | None) -> bool:
    question = urllib.request.Request(url, headers={"Host": host})  # noqa: S310  an address of ours
    try:
        context = None if certificate is None else _only(certificate)
        with urllib.request.urlopen(question, timeout=5, context=context) as response:  # noqa: S310
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _only(certificate: str) -> ssl.SSLContext:
    """Trust in this very certificate, under whatever name and whoever signed it."""
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def start_block(plan: Plan, redis: str) -> str:
    """What a person wants to know when everything runs."""
    lines = ["", f"  The BFF is ready:   {plan.public_url}", ""]
    if plan.local_idp:
        from bff.dev_idp import TEST_USERS

        lines.append("  Sign in as")
        lines += [f"    {each.email}  /  {each.password}   ({', '.join(each.groups)})" for each in TEST_USERS]
        lines.append("")
    lines.append(f"  Identity provider   {plan.idp_public_url if plan.local_idp else plan.issuer}")
    if plan.local_idp and (token := plan.environ.get("IDP_CONTROL_TOKEN")):
        lines.append(f"    its control page  {plan.idp_public_url}/control   (token: {token})")
    lines.append(f"  Resource API        {plan.environ['BFF_API_URL']}")
    lines.append(f"  Sessions            {(plan.environ.get('BFF_REDIS_URL') and 'your Redis') or redis}")
    if plan.authority is not None:
        lines += ["", *(f"  {line}" for line in explanation(plan.authority))]
    lines += ["", "  Stop with Ctrl-C.", ""]
    return "\n".join(lines)
