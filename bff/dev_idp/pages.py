"""Renders the provider's pages."""

from http import HTTPStatus
from typing import Any

from flask import Response, make_response, render_template


class PageError(Exception):
    """A request that ends with an error page for a person to read.

    Nothing of what the request brought may stand in the texts.
    """

    def __init__(self, status: int, title: str, text: str) -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.text = text


def page(template: str, status: int = HTTPStatus.OK, **context: Any) -> Response:
    """A page from `templates/idp`, with everything in `context` escaped."""
    return make_response(render_template(f"idp/{template}", **context), status)


def error_page(error: PageError) -> Response:
    """The page for a `PageError`."""
    return page("error.html", error.status, title=error.title, text=error.text)


def redirect_to(location: str, status: int = HTTPStatus.SEE_OTHER) -> Response:
    """A redirect to a path of ours or a registered URI; 303 is followed by GET."""
    response = make_response("", status)
    response.headers["Location"] = location
    return response
