"""The control API: JSON in, JSON out, for whoever has the token. `access.check` has run before any view."""

import json
from typing import Any

from flask import Blueprint, Response

from bff.dev_idp.context import services
from bff.dev_idp.control import actions
from bff.dev_idp.control.fault import Fault, describe
from bff.dev_idp.control.problems import body
from bff.dev_idp.endpoints import json_response

views = Blueprint("control_api", __name__, url_prefix="/control")


@views.get("/faults")
def faults() -> Response:
    """The faults in force, the oldest first."""
    found = [_fault(number, fault) for number, fault in services().faults.all()]
    return Response(json.dumps(found), content_type="application/json")


@views.post("/faults")
def add_fault() -> Response:
    """One more fault: 201 with it."""
    number, fault = actions.add_fault(body("endpoint", "fault", "times", "user"))
    return json_response(201, _fault(number, fault))


@views.delete("/faults")
def delete_faults() -> Response:
    """No fault any more."""
    return json_response(200, {"deleted": actions.delete_faults()})


@views.delete("/faults/<int:number>")
def delete_fault(number: int) -> Response:
    """This fault no more."""
    return json_response(200, {"deleted": actions.delete_faults(number)})


@views.post("/keys/rotate")
def rotate_keys() -> Response:
    """New signing keys."""
    given = body("forget_old", optional=True)
    return json_response(200, actions.rotate_keys(forget_old=given.get("forget_old", False)))


@views.get("/users/<email>/groups")
def groups(email: str) -> Response:
    """A user's groups."""
    return json_response(200, {"groups": list(actions.find_user(email).groups)})


@views.put("/users/<email>/groups")
def set_groups(email: str) -> Response:
    """Replace a user's groups."""
    found = actions.set_groups(actions.find_user(email), body("groups").get("groups"))
    return json_response(200, {"groups": list(found)})


@views.post("/users/<email>/revoke")
def revoke(email: str) -> Response:
    """End all refresh tokens of a user."""
    body(optional=True)
    return json_response(200, {"revoked": actions.revoke_user(actions.find_user(email))})


@views.post("/clients")
def add_client() -> Response:
    """One more client: 201 with it, its secret included, since that may have been made here."""
    client = actions.add_client(body("client_id", "client_secret", "redirect_uris", "logout_uris"))
    return json_response(
        201,
        {
            "client_id": client.client_id,
            "client_secret": client.secret,
            "redirect_uris": list(client.redirect_uris),
            "logout_uris": list(client.logout_uris),
        },
    )


def _fault(number: int, fault: Fault) -> dict[str, Any]:
    shown = {"id": number, "endpoint": fault.endpoint, "fault": describe(fault.kind), "times": fault.times}
    return {**shown, "user": fault.email} if fault.user else shown
