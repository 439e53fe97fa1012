"""Our errors as JupyterHub shows them: with their own status, their own sentence, and nothing else."""

from __future__ import annotations

import html
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from logging import Logger, LoggerAdapter
from typing import Any, TypeAlias

import jupyterhub.spawner
from tornado import web

from ..errors import PrebuiltError, QueueFull, RequestError

AnyLogger: TypeAlias = "Logger | LoggerAdapter[Any]"

GENERIC_MESSAGE = "Your server could not be started because of an internal error. Tell your administrator."

# Since 6.0, JupyterHub counts no SpawnException as a sign of its own ill health; 5.5 has no such class.
_SpawnException: Any = getattr(jupyterhub.spawner, "SpawnException", None)


if _SpawnException is not None:

    class SpawnRefused(_SpawnException):  # type: ignore[misc]  # jupyterhub is not typed
        """A start that ends with a sentence for the user.

        Args:
            message: Plain text for the user.
            status: The HTTP status.
            reason: A short word for metrics, one of few.
        """

        def __init__(self, message: str, *, status: int, reason: str) -> None:
            escaped = html.escape(message)
            super().__init__(message, reason=reason, status_code=status, message_html=escaped)
            # The forms and pages read these two, and would show `str(exception)` without them.
            self.jupyterhub_message = message
            self.jupyterhub_html_message = escaped

else:

    class SpawnRefused(web.HTTPError):  # type: ignore[no-redef]
        """A start that ends with a sentence for the user."""

        def __init__(self, message: str, *, status: int, reason: str) -> None:
            # 5.5 takes the REST answer's message from `log_message`, and calls every reason "error".
            super().__init__(status, message)
            self.jupyterhub_message = message
            self.jupyterhub_html_message = html.escape(message)


class InternalError(web.HTTPError):
    """What users see of an exception that nobody expected: that there was one.

    No `SpawnException`: unlike a refusal, it counts toward JupyterHub's `consecutive_failure_limit`.
    """

    def __init__(self) -> None:
        super().__init__(500, GENERIC_MESSAGE)
        self.jupyterhub_message = GENERIC_MESSAGE
        self.jupyterhub_html_message = html.escape(GENERIC_MESSAGE)


def refusal(error: PrebuiltError) -> web.HTTPError:
    """The exception that makes JupyterHub answer with this error's status and message."""
    refused: web.HTTPError = SpawnRefused(error.message, status=error.status, reason=error.reason)
    return refused


@contextmanager
def errors_for_users(log: AnyLogger, doing: str, *, settings: MutableMapping[str, Any]) -> Iterator[None]:
    """Lets nothing out but HTTP errors whose text is meant for users; the rest goes into the log.

    Args:
        log: Where an error's detail or traceback goes.
        doing: What is going on and for whom, for the log: `preparing the environment of ada`.
        settings: The hub's, in which JupyterHub counts failures in a row.
    """
    try:
        yield
    except PrebuiltError as error:
        about = f"build {error.build_id}, {error.cause}" if error.build_id else error.cause
        if error.status >= 500:
            log.error("Error while %s (%s): %s %s", doing, about, error.message, error.detail)
        else:
            log.info("Refused while %s (%s): %s %s", doing, about, error.message, error.detail)
        if isinstance(error, RequestError | QueueFull):
            _do_not_count(settings)
        raise refusal(error) from error
    except web.HTTPError:
        raise
    except Exception as error:
        log.exception("Unexpected error while %s", doing)
        # The cause stays in the log: `progress()` would show its text to the user.
        raise InternalError() from error


def _do_not_count(settings: MutableMapping[str, Any]) -> None:
    """Keep a refused start out of JupyterHub 5's count of failures in a row, at whose limit the hub ends itself.

    JupyterHub 6 counts only what is no refusal; 5 counts every start that fails, right after this.
    """
    if _SpawnException is None:
        settings["failure_count"] = settings.get("failure_count", 0) - 1
