"""Who may call a view: `@requires(...)` or `@public`, and nobody where a view says neither."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from types import MethodType
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from flask import Flask, Response, current_app, request

from bff.resource_api import problems
from bff.resource_api.bearer import Missing, read_credentials, sends_form_token
from bff.resource_api.jwt.model import AccessToken, KeysUnavailable, TokenRefused

logger = logging.getLogger("bff.resource_api")

P = ParamSpec("P")
R = TypeVar("R")
View = TypeVar("View", bound=Callable[..., Any])

EXTENSION = "bff.resource_api"
_TOKEN = "bff.resource_api.access_token"
_MARK = "__bff_access__"
_SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


class Validator(Protocol):
    """What the guard needs of a `JWTValidator`."""

    def validate(self, token: str) -> AccessToken: ...


class UndeclaredViewError(RuntimeError):
    """Views that say neither `@requires` nor `@public`; `endpoints` names them."""

    def __init__(self, endpoints: Collection[str]) -> None:
        super().__init__(
            "these views do not say who may call them: "
            f"{', '.join(sorted(endpoints))}; put @requires(...) or @public on each, right below its route"
        )
        self.endpoints = tuple(sorted(endpoints))


@dataclass(frozen=True, slots=True)
class Public:
    """Anybody may call."""


@dataclass(frozen=True, slots=True)
class Requires:
    """Only a token with all of these scopes and all of these groups."""

    scopes: tuple[str, ...]
    groups: frozenset[str]

    def met_by(self, token: AccessToken) -> bool:
        """Exact membership; a prefix or another case is something else."""
        return token.scopes.issuperset(self.scopes) and token.groups.issuperset(self.groups)


@dataclass(frozen=True, slots=True)
class _Mark:
    """What a view says, and which function says it.

    `functools.wraps` copies attributes: a decorator around the view, which may answer in its place (from
    a cache, say), would seem to say the same.
    """

    rule: Public | Requires
    view: object


def requires(
    *, scope: str | Iterable[str] = (), groups: Iterable[str] = ()
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let in only requests with a valid access token that has every scope and group named here.

    Put it right below the route decorator. Inside the view `current_token()` is the token.
    """
    if isinstance(groups, str):
        raise ValueError("groups is a list of names, not one string")  # noqa: TRY004
    rule = Requires(_scopes(scope), frozenset(groups))

    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        @wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            outcome = _authorize(rule)
            if isinstance(outcome, Response):
                return cast("R", outcome)
            request.environ[_TOKEN] = outcome
            return cast("R", current_app.ensure_sync(view)(*args, **kwargs))

        setattr(guarded, _MARK, _Mark(rule, guarded))
        return guarded

    return decorate


def public(view: View) -> View:
    """Let anybody in.

    Returns the view, or a function in its place where the view is a method of an object, as the one for a
    blueprint's static files is.
    """
    try:
        setattr(view, _MARK, _Mark(Public(), view))
    except AttributeError:
        return public(cast("View", _function_for(view)))
    return view


def _function_for(view: Callable[..., Any]) -> Callable[..., Any]:
    """A function that does what the view does, and that can be marked."""

    @wraps(view)
    def function(*args: Any, **kwargs: Any) -> Any:
        return current_app.ensure_sync(view)(*args, **kwargs)

    return function


def current_token() -> AccessToken:
    """The verified token of this request, in a view that has `@requires`.

    Raises `RuntimeError` elsewhere: there is none.
    """
    # Kept with the request, not in `g`, which outlives it where an application context is open.
    token = request.environ.get(_TOKEN)
    if token is None:
        raise RuntimeError("no verified access token: this view has no @requires")
    return cast("AccessToken", token)


def protect(app: Flask, validator: Validator) -> None:
    """Put `validator` in front of `app`, whose views are all in place by now.

    Raises `UndeclaredViewError` for views without `@requires` or `@public`; those added later are
    refused when called.
    """
    endpoints = {rule.endpoint for rule in app.url_map.iter_rules()}
    undeclared = [name for name in endpoints if not _declared(app, name)]
    undeclared = [name for name in undeclared if not _is_empty_static(app, name)]
    if undeclared:
        raise UndeclaredViewError(undeclared)
    app.extensions[EXTENSION] = validator
    app.before_request(_refuse_undeclared)
    app.after_request(_keep_out_of_caches)


def _scopes(scope: str | Iterable[str]) -> tuple[str, ...]:
    scopes = tuple(scope.split(" ")) if isinstance(scope, str) else tuple(scope)
    if not all(_SCOPE_TOKEN.fullmatch(one) for one in scopes):
        # It goes into the challenge's quoted string as it is.
        raise ValueError("a scope has no spaces, quotation marks or backslashes")
    return scopes


def _declared(app: Flask, endpoint: str) -> Public | Requires | None:
    view = app.view_functions.get(endpoint)
    mark = getattr(view, _MARK, None)
    function = view.__func__ if isinstance(view, MethodType) else view
    return mark.rule if isinstance(mark, _Mark) and mark.view is function else None


def _is_empty_static(app: Flask, endpoint: str) -> bool:
    """Flask adds its own `static` view to every app, mostly without a folder behind it."""
    folder = app.static_folder
    return endpoint == "static" and folder is not None and not Path(folder).exists()


def _refuse_undeclared() -> Response | None:
    """Deny by default. Where no view was found, 404 and 405 take their course."""
    endpoint = request.endpoint
    if endpoint is None or _declared(current_app, endpoint) is not None:
        return None
    logger.error("view %r says neither @requires nor @public; refused", endpoint)
    return problems.not_declared()


def _keep_out_of_caches(response: Response) -> Response:
    endpoint = request.endpoint
    if endpoint is not None and isinstance(_declared(current_app, endpoint), Requires):
        response.headers.setdefault("Cache-Control", "no-store")
    return response


def _authorize(rule: Requires) -> AccessToken | Response:
    """The verified token, or the answer to give in the view's place."""
    # Without a validator the lookup fails, and so does the request: never an open door.
    validator = cast("Validator", current_app.extensions[EXTENSION])
    credentials = read_credentials(request)
    if isinstance(credentials, Missing):
        return _answer_missing(credentials)
    try:
        token = validator.validate(credentials.token)
    except TokenRefused as refused:
        return _refuse(refused.reason.value, problems.invalid_token())
    except KeysUnavailable as unavailable:
        return _refuse("keys_unavailable", problems.keys_unavailable(unavailable.retry_after))
    if not rule.met_by(token):
        return _refuse("insufficient_scope_or_group", problems.insufficient_scope(rule.scopes))
    if sends_form_token(request):
        return _answer_missing(Missing.AMBIGUOUS)
    return token


def _answer_missing(missing: Missing) -> Response:
    match missing:
        case Missing.NONE:
            return _refuse("no_credentials", problems.no_credentials())
        case Missing.AMBIGUOUS:
            return _refuse("ambiguous_credentials", problems.invalid_request())
        case Missing.MALFORMED:
            return _refuse("malformed_credentials", problems.invalid_token())


def _refuse(reason: str, answer: Response) -> Response:
    """Tell the operator why, and the caller no more than the answer says."""
    logger.info("access refused: reason=%s endpoint=%s", reason, request.endpoint)
    return answer
