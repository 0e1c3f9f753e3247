"""Read an offer's operations and versions, and retry requests that fail for a while."""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_cpp.core.errors import (
    AuthenticationError,
    CloudPartnerError,
    ConflictError,
    NotFoundError,
)
from airflow_provider_cpp.core.polling import LONGEST_RETRY_AFTER
from airflow_provider_cpp.core.text import normalize_status
from airflow_provider_cpp.portal.locations import candidate_locations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airflow_provider_cpp.core.models import Offer, OfferStatus, Operation, Submission
    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

T = TypeVar("T")

#: Attempts of one request. The pauses between them grow up to `LONGEST_PAUSE` seconds; a longer Retry-After
#: of the service is respected.
ATTEMPTS = 8
LONGEST_PAUSE = 30.0
#: Pauses in seconds before each lookup of an operation that the service may not list yet. Use the short ones
#: if a second request follows: the service refuses it if the operation exists. Use the long ones, two minutes
#: in all, if the operation certainly exists, or if an earlier attempt may have started one.
SHORT_DELAYS = (0.0, 1.0, 2.0, 4.0, 8.0)
LONG_DELAYS = (*SHORT_DELAYS, 15.0, 30.0, 60.0)

#: Requests with an unknown outcome before the task fails.
UNKNOWN_OUTCOMES = 3

log = logging.getLogger(__name__)


@dataclass
class Retry:
    """Count the attempts of one request, and pause between them.

    :param description: the request as a phrase that starts with a verb in its -ing form, for the log, e.g.
        `Reading the operations of contoso/web`
    """

    description: str
    attempt: int = 1

    def pause_after(self, error: CloudPartnerError) -> bool:
        """Log a failed attempt and sleep before the next one; return False if there is no next attempt.

        There is no next attempt after `ATTEMPTS`, or if only a change of the connection or the host cures the
        error: the certificate is not trusted, or no credential is available.
        """
        is_permanent = error.untrusted or isinstance(error, AuthenticationError)
        if is_permanent or self.attempt >= ATTEMPTS:
            return False
        seconds = min(LONGEST_PAUSE, 0.5 * 2 ** (self.attempt - 1)) * random.uniform(0.5, 1)  # noqa: S311
        seconds = max(seconds, min(error.retry_after or 0.0, LONGEST_RETRY_AFTER))
        log.warning(
            "%s failed (attempt %d of %d); retrying in %.1f s. %s",
            self.description,
            self.attempt,
            ATTEMPTS,
            seconds,
            error,
        )
        time.sleep(seconds)
        self.attempt += 1
        return True


def retry_transient(
    function: Callable[[], T],
    should_retry: Callable[[CloudPartnerError], bool] = lambda error: error.is_transient,
    *,
    description: str,
) -> T:
    """Call a function, and call it again after errors that may pass.

    :param should_retry: whether an error may pass; by default a transient one
    :param description: see `Retry`
    """
    retry = Retry(description)
    while True:
        try:
            return function()
        except CloudPartnerError as error:
            if not should_retry(error) or not retry.pause_after(error):
                raise


def poll_delays(pauses: Iterable[float]) -> Iterator[None]:
    """Yield once after each pause, in seconds."""
    for seconds in pauses:
        time.sleep(seconds)
        yield


@dataclass(frozen=True)
class OfferOperations:
    """Read one offer and its operations; each read is retried while its errors may pass."""

    hook: CloudPartnerHook
    publisher_id: str
    offer_id: str

    def __str__(self) -> str:
        """Return the offer's name in logs and errors."""
        return f"{self.publisher_id}/{self.offer_id}"

    def list_operations(self) -> list[Submission]:
        """Return all operations. The list contains no Locations, and may be minutes old."""
        return retry_transient(
            lambda: self.hook.list_operations(self.offer_id, self.publisher_id),
            description=f"Reading the operations of {self}",
        )

    def get_operation(self, location: str) -> Operation:
        """Return the operation at a Location."""
        return retry_transient(
            lambda: self.hook.get_operation(location), description=f"Reading operation {location} of {self}"
        )

    def get_status(self) -> OfferStatus:
        """Return the offer's status."""
        return retry_transient(
            lambda: self.hook.get_offer_status(self.offer_id, self.publisher_id),
            description=f"Reading the status of {self}",
        )

    def get_offer(self, *, slot: str | None = None, version: int | None = None) -> Offer:
        """Return the offer's draft, the version in a slot, or a version.

        :raises NotFoundError: the slot is empty, or the service does not have the version
        """
        part = f"the {slot} slot of " if slot else f"version {version} of " if version else ""
        return retry_transient(
            lambda: self.hook.get_offer(self.offer_id, self.publisher_id, slot=slot, version=version),
            description=f"Reading {part}{self}",
        )

    def find_offer(self, *, slot: str | None = None, version: int | None = None) -> Offer | None:
        """Return the same as `get_offer`, and None instead of a `NotFoundError`."""
        try:
            return self.get_offer(slot=slot, version=version)
        except NotFoundError:
            return None

    def locations(self, submission: Submission) -> list[str]:
        """Return the Locations at which a list entry may be found."""
        api_version = self.hook.settings.api_version
        return candidate_locations(
            submission, self.publisher_id, self.offer_id, api_version, is_migrated=self.is_migrated
        )

    @cached_property
    def is_migrated(self) -> bool:
        """Whether the offer was migrated to Partner Center; it decides the form of a Location."""
        return normalize_status(self.get_offer().pc_migration_status) != "none"

    def find(self, submission: Submission) -> tuple[str, Operation] | None:
        """Return the Location and the operation of a list entry; None if the service does not show it yet."""
        for location in self.locations(submission):
            try:
                return location, self.get_operation(location)
            except NotFoundError:
                continue
        return None

    def locate(self, submission: Submission) -> tuple[str, Operation]:
        """Return the same as `find`, but wait up to two minutes until the service shows the operation.

        :raises CloudPartnerError: the service does not show it yet
        """
        for _ in poll_delays(LONG_DELAYS):
            if found := self.find(submission):
                return found
        raise CloudPartnerError(
            f"{self}: the list of operations has {describe(submission)}, but the service answers 404 Not "
            f"Found for {', '.join(self.locations(submission)) or 'its Location'}. The operation keeps "
            "running at the service. Retry the task later: it adopts the operation once the service shows it."
        )

    def conflict(self, verb: str, running: Submission | str, why: str = "") -> ConflictError:
        """Build the error for a request that cannot succeed because an operation is running.

        :param verb: the request, `go-live` or `publish`
        :param running: list entry or Location of the operation
        :param why: cause and cure, if the usual ones do not apply
        """
        if isinstance(running, str):
            what = f"operation {running} runs on it"
        else:
            what = f"a {_kind(running)} runs on it ({_properties(running)})"
        return ConflictError(f"No {verb} of {self} was started: {what}. {why or ConflictError.hint}")


def describe(submission: Submission) -> str:
    """Return a list entry in words: kind of operation, id, status, times."""
    return f"a {_kind(submission)} ({_properties(submission)})"


def _kind(submission: Submission) -> str:
    return submission.submission_type or "operation"


def _properties(submission: Submission) -> str:
    words = [f"id {submission.id or 'unknown'}", submission.status.value]
    if submission.created:
        words.append(f"since {submission.created.isoformat(timespec='seconds')}")
    if submission.changed:
        words.append(f"last changed {submission.changed.isoformat(timespec='seconds')}")
    return ", ".join(words)
