"""The hook: the methods that send requests to the Cloud Partner Portal API."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import tenacity
from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_cpp.connection import check_extra, explain_airflow_errors
from airflow_provider_cpp.constants import CONN_TYPE, DEFAULT_CONN_ID
from airflow_provider_cpp.core.errors import AuthenticationError, CloudPartnerError
from airflow_provider_cpp.get_provider_info import CONNECTION_FIELDS, FIELD_BEHAVIOUR
from airflow_provider_cpp.portal import requests as portal
from airflow_provider_cpp.portal.locations import offer_in_location
from airflow_provider_cpp.transport.aio import SharedSession
from airflow_provider_cpp.transport.failures import T, read_response
from airflow_provider_cpp.transport.settings import Settings
from airflow_provider_cpp.transport.single_flight import single_flight
from airflow_provider_cpp.transport.sync import SyncTransport

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import requests

    from airflow_provider_cpp.core.http import Request, Response
    from airflow_provider_cpp.core.models import Offer, OfferStatus, Operation, Publisher, Submission

log = logging.getLogger(__name__)
# Airflow gives a trigger half a minute after its task is killed.
_SHORT_RETRY: dict[str, Any] = {
    "retry": tenacity.retry_if_exception(lambda error: getattr(error, "is_transient", False)),
    "wait": tenacity.wait_exponential(max=4),
    "stop": tenacity.stop_after_attempt(4),
    "reraise": True,
}


class CloudPartnerHook(BaseHook):
    """Release offers on the Microsoft commercial marketplace through the Cloud Partner Portal API.

    Each method has an async variant with a leading `a`. The publisher is the connection's `publisherId`
    unless an argument names another one. No request is retried, except once with a new token after a 401.
    Every method raises these exceptions and no others:

    - `ValueError`, before any request: an argument or the connection cannot be used. Permanent.
    - `AirflowNotFoundException`, before any request: Airflow finds no such connection.
    - `CloudPartnerError` or a subclass: the response is not a success, there was no response, the identity
      host issued no token (`AuthenticationError` for a refusal or an unavailable credential), or Airflow
      cannot return the connection now. `is_transient` states whether a later attempt may succeed.

    In an event loop, all hooks of a connection share one session, one connection pool and one token while at
    least one of them is entered::

        async with CloudPartnerHook() as hook:
            operation = await hook.aget_operation(location)

    :param cloud_partner_conn_id: id of a connection of type `cloud_partner`
    """

    conn_name_attr = "cloud_partner_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = CONN_TYPE
    hook_name = "Microsoft Cloud Partner Portal"

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the extras of the connection's form, for Airflow 2.11 to 3.1."""
        from flask_appbuilder.fieldwidgets import BS3TextFieldWidget  # type: ignore[import-not-found]
        from wtforms import StringField  # type: ignore[import-untyped]

        return {
            name: StringField(field["label"], description=field["description"], widget=BS3TextFieldWidget())
            for name, field in CONNECTION_FIELDS.items()
        }

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the labels and placeholders of the connection's form, for Airflow 2.11 to 3.1."""
        return {key.replace("-", "_"): value for key, value in FIELD_BEHAVIOUR.items()}

    def __init__(self, cloud_partner_conn_id: str = DEFAULT_CONN_ID) -> None:
        super().__init__()
        self.cloud_partner_conn_id = cloud_partner_conn_id
        self._settings: Settings | None = None
        self._entered = 0
        self._shared: SharedSession | None = None

    # --- the requests of the API ----------------------------------------------------------------------------

    def go_live(self, offer_id: str, publisher_id: str | None = None) -> str:
        """Take an offer from preview to production (reference: Go live).

        :return: Location path of the operation
        """
        return self._send(portal.go_live(self._publisher(publisher_id), offer_id))

    async def ago_live(self, offer_id: str, publisher_id: str | None = None) -> str:
        """Async variant of `go_live`."""
        return await self._asend(portal.go_live(await self._apublisher(publisher_id), offer_id))

    def publish(
        self, offer_id: str, publisher_id: str | None = None, *, notification_emails: Iterable[str] = ()
    ) -> str:
        """Publish an offer to its preview (reference: Publish).

        :param notification_emails: addresses that the service notifies; ignored for migrated offers
        :return: Location path of the operation
        """
        publisher = self._publisher(publisher_id)
        return self._send(portal.publish(publisher, offer_id, notification_emails=notification_emails))

    async def apublish(
        self, offer_id: str, publisher_id: str | None = None, *, notification_emails: Iterable[str] = ()
    ) -> str:
        """Async variant of `publish`."""
        publisher = await self._apublisher(publisher_id)
        return await self._asend(portal.publish(publisher, offer_id, notification_emails=notification_emails))

    def cancel(
        self, offer_id: str, publisher_id: str | None = None, *, notification_emails: Iterable[str] = ()
    ) -> str | None:
        """Cancel the running operation of an offer (reference: Cancel).

        :return: Location path of the operation while the service cancels it, which takes minutes; None if the
            service canceled it at once
        """
        publisher = self._publisher(publisher_id)
        return self._send(portal.cancel(publisher, offer_id, notification_emails=notification_emails))

    async def acancel(
        self, offer_id: str, publisher_id: str | None = None, *, notification_emails: Iterable[str] = ()
    ) -> str | None:
        """Async variant of `cancel`."""
        publisher = await self._apublisher(publisher_id)
        return await self._asend(portal.cancel(publisher, offer_id, notification_emails=notification_emails))

    def get_operation(self, operation_location: str) -> Operation:
        """Read an operation (reference: Retrieve operations).

        :param operation_location: return value of `go_live`, `publish` or `cancel`; an absolute URL only on
            the connection's host
        """
        return self._send(portal.get_operation(operation_location, self.settings.base_url))

    async def aget_operation(self, operation_location: str) -> Operation:
        """Async variant of `get_operation`."""
        base_url = (await self.asettings()).base_url
        return await self._asend(portal.get_operation(operation_location, base_url))

    def list_operations(
        self, offer_id: str, publisher_id: str | None = None, *, status: str | None = None
    ) -> list[Submission]:
        """List an offer's operations (reference: Retrieve operations).

        :param status: only operations with this status, e.g. `running`
        """
        return self._send(portal.list_operations(self._publisher(publisher_id), offer_id, status=status))

    async def alist_operations(
        self, offer_id: str, publisher_id: str | None = None, *, status: str | None = None
    ) -> list[Submission]:
        """Async variant of `list_operations`."""
        publisher = await self._apublisher(publisher_id)
        return await self._asend(portal.list_operations(publisher, offer_id, status=status))

    def get_offer_status(self, offer_id: str, publisher_id: str | None = None) -> OfferStatus:
        """Read the status of an offer (reference: Retrieve offer status)."""
        return self._send(portal.get_offer_status(self._publisher(publisher_id), offer_id))

    async def aget_offer_status(self, offer_id: str, publisher_id: str | None = None) -> OfferStatus:
        """Async variant of `get_offer_status`."""
        return await self._asend(portal.get_offer_status(await self._apublisher(publisher_id), offer_id))

    def get_offer(
        self,
        offer_id: str,
        publisher_id: str | None = None,
        *,
        slot: str | None = None,
        version: int | None = None,
    ) -> Offer:
        """Read the draft, a slot or a version of an offer (reference: Retrieve a specific offer).

        :param slot: `draft`, `preview` or `production`
        :param version: number of a version; not together with `slot`
        """
        publisher = self._publisher(publisher_id)
        return self._send(portal.get_offer(publisher, offer_id, slot=slot, version=version))

    async def aget_offer(
        self,
        offer_id: str,
        publisher_id: str | None = None,
        *,
        slot: str | None = None,
        version: int | None = None,
    ) -> Offer:
        """Async variant of `get_offer`."""
        publisher = await self._apublisher(publisher_id)
        return await self._asend(portal.get_offer(publisher, offer_id, slot=slot, version=version))

    def put_offer(
        self,
        offer_id: str,
        definition: Mapping[str, Any],
        publisher_id: str | None = None,
        *,
        if_match: str | None = None,
    ) -> Offer:
        """Create or modify an offer (reference: Create or modify an offer; Concurrency control).

        :param definition: the whole offer, such as a changed `get_offer(...).raw`; or only its definition,
            such as a changed `get_offer(...).definition`
        :param if_match: the ETag that was read with the offer, or `*` to overwrite the offer; None creates an
            offer. The service sends no ETag with a migrated offer: use `UpdateOfferOperator`, or compare the
            offer with the version that you read, and pass `*`.
        :raises ValueError: the offer contains a redaction marker, or was read from the service and `if_match`
            is None; nothing was sent
        :raises PreconditionFailedError: the offer changed after that ETag was read
        :raises ConflictError: `if_match` is None, and the offer exists
        """
        publisher = self._publisher(publisher_id)
        return self._send(portal.put_offer(publisher, offer_id, definition, if_match=if_match))

    async def aput_offer(
        self,
        offer_id: str,
        definition: Mapping[str, Any],
        publisher_id: str | None = None,
        *,
        if_match: str | None = None,
    ) -> Offer:
        """Async variant of `put_offer`."""
        publisher = await self._apublisher(publisher_id)
        return await self._asend(portal.put_offer(publisher, offer_id, definition, if_match=if_match))

    def list_offers(
        self, publisher_id: str | None = None, *, offer_type_id: str | None = None
    ) -> list[Offer]:
        """List a publisher's offers (reference: Retrieve offers).

        :param offer_type_id: only offers of this type, e.g. `microsoft-azure-virtualmachines`
        """
        return self._send(portal.list_offers(self._publisher(publisher_id), offer_type_id=offer_type_id))

    async def alist_offers(
        self, publisher_id: str | None = None, *, offer_type_id: str | None = None
    ) -> list[Offer]:
        """Async variant of `list_offers`."""
        publisher = await self._apublisher(publisher_id)
        return await self._asend(portal.list_offers(publisher, offer_type_id=offer_type_id))

    def list_publishers(self) -> list[Publisher]:
        """List the publishers that the service principal is a user of."""
        return self._send(portal.list_publishers())

    async def alist_publishers(self) -> list[Publisher]:
        """Async variant of `list_publishers`."""
        return await self._asend(portal.list_publishers())

    def cancel_operation(self, operation_location: str) -> None:
        """Cancel an operation if it still runs. Other operations on the same offer are not canceled."""
        for attempt in tenacity.Retrying(**_SHORT_RETRY):
            with attempt:
                if not self.get_operation(operation_location).is_terminal:
                    self.cancel(*_offer_to_cancel(operation_location))

    async def aget_operation_with_retries(self, operation_location: str) -> Operation:
        """Read an operation, with the short retries of `acancel_operation`."""
        return await tenacity.AsyncRetrying(**_SHORT_RETRY)(self.aget_operation, operation_location)

    async def acancel_operation(self, operation_location: str) -> None:
        """Async variant of `cancel_operation`."""
        async for attempt in tenacity.AsyncRetrying(**_SHORT_RETRY):
            with attempt:
                if not (await self.aget_operation(operation_location)).is_terminal:
                    await self.acancel(*_offer_to_cancel(operation_location))

    def test_connection(self) -> tuple[bool, str]:
        """Get a token and list the offers, or the publishers if the connection names none.

        :return: whether the connection works, and the result or the error as a message for the UI
        """
        try:
            if self.settings.publisher_id is None:
                found = len(self.list_publishers())
                return True, f"Signed in; the service principal is a user of {found} publishers."
            offers = self.list_offers()
        except (CloudPartnerError, ValueError, AirflowNotFoundException) as error:
            # Airflow tests a connection under an id that it generates.
            return False, str(error).replace(f"Connection {self.cloud_partner_conn_id!r}", "The connection")
        return True, f"Signed in; publisher {self.settings.publisher_id} has {len(offers)} offers."

    # --- in a worker ----------------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The settings of the connection, read once. Do not use this property in an event loop.

        :raises AirflowNotFoundException: Airflow finds no such connection
        :raises ValueError: the connection cannot be decrypted or used
        :raises CloudPartnerError: Airflow cannot return the connection now
        """
        if self._settings is None:
            with explain_airflow_errors(self.cloud_partner_conn_id):
                connection = self.get_connection(self.cloud_partner_conn_id)
                raw_extra = connection.extra  # which Airflow may decrypt only now
            check_extra(self.cloud_partner_conn_id, raw_extra)
            self._settings = Settings.from_connection(connection, connection.extra_dejson)
        return self._settings

    def reload_after(self, error: AuthenticationError) -> CloudPartnerError:
        """Read the connection again after its credential was refused.

        :return: a transient error if the settings changed, for later requests with the new ones; else `error`
        """
        if error.is_transient:
            return error
        settings = type(self)(self.cloud_partner_conn_id).settings
        if settings == self._settings:
            return error
        self._settings = settings
        self.__dict__.pop("_sync", None)
        return _changed_connection(error)

    async def areload_after(self, error: AuthenticationError) -> CloudPartnerError:
        """Async variant of `reload_after`."""
        if error.is_transient:
            return error
        settings = await type(self)(self.cloud_partner_conn_id).asettings()
        if settings == self._settings:
            return error
        self._settings = settings
        if self._shared is not None:
            shared, self._shared = self._shared, None
            await shared.release()
        return _changed_connection(error)

    def get_conn(self, headers: Mapping[str, str] | None = None) -> requests.Session:
        """Return a new session, which adds a token, sends to the connection's host only, follows no redirect.

        :param headers: headers of all requests of this session
        """
        session = self._sync.new_session()
        session.headers.update(headers or {})
        return session

    @cached_property
    def _sync(self) -> SyncTransport:
        return SyncTransport(self.settings, _keep_alive_adapter)

    def _send(self, call: Request[T]) -> T:
        """Send a request of `airflow_provider_cpp.portal`, and return the value of the response."""
        return self._sync.send(call)

    ask = _send

    def _publisher(self, publisher_id: str | None) -> str:
        return self.settings.publisher(publisher_id)

    # --- in an event loop -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Keep the shared session from the first request to the exit."""
        self._entered += 1
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._entered -= 1
        if not self._entered and self._shared is not None:
            shared, self._shared = self._shared, None
            await shared.release()

    async def asettings(self) -> Settings:
        """Return the settings of the connection, read once, without blocking the event loop.

        :raises AirflowNotFoundException: Airflow finds no such connection
        :raises ValueError: the connection cannot be decrypted or used
        :raises CloudPartnerError: Airflow cannot return the connection now
        """
        if self._settings is None:
            # A thousand triggers that start together read the connection once.
            self._settings = await single_flight(
                ("connection", self.cloud_partner_conn_id), self._read_connection
            )
        return self._settings

    async def _read_connection(self) -> Settings:
        with explain_airflow_errors(self.cloud_partner_conn_id):
            connection = await get_async_connection(self.cloud_partner_conn_id, hook=self)
            raw_extra = connection.extra  # which Airflow may decrypt only now
        check_extra(self.cloud_partner_conn_id, raw_extra)
        with explain_airflow_errors(self.cloud_partner_conn_id):
            extra = await get_async_extra_dejson(connection)
        return Settings.from_connection(connection, extra)

    async def apoll(
        self, call: Request[T], *, before: bytes | None, until: float
    ) -> tuple[Response, T | None]:
        """Send a poll. Return the response and its value; the value is None if the body did not change.

        :param before: body of the previous response
        :param until: latest time to send the poll, in seconds since the epoch, if many others are waiting
        """
        response, token = await self._aanswer(call, until)
        if response.body == before and 200 <= response.status < 300:
            return response, None
        return response, read_response(call, response, token, await self.asettings())

    async def _asend(self, call: Request[T]) -> T:
        return read_response(call, *await self._aanswer(call), await self.asettings())

    async def _aanswer(self, call: Request[Any], until: float | None = None) -> tuple[Response, str]:
        if self._shared is not None:
            return await self._shared.answer(call, until)
        shared = await SharedSession.acquire(await self.asettings())
        if self._entered and self._shared is None:
            self._shared = shared
            return await shared.answer(call, until)
        try:
            return await shared.answer(call, until)
        finally:
            await shared.release()

    async def _apublisher(self, publisher_id: str | None) -> str:
        return (await self.asettings()).publisher(publisher_id)


def _keep_alive_adapter() -> Any:
    """Return a new adapter of the HTTP provider, which keeps idle TCP connections alive."""
    from airflow.providers.http.hooks.http import HttpHook

    return HttpHook().keep_alive_adapter


def _changed_connection(error: AuthenticationError) -> CloudPartnerError:
    return CloudPartnerError(f"{error} The connection has changed; the next poll uses it.", unsent=True)


def _offer_to_cancel(location: str) -> tuple[str, str]:
    """Log which operation is canceled, and return the ids of its offer and publisher."""
    publisher_id, offer_id = offer_in_location(location)
    log.warning("Canceling operation %s of %s/%s.", location, publisher_id, offer_id)
    return offer_id, publisher_id
