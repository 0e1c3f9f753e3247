"""Keep other libraries from logging what this provider sends or receives."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


# These loggers quote responses, which may repeat secrets of the request. Below the given level, records are
# dropped while this provider sends a request: its own errors quote the response with secrets redacted.
_QUOTING_LOGGERS = {
    "azure.identity._credentials.chained": logging.DEBUG,
    "azure.identity._internal.decorators": logging.DEBUG,
    "azure.identity._internal.get_token_mixin": logging.DEBUG,
    "azure.identity._internal.msal_managed_identity_client": logging.DEBUG,
    "azure.identity.aio._credentials.chained": logging.DEBUG,
    "azure.identity.aio._internal.decorators": logging.DEBUG,
    "azure.identity.aio._internal.get_token_mixin": logging.DEBUG,
    "msal.oauth2cli.oauth2": logging.DEBUG,
    "urllib3.connection": logging.WARNING,
    "urllib3.connectionpool": logging.WARNING,
}
_sending: ContextVar[bool] = ContextVar("sending", default=False)


def _keep_record(record: logging.LogRecord) -> bool:
    return not _sending.get() or record.levelno < _QUOTING_LOGGERS[record.name]


for _name in _QUOTING_LOGGERS:
    logging.getLogger(_name).addFilter(_keep_record)
# Given to azure-core, which would log each request with its headers. It has a filter since
# `logging.config.dictConfig`, which Airflow calls, resets `disabled`.
identity_log = logging.getLogger(f"{__name__}.identity")
identity_log.addFilter(lambda record: False)


@contextmanager
def suppress_library_logs() -> Iterator[None]:
    """Drop log records that quote responses, while the body of the `with` statement runs."""
    before = _sending.set(True)
    try:
        yield
    finally:
        _sending.reset(before)
