"""What a store means by an error: wrong for good, too large, or not allowed to this user."""

from __future__ import annotations

import re

from mlflow.exceptions import MlflowException, RestException
from requests import HTTPError

from moola_mlflow.core import UserError
from moola_mlflow.tracking.artifact_places import LocalPlace
from moola_mlflow.tracking.store import is_outage

REFUSED = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"}
"""MLflow's codes for an event that the store does not take as it is."""
FROM_A_PROXY = "API request to"
"""Begins MLflow's message for an answer that is not MLflow's JSON, such as a proxy's page."""
DENIED = "PERMISSION_DENIED"
DELETED = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
"""MLflow's codes for a call on a run that was deleted."""
NOT_NOW = {401, 408, 429}
"""HTTP codes that do not judge what was sent: an expired login, a slow request, one request too many."""
TOO_LARGE = re.compile(r"(?i)failed with error code 413\b|^413: |^INTERNAL_ERROR: .*(too (large|long|big)|size limit)")
"""How MLflow words a proxy's 413. If the proxy answers in JSON, MLflow keeps the message alone."""


def is_refusal(error: BaseException) -> bool:
    """Return whether the store says that an event itself is wrong, so that trying again at once cannot help.

    Only MLflow's own answer counts. A proxy's page or JSON, whatever its code, says nothing of the event.
    """
    if isinstance(error, UserError):
        return not isinstance(error, LocalPlace)
    refused = getattr(error, "error_code", "") in REFUSED and not is_outage(error)  # BAD_REQUEST: any database error
    return refused and is_from_mlflow(error)


def is_from_mlflow(error: BaseException) -> bool:
    """Return whether MLflow made an error: its store on this machine, or a server that named one of MLflow's codes."""
    if isinstance(error, RestException):
        return not str(error.json.get("error_code", "")).isdecimal() and "error_code" in error.json
    return isinstance(error, MlflowException) and not str(error).startswith(FROM_A_PROXY)


def is_too_large(error: BaseException) -> bool:
    """Return whether a request was larger than the store, or a proxy in front of it, takes."""
    if isinstance(error, HTTPError):
        return error.response is not None and error.response.status_code == 413
    return isinstance(error, MlflowException) and TOO_LARGE.search(str(error)) is not None


def is_denial(error: BaseException) -> bool:
    """Return whether the store does not take this from this user, or not in this size.

    Another user, or changed limits, may get it through. So files are worth keeping.
    """
    if isinstance(error, LocalPlace):
        return True
    if isinstance(error, HTTPError):  # raised for artifacts
        code = 0 if error.response is None else error.response.status_code
        return 400 <= code < 500 and code not in NOT_NOW
    return getattr(error, "error_code", "") == DENIED
