"""What can be polled: an operation, or an offer's status."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_cpp.portal.locations import offer_in_location
from airflow_provider_cpp.portal.requests import get_offer_status, get_operation
from airflow_provider_cpp.portal.responses import publishing_version

if TYPE_CHECKING:
    from airflow_provider_cpp.core.http import Request
    from airflow_provider_cpp.core.models import OfferStatus, Operation
    from airflow_provider_cpp.core.progress import Progress


@dataclass(frozen=True, slots=True)
class OperationTarget:
    """An operation, by its Location path."""

    operation_location: str

    @property
    def identity(self) -> dict[str, str]:
        """The Location, and the offer's ids if the path contains them."""
        identity = {"location": self.operation_location}
        try:
            publisher_id, offer_id = offer_in_location(self.operation_location)
        except ValueError:
            return identity
        return identity | {"publisher_id": publisher_id, "offer_id": offer_id}

    def request(self, base_url: str) -> Request[Operation]:
        """Return the request that reads the operation.

        :raises ValueError: the Location is invalid
        """
        return get_operation(self.operation_location, base_url)

    def version(self, progress: Progress) -> int | None:
        """Return the version that the operation publishes, if the service reports it."""
        return publishing_version(progress.raw)


@dataclass(frozen=True, slots=True)
class OfferStatusTarget:
    """An offer's status."""

    publisher_id: str
    offer_id: str

    @property
    def identity(self) -> dict[str, str]:
        """The offer's ids."""
        return {"publisher_id": self.publisher_id, "offer_id": self.offer_id}

    def request(self, base_url: str) -> Request[OfferStatus]:
        """Return the request that reads the offer's status.

        :raises ValueError: an id is invalid
        """
        return get_offer_status(self.publisher_id, self.offer_id)

    def version(self, progress: Progress) -> int | None:
        """Return the version that the service publishes, if it reports it."""
        return publishing_version(progress.raw)
