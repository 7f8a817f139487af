"""The composition root: the only place that builds concrete objects."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import urlsplit

import structlog
from a2wsgi import WSGIMiddleware
from flask import Blueprint, Flask, Response, request
from werkzeug.exceptions import HTTPException, InternalServerError

from bff import auth, pages, routes
from bff.access import Access
from bff.answers import CommonHeaders, error_answer
from bff.attempts import Attempts, cookie_attributes
from bff.audit import Audit
from bff.backchannel import BackChannel
from bff.dataplane import DataPlane
from bff.errors import (
    BadRequest,
    InternalError,
    LogoutTokenInvalid,
    MethodNotAllowed,
    PublicError,
    RouteNotFound,
)
from bff.events import Events
from bff.forward_auth import ForwardAuth
from bff.guard import Guard, page_policy
from bff.instruments import Instruments, Plane
from bff.outage import Outage
from bff.pages import WEB, ErrorPages
from bff.provider.client import Provider
from bff.provider.gate import Places, ProviderGate
from bff.provider.revocation import Revoker
from bff.rate_limit import RateLimit
from bff.refresh import Refresher
from bff.rejections import Rejections
from bff.request import Admitted, TrustedProxies
from bff.routes import RouteTable
from bff.sealing import Keyring
from bff.service_tokens import ServiceTokens
from bff.sessions.connect import connect
from bff.sessions.directory import Directory
from bff.sessions.interface import COOKIE, SafeRedisSessionInterface, host_cookie
from bff.sessions.lifetime import Lifetime
from bff.sessions.reader import SessionReader
from bff.sessions.record import Codec
from bff.sessions.store import SessionStore
from bff.sessions.wiring import wire_to
from bff.settings import Settings
from bff.site import Site
from bff.streams import Streams
from bff.tokens import Clock
from bff.upstream import Upstreams

CONTROL_THREADS = 16
BACKCHANNEL_THREADS = 2
REFRESH_THREADS = 16

log = structlog.get_logger("bff.app")


def create_app(settings: Settings, clock: Clock = time.time) -> Plane:
    """The whole BFF as one ASGI application. `clock` gives seconds since the epoch."""
    table = routes.build(settings)
    keyring = Keyring(settings.keys)
    codec = Codec(keyring, settings.redis_prefix)
    lifetime = Lifetime(settings.session_idle_seconds, settings.session_max_seconds)
    instruments = _instruments(settings, table)
    proxies = TrustedProxies(settings.trusted_proxies)
    attempt_prefix = host_cookie(COOKIE + "-", secure=settings.secure)
    audit = Audit(
        instruments.metrics,
        proxies,
        session_cookie=host_cookie(COOKIE, secure=settings.secure),
        attempt_prefix=attempt_prefix,
    )
    address = settings.redis_address
    client = connect(address, connections=CONTROL_THREADS + REFRESH_THREADS)
    store = SessionStore(client, codec, lifetime, clock, replicated=address.replicated)
    wire = wire_to(address)
    reader = SessionReader(instruments.wire(wire), codec, lifetime, clock)
    provider = Provider(
        settings, clock, instruments.adapter(settings.provider_timeout_seconds, settings.oidc_ca_file)
    )
    revoker = Revoker(provider)
    refresher = _refresher(settings, store, reader, provider, clock, audit, instruments)
    guard = Guard(settings.public_url)
    flask = _control_plane(settings)
    sessions = SafeRedisSessionInterface(
        flask, client, store, secure=settings.secure, samesite=settings.cookie_samesite
    )
    flask.session_interface = sessions
    directory = Directory(store, store.index)
    flask.register_blueprint(
        _auth(settings, sessions, directory, provider, revoker, keyring, attempt_prefix, clock, audit)
    )
    flask.register_blueprint(_pages(settings, store, provider))
    render_page = ErrorPages(flask)
    common = CommonHeaders(secure=settings.secure, local=settings.local)
    upstreams = Upstreams()
    access = _access(sessions.cookie, reader, refresher, provider, clock, instruments)
    streams = Streams(
        reader,
        wire.ask,
        lifetime,
        clock,
        per_session=settings.streams_per_session,
        per_worker=settings.streams_per_worker,
    )

    def release() -> None:
        revoker.finish()
        client.close()

    _answer_errors(flask, render_page, audit)
    plane = DataPlane(
        public_url=settings.public_url,
        guard=guard,
        table=table,
        proxies=proxies,
        proxy=instruments.proxy(
            public_url=settings.public_url,
            access=access,
            proxies=proxies,
            upstreams=upstreams,
            common=common,
            streams=streams,
            max_body_bytes=settings.max_body_bytes,
        ),
        events=Events(access, streams, proxies, common),
        forward_auth=ForwardAuth(
            guard=guard, table=table, proxies=proxies, access=access, common=common, audit=audit
        ),
        reader=reader,
        refresher=refresher,
        upstreams=upstreams,
        control=WSGIMiddleware(_admitted_only(flask), workers=CONTROL_THREADS),  # type: ignore[arg-type]
        provider_ready=ProviderGate(provider, ThreadPoolExecutor(1, thread_name_prefix="discovery")),
        rate_limit=RateLimit(settings.rate_limit_per_minute),
        places=_places(settings.provider_timeout_seconds),
        render_page=render_page,
        max_body_bytes=settings.max_body_bytes,
        site=_site(settings),
        common=common,
        audit=audit,
        release=release,
    )
    return instruments.plane(plane)


def _auth(
    settings: Settings,
    sessions: SafeRedisSessionInterface,
    directory: Directory,
    provider: Provider,
    revoker: Revoker,
    keyring: Keyring,
    attempt_prefix: str,
    clock: Clock,
    audit: Audit,
) -> Blueprint:
    store, issuer = sessions.store, settings.oidc_issuer
    sign_in = auth.SignIn(
        provider=provider,
        sessions=sessions,
        directory=directory,
        attempts=Attempts(keyring, clock, prefix=attempt_prefix),
        attempt_cookie=cookie_attributes(
            secure=settings.secure, cross_site=settings.oidc_response_mode == "form_post"
        ),
        keyring=keyring,
        clock=clock,
        issuer=issuer,
        strict=settings.cookie_samesite == "Strict",
        sessions_per_user=settings.sessions_per_user,
        revoker=revoker,
        audit=audit,
    )
    back_channel = BackChannel(provider, store, directory, keyring, revoker, clock, issuer, audit)
    sign_out = auth.SignOut(provider, sessions, revoker, audit, back_channel)
    return auth.blueprint(sign_in, auth.User(store, directory, revoker, clock, audit), sign_out)


def _refresher(
    settings: Settings,
    store: SessionStore,
    reader: SessionReader,
    provider: Provider,
    clock: Clock,
    audit: Audit,
    instruments: Instruments,
) -> Refresher:
    return Refresher(
        store,
        reader,
        instruments.provider(provider),
        ThreadPoolExecutor(REFRESH_THREADS, thread_name_prefix="refresh"),
        clock,
        Outage(time.monotonic),
        audit,
        instruments.metrics,
        leeway=settings.refresh_leeway_seconds,
        provider_deadline=settings.provider_timeout_seconds,
    )


def _access(
    cookie: str,
    reader: SessionReader,
    refresher: Refresher,
    provider: Provider,
    clock: Clock,
    instruments: Instruments,
) -> Access:
    pool = ThreadPoolExecutor(2, thread_name_prefix="service")
    return Access(
        cookie=cookie,
        reader=reader,
        refresher=refresher,
        service_tokens=ServiceTokens(provider.client_token, pool, clock),
        step_up=provider.step_up,
        rejections=Rejections(time.monotonic),
        clock=clock,
        metrics=instruments.metrics,
    )


def _pages(settings: Settings, store: SessionStore, provider: Provider) -> Blueprint:
    return pages.blueprint(
        public_url=settings.public_url,
        development=not settings.production,
        check_store=store.ping,
        provider_known=provider.known,
        sign_out_origin=lambda: _origin_of(provider.sign_out_url(None)),
    )


def _instruments(settings: Settings, table: RouteTable) -> Instruments:
    """What is measured and traced. What nobody asked for is not even imported."""
    fitted = Instruments()
    if settings.metrics_bind is not None:
        from bff.measured import Measuring

        fitted = Measuring(table)
    if any(name.startswith("OTEL_") for name in os.environ):
        from bff import tracing

        if tracing.wanted(os.environ) and (exporting := tracing.exporting(os.environ)) is not None:
            fitted = tracing.Tracing(fitted, table, exporting)
    return fitted


def _logout_later() -> PublicError:
    return LogoutTokenInvalid(reason="not now: no place came free")


def _places(patience: float) -> dict[str, Callable[[], AbstractAsyncContextManager[None]]]:
    """The provider's own call has places that no sign-in can take, and is told 400 where they are full."""
    signing_in = Places(CONTROL_THREADS // 2, patience).one
    logout = Places(BACKCHANNEL_THREADS, patience, _logout_later).one
    return {"/bff/login": signing_in, "/bff/callback": signing_in, "/bff/backchannel": logout}


def _site(settings: Settings) -> Site | None:
    if settings.static_dir is None:
        return None
    return Site(settings.static_dir, settings.csp or page_policy())


def _control_plane(settings: Settings) -> Flask:
    flask = Flask(
        "bff",
        template_folder=str(WEB / "templates"),
        static_folder=str(WEB / "static"),
        static_url_path="/static",
    )
    flask.config.update(
        SESSION_COOKIE_NAME=host_cookie(COOKIE, secure=settings.secure),
        MAX_CONTENT_LENGTH=None,  # judged in front
        PROPAGATE_EXCEPTIONS=False,
    )
    flask.url_map.strict_slashes = True
    flask.url_map.merge_slashes = False
    flask.url_map.redirect_defaults = False
    return flask


def _admitted_only(flask: Flask) -> Any:
    """Deny by default: Flask answers only what the front has admitted."""

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ[Admitted.KEY] = environ["asgi.scope"][Admitted.KEY]
        return flask.wsgi_app(environ, start_response)

    return application


def _answer_errors(flask: Flask, render_page: ErrorPages, audit: Audit) -> None:
    """One handler for every error of the control plane."""

    def handle(failure: Exception) -> Response:
        error = _public(failure)
        admitted: Admitted = request.environ[Admitted.KEY]
        if isinstance(error, InternalError):
            log.error("request_failed", path=request.path, exc_info=failure)
        else:
            log.info("request_refused", code=error.code, path=request.path, reason=error.reason or None)
        audit.refused(error, request.path, admitted.head)
        answer = error_answer(error, render_page if admitted.page else None, admitted.head.request_id)
        response = Response(answer.body, answer.status)
        for name, value in answer.headers:
            response.headers[name.decode()] = value.decode()
        return response

    flask.register_error_handler(Exception, handle)


def _public(failure: Exception) -> PublicError:
    """What a caller is told about whatever went wrong in Flask."""
    cause = getattr(failure, "original_exception", None) or failure
    if isinstance(cause, PublicError):
        return cause
    if isinstance(cause, HTTPException) and not isinstance(cause, InternalServerError):
        if cause.code == 404:
            return RouteNotFound("No page has this address.")
        if cause.code == 405:
            return MethodNotAllowed(tuple(getattr(cause, "valid_methods", None) or ()))
        if cause.code is not None and cause.code < 500:
            return BadRequest("The request cannot be read.")
    return InternalError(reason=type(cause).__name__)


def _origin_of(url: str) -> str | None:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else None
