"""The hook: authentication with azure-identity, and the methods that send requests."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Self

import requests
import tenacity
from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson
from airflow.providers.common.compat.sdk import AirflowNotFoundException
from airflow.providers.http.hooks.http import HttpHook
from requests_toolbelt.adapters.socket_options import TCPKeepAliveAdapter  # type: ignore[import-untyped]

from airflow_provider_cpp.core.errors import CloudPartnerError
from airflow_provider_cpp.core.http import Request, Response
from airflow_provider_cpp.get_provider_info import CONNECTION_FIELDS, FIELD_BEHAVIOUR
from airflow_provider_cpp.portal import requests as portal
from airflow_provider_cpp.portal.locations import TOKEN_SCOPE, offer_in_location
from airflow_provider_cpp.transport.aio import SharedSession
from airflow_provider_cpp.transport.credentials import make_credential, token_error
from airflow_provider_cpp.transport.failures import T, is_unsent, no_response_error, read_response
from airflow_provider_cpp.transport.library_logs import suppress_library_logs
from airflow_provider_cpp.transport.settings import CONN_TYPE, Settings, ssl_context
from airflow_provider_cpp.transport.single_flight import single_flight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from airflow_provider_cpp.core.models import Offer, OfferStatus, Operation, Publisher, Submission


log = logging.getLogger(__name__)
# Airflow gives a trigger half a minute for what it does when its task is killed.
_SHORT_RETRY: dict[str, Any] = {
    "retry": tenacity.retry_if_exception(
        lambda error: isinstance(error, CloudPartnerError) and error.is_transient
    ),
    "wait": tenacity.wait_exponential(max=4),
    "stop": tenacity.stop_after_attempt(4),
    "reraise": True,
}


class CloudPartnerHook(HttpHook):
    """Release offers on the Microsoft commercial marketplace through the Cloud Partner Portal API.

    Each method has an async twin named with a leading `a`. Every method raises `ValueError` before anything
    is sent when an argument or the connection can't be used, and a `CloudPartnerError` for every answer that
    is not a success; nothing is retried, but for one repetition with a fresh token after a 401. Publishers
    are the connection's `publisherId` unless named.

    In an event loop, all hooks whose connections are equal share one session, one connection pool and one
    token while any of them is entered::

        async with CloudPartnerHook() as hook:
            operation = await hook.aget_operation(location)

    :param cloud_partner_conn_id: id of a connection of type `cloud_partner`
    """

    conn_name_attr = "cloud_partner_conn_id"
    default_conn_name = "cloud_partner_default"
    conn_type = CONN_TYPE
    hook_name = "Microsoft Cloud Partner Portal"

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the extras of the connection's form, for Airflow 2.11 to 3.1; later ones don't ask."""
        from flask_appbuilder.fieldwidgets import BS3TextFieldWidget  # type: ignore[import-not-found]
        from wtforms import StringField  # type: ignore[import-untyped]

        return {
            name: StringField(field["label"], description=field["description"], widget=BS3TextFieldWidget())
            for name, field in CONNECTION_FIELDS.items()
        }

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return what the form makes of the fields that every connection has, likewise."""
        return {key.replace("-", "_"): value for key, value in FIELD_BEHAVIOUR.items()}

    def __init__(self, cloud_partner_conn_id: str = default_conn_name) -> None:
        # That takes kilobytes, for which a wait in the triggerer has no use: `get_conn` sees to it.
        super().__init__(http_conn_id=cloud_partner_conn_id, tcp_keep_alive=False)
        self.cloud_partner_conn_id = cloud_partner_conn_id
        self._settings: Settings | None = None
        self._session: requests.Session | None = None
        self._token: Callable[[], str] | None = None
        self._sent_token = ""
        self._entered = 0
        self._kept: SharedSession | None = None

    # --- the calls ------------------------------------------------------------------------------------------

    def go_live(self, offer_id: str, publisher_id: str | None = None) -> str:
        """Take an offer from preview to production (reference: Go live).

        :return: Location path of the operation
        """
        return self._send(lambda s: portal.go_live(s.publisher(publisher_id), offer_id))

    async def ago_live(self, offer_id: str, publisher_id: str | None = None) -> str:
        """Async twin of `go_live`."""
        return await self._asend(lambda s: portal.go_live(s.publisher(publisher_id), offer_id))

    def publish(
        self, offer_id: str, publisher_id: str | None = None, *, notification_emails: Iterable[str] = ()
    ) -> str:
        """Publish an offer to its preview (reference: Publish).

        :param notification_emails: whom the service tells; ignored for migrated offers
        :return: Location path of the operation
        """
        return self._send(
            lambda s: portal.publish(
                s.publisher(publisher_id), offer_id, notification_emails=notification_emails
            )
        )

    async def apublish(
        self, offer_id: str, publisher_id: str | None = None, *, notification_emails: Iterable[str] = ()
    ) -> str:
        """Async twin of `publish`."""
        return await self._asend(
            lambda s: portal.publish(
                s.publisher(publisher_id), offer_id, notification_emails=notification_emails
            )
        )

    def cancel(
        self, offer_id: str, publisher_id: str | None = None, *, notification_emails: Iterable[str] = ()
    ) -> str | None:
        """Cancel what runs on an offer (reference: Cancel).

        :return: Location path of the operation while it is being canceled, which takes minutes; None if it
            was canceled at once
        """
        return self._send(
            lambda s: portal.cancel(
                s.publisher(publisher_id), offer_id, notification_emails=notification_emails
            )
        )

    async def acancel(
        self, offer_id: str, publisher_id: str | None = None, *, notification_emails: Iterable[str] = ()
    ) -> str | None:
        """Async twin of `cancel`."""
        return await self._asend(
            lambda s: portal.cancel(
                s.publisher(publisher_id), offer_id, notification_emails=notification_emails
            )
        )

    def get_operation(self, operation_location: str) -> Operation:
        """Read an operation (reference: Retrieve operations).

        :param operation_location: what `go_live`, `publish` or `cancel` returned; an absolute URL only on the
            connection's host
        """
        return self._send(lambda s: portal.get_operation(operation_location, s.base_url))

    async def aget_operation(self, operation_location: str) -> Operation:
        """Async twin of `get_operation`."""
        return await self._asend(lambda s: portal.get_operation(operation_location, s.base_url))

    def list_operations(
        self, offer_id: str, publisher_id: str | None = None, *, status: str | None = None
    ) -> list[Submission]:
        """List an offer's operations (reference: Retrieve operations).

        :param status: only those in this state, e.g. `running`
        """
        return self._send(
            lambda s: portal.list_operations(s.publisher(publisher_id), offer_id, status=status)
        )

    async def alist_operations(
        self, offer_id: str, publisher_id: str | None = None, *, status: str | None = None
    ) -> list[Submission]:
        """Async twin of `list_operations`."""
        return await self._asend(
            lambda s: portal.list_operations(s.publisher(publisher_id), offer_id, status=status)
        )

    def get_offer_status(self, offer_id: str, publisher_id: str | None = None) -> OfferStatus:
        """Read how an offer stands (reference: Retrieve offer status)."""
        return self._send(lambda s: portal.get_offer_status(s.publisher(publisher_id), offer_id))

    async def aget_offer_status(self, offer_id: str, publisher_id: str | None = None) -> OfferStatus:
        """Async twin of `get_offer_status`."""
        return await self._asend(lambda s: portal.get_offer_status(s.publisher(publisher_id), offer_id))

    def get_offer(
        self,
        offer_id: str,
        publisher_id: str | None = None,
        *,
        slot: str | None = None,
        version: int | None = None,
    ) -> Offer:
        """Read an offer: its draft, what is in a slot, or a version (reference: Retrieve a specific offer).

        :param slot: `draft`, `preview` or `production`
        :param version: a version's number; not together with `slot`
        """
        return self._send(
            lambda s: portal.get_offer(s.publisher(publisher_id), offer_id, slot=slot, version=version)
        )

    async def aget_offer(
        self,
        offer_id: str,
        publisher_id: str | None = None,
        *,
        slot: str | None = None,
        version: int | None = None,
    ) -> Offer:
        """Async twin of `get_offer`."""
        return await self._asend(
            lambda s: portal.get_offer(s.publisher(publisher_id), offer_id, slot=slot, version=version)
        )

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
        return self._send(
            lambda s: portal.put_offer(s.publisher(publisher_id), offer_id, definition, if_match=if_match)
        )

    async def aput_offer(
        self,
        offer_id: str,
        definition: Mapping[str, Any],
        publisher_id: str | None = None,
        *,
        if_match: str | None = None,
    ) -> Offer:
        """Async twin of `put_offer`."""
        return await self._asend(
            lambda s: portal.put_offer(s.publisher(publisher_id), offer_id, definition, if_match=if_match)
        )

    def list_offers(
        self, publisher_id: str | None = None, *, offer_type_id: str | None = None
    ) -> list[Offer]:
        """List a publisher's offers (reference: Retrieve offers).

        :param offer_type_id: only offers of this type, e.g. `microsoft-azure-virtualmachines`
        """
        return self._send(
            lambda s: portal.list_offers(s.publisher(publisher_id), offer_type_id=offer_type_id)
        )

    async def alist_offers(
        self, publisher_id: str | None = None, *, offer_type_id: str | None = None
    ) -> list[Offer]:
        """Async twin of `list_offers`."""
        return await self._asend(
            lambda s: portal.list_offers(s.publisher(publisher_id), offer_type_id=offer_type_id)
        )

    def list_publishers(self) -> list[Publisher]:
        """List the publishers that the service principal is a user of."""
        return self._send(lambda s: portal.list_publishers())

    async def alist_publishers(self) -> list[Publisher]:
        """Async twin of `list_publishers`."""
        return await self._asend(lambda s: portal.list_publishers())

    def cancel_operation(self, operation_location: str) -> None:
        """Cancel an operation if it still runs; another one on the same offer is left alone."""
        for attempt in tenacity.Retrying(**_SHORT_RETRY):
            with attempt:
                if not self.get_operation(operation_location).is_terminal:
                    publisher_id, offer_id = offer_in_location(operation_location)
                    log.warning(
                        "Canceling operation %s of %s/%s.", operation_location, publisher_id, offer_id
                    )
                    self.cancel(offer_id, publisher_id)

    async def acancel_operation(self, operation_location: str) -> None:
        """Async twin of `cancel_operation`."""
        async for attempt in tenacity.AsyncRetrying(**_SHORT_RETRY):
            with attempt:
                if not (await self.aget_operation(operation_location)).is_terminal:
                    publisher_id, offer_id = offer_in_location(operation_location)
                    log.warning(
                        "Canceling operation %s of %s/%s.", operation_location, publisher_id, offer_id
                    )
                    await self.acancel(offer_id, publisher_id)

    def test_connection(self) -> tuple[bool, str]:
        """Ask for a token and for the list of offers; say in words for people what came of it."""
        try:
            if self.settings.publisher_id is None:
                found = len(self.list_publishers())
                return True, f"Signed in; the service principal is a user of {found} publishers."
            offers = self.list_offers()
        except (CloudPartnerError, ValueError, AirflowNotFoundException) as error:
            # In the UI what is tested has a name that Airflow made up.
            return False, str(error).replace(f"Connection {self.cloud_partner_conn_id!r}", "The connection")
        return True, f"Signed in; publisher {self.settings.publisher_id} has {len(offers)} offers."

    # --- sending, in a worker -------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """What the connection says, read once. Not for use inside an event loop.

        :raises ValueError: the connection can't be used
        """
        if self._settings is None:
            connection = self.get_connection(self.cloud_partner_conn_id)
            self._settings = Settings.from_connection(connection, connection.extra_dejson)
        return self._settings

    def get_conn(
        self, headers: dict[Any, Any] | None = None, extra_options: dict[str, Any] | None = None
    ) -> requests.Session:
        """Return the session, made once. It signs each request; it sends none of the connection's extras.

        :param headers: to send with every request
        :param extra_options: unused, there for `HttpHook`
        """
        if self._session is None:
            self.base_url = self.settings.base_url
            ssl_context(self.settings)  # says what is wrong with a CA bundle better than requests does
            self._session = requests.Session()
            self._session.mount("https://", TCPKeepAliveAdapter(idle=120, interval=30, count=20))
            self._session.auth = self._authorize
            self._session.verify = self.settings.verify
            self.merged_extra = {"timeout": self.settings.timeout, "allow_redirects": False}
        self._session.headers.update(headers or {})
        return self._session

    def _get_token_provider(self) -> Callable[[], str]:
        if self._token is None:
            import azure.identity

            credential = make_credential(
                self.settings, azure.identity, connection_verify=self.settings.verify
            )
            self._token = azure.identity.get_bearer_token_provider(credential, TOKEN_SCOPE)
        return self._token

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        get_token = self._get_token_provider()
        try:
            self._sent_token = get_token()
        except Exception as error:  # whatever azure-identity makes of an answer that it can't read
            raise token_error(self.settings, error) from None
        request.headers["Authorization"] = f"Bearer {self._sent_token}"
        return request

    def _send(self, make_call: Callable[[Settings], Request[T]]) -> T:
        return self.ask(make_call(self.settings))

    def ask(self, call: Request[T]) -> T:
        """Send what `airflow_provider_cpp.api` describes, and return what its answer means."""
        response = self._send_once(call)
        if response.status == 401:
            self._token = None  # revoked, or refused for another reason that a fresh one may cure
            response = self._send_once(call)
        return read_response(call, response, self._sent_token)

    def _send_once(self, call: Request[Any]) -> Response:
        """Send a request once.

        :raises CloudPartnerError: there was no answer
        """
        settings, session = self.settings, self.get_conn()
        self._get_token_provider()  # says what is wrong with the connection
        try:
            with suppress_library_logs():
                answer = session.request(
                    call.method,
                    settings.base_url + call.target(settings.api_version),
                    json=call.json_body,
                    headers=dict(call.headers),
                    timeout=settings.timeout,
                    allow_redirects=False,
                    # Said for each request: the environment would have its way over what the session says.
                    verify=settings.verify,
                    proxies=dict(settings.proxies) or None,
                )
        except CloudPartnerError:
            raise
        except Exception as error:  # also what the libraries below requests make of an odd answer
            raise no_response_error(
                call, settings, error, self._sent_token, unsent=is_unsent(error)
            ) from None
        return Response(answer.status_code, answer.headers, answer.content, settings.base_url)

    # --- sending, in an event loop --------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Keep what the calls share, from the first one until the exit."""
        self._entered += 1
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close it, if no other hook uses it."""
        self._entered -= 1
        if not self._entered and self._kept is not None:
            kept, self._kept = self._kept, None
            await kept.release()

    async def asettings(self) -> Settings:
        """Return what the connection says, read once, without blocking the event loop.

        :raises ValueError: the connection can't be used
        :raises CloudPartnerError: Airflow can't say what it is, for now
        """
        if self._settings is None:
            # A thousand waits that begin together ask Airflow once.
            self._settings = await single_flight(
                ("connection", self.cloud_partner_conn_id), self._read_connection
            )
        return self._settings

    async def _read_connection(self) -> Settings:
        try:
            connection = await get_async_connection(self.cloud_partner_conn_id, hook=self)
            extra = await get_async_extra_dejson(connection)
        except (ValueError, AirflowNotFoundException):
            raise
        except Exception as error:
            # Airflow's own API is away for a while: no reason to end a wait of days.
            raise CloudPartnerError(
                f"Connection {self.cloud_partner_conn_id!r} can't be read from Airflow now: {error}",
                unsent=True,
            ) from error
        return Settings.from_connection(connection, extra)

    async def apoll(
        self, call: Request[T], *, before: bytes | None, until: float
    ) -> tuple[Response, T | None]:
        """Ask the same again, and return the answer and what it means; None if it is what it was before.

        :param before: the body of the answer before, which need not be read once more
        :param until: when to give up waiting for one's turn, in seconds since the epoch
        """
        response, token = await self._aanswer(call, until)
        if response.body == before and 200 <= response.status < 300:
            return response, None
        return response, read_response(call, response, token)

    async def _asend(self, make_call: Callable[[Settings], Request[T]]) -> T:
        call = make_call(await self.asettings())
        return read_response(call, *await self._aanswer(call))

    async def _aanswer(self, call: Request[Any], until: float | None = None) -> tuple[Response, str]:
        if self._kept is not None:
            return await self._kept.answer(call, until)
        shared = await SharedSession.acquire(await self.asettings())
        if self._entered and self._kept is None:
            self._kept = shared
            return await shared.answer(call, until)
        try:
            return await shared.answer(call, until)
        finally:
            await shared.release()
