"""Check what Airflow returns and raises when the hook reads a connection."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowNotFoundException
from cryptography.fernet import InvalidToken

from airflow_provider_cpp.core.errors import CloudPartnerError
from airflow_provider_cpp.core.text import html_to_text

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def explain_airflow_errors(conn_id: str) -> Iterator[None]:
    """Convert the exceptions with which Airflow refuses to return a connection.

    :raises AirflowNotFoundException: Airflow found no such connection. Airflow raises it also for a secrets
        backend or an API server that does not answer, and for a value that it cannot parse or decrypt.
    :raises ValueError: Airflow cannot decrypt or parse the connection, or denies access to it; permanent
    :raises CloudPartnerError: any other failure of Airflow; transient
    """
    name = f"Connection {conn_id!r}"
    try:
        yield
    except AirflowNotFoundException as error:
        raise AirflowNotFoundException(
            f"{name} is not defined, or Airflow cannot read it. Check its id, the secrets backend, the "
            f"Fernet key, and that the variable AIRFLOW_CONN_{conn_id.upper()}, if set, is valid JSON or a "
            "URI."
        ) from error
    except InvalidToken as error:  # its own message is empty
        raise ValueError(f"{name}: {_FERNET}") from error
    except PermissionError as error:
        raise ValueError(
            f"{name}: Airflow denies this task access to the connection: {_quote(error)}. Check the team of "
            "the Dag and of the connection."
        ) from error
    except Exception as error:
        words = _quote(error)
        if "fernet" in words.lower():
            raise ValueError(f"{name}: {_FERNET} ({words})") from error
        if isinstance(error, ValueError):
            raise ValueError(f"{name} cannot be read: {words}. Correct the connection.") from error
        raise CloudPartnerError(
            f"{name} cannot be read from Airflow now: {words}. Check that the API server and the secrets "
            "backend answer.",
            unsent=True,
        ) from error


def _quote(error: Exception) -> str:
    """Return the message of an exception of Airflow, which may quote the URI of a connection."""
    words = re.sub(r"\w+://\S+", "***", html_to_text(str(error), 300))
    return f"{type(error).__name__}: {words}".removesuffix(".")


_FERNET = (
    "Airflow cannot decrypt the connection. Set [core] fernet_key to the key that encrypted it, or save the "
    "connection again."
)


def check_extra(conn_id: str, text: str | None) -> None:
    """Raise `ValueError` unless the extra of a connection is empty or a JSON object.

    Airflow ignores an extra that is not JSON, and returns any other JSON value as it is.
    """
    if not text:
        return
    name, example = f"Connection {conn_id!r}", 'for example {"tenantId": "…"}'
    try:
        extra = json.loads(text)
    except ValueError as error:
        # The message of JSONDecodeError names a position and does not quote the text.
        problem = f"is not valid JSON ({error}). Correct it to a JSON object, {example}."
        raise ValueError(f"{name}: the extra {problem}") from None
    if isinstance(extra, str):
        raise ValueError(
            f"{name}: the extra is encoded as JSON twice: it is a JSON text that contains JSON. Save the "
            f"JSON object itself, without quotation marks around it, {example}."
        )
    if not isinstance(extra, dict):
        raise ValueError(
            f"{name}: the extra is a JSON value of type {type(extra).__name__}. Correct it to a JSON object, "
            f"{example}."
        )
