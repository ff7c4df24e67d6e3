"""How long a request waits if a server or a proxy says when to ask again (``Retry-After``): as told, up to a limit.

MLflow's client waits as long, inside the request and without a word: urllib3 waits for up to six hours. A training
would not end in that time, and a command would not begin.
"""

from __future__ import annotations

from typing import Any

from mlflow.utils import request_utils
from urllib3.exceptions import InvalidHeader
from urllib3.util.retry import Retry

LONGEST_S = 30.0
"""The longest wait for one repetition. After the last one the store counts as away, and the journal keeps the rest."""


class BoundedRetry(Retry):
    """urllib3's rules of repetition, with a limit on the wait that a server asks for."""

    def get_retry_after(self, response: Any) -> float | None:
        """Return the seconds to wait. None if the server does not say, or says what is no time."""
        try:
            told = super().get_retry_after(response)
        except InvalidHeader:
            return None
        return None if told is None else min(told, LONGEST_S)


request_utils.Retry = BoundedRetry  # type: ignore[misc]  # MLflow 3 makes its sessions with this name
