"""What a store means by an error: the event is wrong for good, too large, or not allowed to this user."""

from __future__ import annotations

import pytest
import requests
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.utils.rest_utils import verify_rest_response
from sqlalchemy.exc import OperationalError

from moola_mlflow.core import UserError
from moola_mlflow.tracking.artifact_places import LocalPlace
from moola_mlflow.tracking.delivery.refusals import is_denial, is_refusal, is_too_large


def http(code: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = code
    return requests.HTTPError(response=response)


def coded(code: str, text: str = "no") -> MlflowException:
    return RestException({"error_code": code, "message": text})


def page(code: int) -> MlflowException:
    """What MLflow makes of a proxy's page."""
    response = requests.Response()
    response.status_code, response._content = code, b"<html>Not today</html>"
    try:
        verify_rest_response(response, "/api/2.0/mlflow/runs/log-batch")
    except MlflowException as e:
        return e
    raise AssertionError


def lost_database() -> MlflowException:
    """What MLflow makes of a database that is gone: with the code of a bad request."""
    try:
        try:
            raise OperationalError("SELECT 1", {}, ConnectionError("server closed the connection"))
        except OperationalError as e:
            raise MlflowException(str(e), error_code=4) from e
    except MlflowException as e:
        return e


TOO_LARGE = "API request to endpoint /api failed with error code 413 != 200. Response body: '<html>'"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UserError("holds detectors"), "refusal"),
        (coded("INVALID_PARAMETER_VALUE"), "refusal"),
        (coded("RESOURCE_ALREADY_EXISTS"), "refusal"),
        (coded("BAD_REQUEST"), "refusal"),
        (lost_database(), ""),
        (coded("PERMISSION_DENIED"), "denial"),
        (coded("INTERNAL_ERROR"), ""),
        (coded("TEMPORARILY_UNAVAILABLE"), ""),
        (http(403), "denial"),
        (http(413), "denial too large"),
        (http(401), ""),
        (http(429), ""),
        (http(503), ""),
        (requests.HTTPError(), ""),
        (page(400), ""),
        (page(403), "denial"),
        (RestException({"message": "Bad Request", "code": 400}), ""),
        (RestException({"error_code": 400, "message": "no"}), ""),
        (RestException({"error_code": "400", "message": "no"}), ""),
        (LocalPlace("a path of this machine"), "denial"),
        (MlflowException("Invalid value", error_code=INVALID_PARAMETER_VALUE), "refusal"),
        (MlflowException(TOO_LARGE), "too large"),
        (coded("INTERNAL_ERROR", "Payload Too Large"), "too large"),
        (coded("INTERNAL_ERROR", "request exceeds the size limit"), "too large"),
        (MlflowException("step 413: no"), ""),
        (PermissionError(13, "Permission denied"), ""),
        (ConnectionError("refused"), ""),
    ],
    ids=repr,
)
def test_an_error_is_read_as_what_it_says_of_the_event(error: Exception, expected: str) -> None:
    read = {"refusal": is_refusal(error), "denial": is_denial(error), "too large": is_too_large(error)}
    assert " ".join(name for name, said in read.items() if said) == expected
