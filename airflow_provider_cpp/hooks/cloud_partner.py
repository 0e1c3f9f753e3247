"""The hook: signs in with azure-identity and sends what `airflow_provider_cpp.api` describes."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import ssl
import time
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

import aiohttp
import requests
import tenacity
import yaml
from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson
from airflow.providers.common.compat.sdk import AirflowNotFoundException
from airflow.providers.http.hooks.http import HttpHook
from azure.core.exceptions import AzureError, ClientAuthenticationError
from requests.utils import get_environ_proxies, select_proxy
from requests_toolbelt.adapters.socket_options import TCPKeepAliveAdapter  # type: ignore[import-untyped]
from urllib3.exceptions import NewConnectionError
from yarl import URL

from airflow_provider_cpp import api
from airflow_provider_cpp.get_provider_info import CONNECTION_FIELDS, FIELD_BEHAVIOUR
from airflow_provider_cpp.masking import mask, mask_long_words
from airflow_provider_cpp.sharing import of_running_loop, once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import ModuleType

    from airflow.providers.common.compat.sdk import Connection

T = TypeVar("T")
log = logging.getLogger(__name__)

# These quote what they were answered, which may repeat what was sent. While something of ours is sent they
# keep it to themselves: the error that comes of it says the same, with the secrets masked.
_QUOTING = {
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


def _is_discreet(record: logging.LogRecord) -> bool:
    return not _sending.get() or record.levelno < _QUOTING[record.name]


for _name in _QUOTING:
    logging.getLogger(_name).addFilter(_is_discreet)
# What azure-core says of each request, with its headers.
_identity_log = log.getChild("identity")
_identity_log.disabled = True

DEFAULT_AUTHORITY = "https://login.microsoftonline.com"
# For any other identity host, asking the public cloud whether it exists is pointless, and may be impossible.
_KNOWN_AUTHORITIES = (DEFAULT_AUTHORITY, "https://login.microsoftonline.us", "https://login.chinacloudapi.cn")
# Longer than the usual `poke_interval`, so that polls find their TLS connection still open; in seconds.
_KEEPALIVE = 75
# At most so many polls at once: the connections, of which aiohttp opens a hundred, are for others as well.
_POLLS = 50
_IDENTITY_RETRIES = 2
# For so many seconds azure-identity is not asked whether a token is still good.
_TOKEN_KEPT = 1.0
_HOST_URL = re.compile(r"[a-z]+://([a-z0-9][a-z0-9._-]*|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.IGNORECASE)
# Airflow gives a trigger half a minute for what it does when its task is killed.
_BRIEFLY: dict[str, Any] = {
    "retry": tenacity.retry_if_exception(
        lambda error: isinstance(error, api.CloudPartnerError) and error.is_transient
    ),
    "wait": tenacity.wait_exponential(max=4),
    "stop": tenacity.stop_after_attempt(4),
    "reraise": True,
}
_CURES = {
    "AADSTS7000215": "The client secret is wrong: the secret's value is wanted, not its id.",
    "AADSTS7000222": "The client secret has expired: make a new one and put it into the connection.",
    "AADSTS90002": "The tenant is wrong: extra 'tenantId' must be the directory (tenant) id of the "
    "principal.",
    "AADSTS900023": "The tenant is wrong: extra 'tenantId' must be the directory (tenant) id of the "
    "principal.",
    # In these words MSAL says it before it asks for a token.
    "Unable to get authority configuration": "The tenant is wrong, or the authority: check the extras "
    "'tenantId' and 'authority'.",
    "AADSTS700016": "The client id is unknown in this tenant: check the login and the extra 'tenantId'.",
}


@dataclass(frozen=True)
class Settings:
    """What a connection of type `cloud_partner` says, checked. Equal settings share sessions and tokens."""

    name: str = field(compare=False)
    base_url: str
    publisher_id: str | None
    client_id: str | None
    client_secret: str | None = field(repr=False)
    tenant_id: str | None
    authority: str
    certificate_path: str | None
    managed_identity_client_id: str | None
    workload_identity_tenant_id: str | None
    verify: bool | str
    timeout: float
    proxies: tuple[tuple[str, str], ...] = field(repr=False)
    api_version: str

    @classmethod
    def from_connection(cls, connection: Connection, extra: dict[str, Any]) -> Settings:
        """Read and check a connection.

        :raises ValueError: something is missing or can't be used; it says what and how to mend it
        """
        name = f"Connection {connection.conn_id!r}"
        extra = _without_prefixes(extra)

        def text(key: str) -> str | None:
            value = extra.get(key)
            if value is not None and not isinstance(value, str):
                raise ValueError(f"{name}: extra {key!r} must be text, not {type(value).__name__}.")
            return (value or "").strip() or None

        settings = cls(
            name=name,
            base_url=_base_url(name, connection),
            publisher_id=text("publisherId"),
            client_id=(connection.login or "").strip() or None,
            client_secret=connection.password or None,
            tenant_id=text("tenantId"),
            authority=_authority(name, text("authority")),
            certificate_path=text("certificate_path"),
            managed_identity_client_id=text("managed_identity_client_id"),
            workload_identity_tenant_id=text("workload_identity_tenant_id"),
            verify=_verify(name, extra.get("verify")),
            timeout=_timeout(name, extra.get("timeout")),
            proxies=_proxies(name, extra.get("proxies") or extra.get("proxy")),
            api_version=text("api_version") or api.API_VERSION,
        )
        if settings.client_id and not settings.tenant_id:
            raise ValueError(
                f"{name} has a client id (login) but no tenant: set the extra 'tenantId' to the directory "
                "(tenant) id of the service principal."
            )
        if settings.client_id and not (settings.client_secret or settings.certificate_path):
            raise ValueError(
                f"{name} has a client id (login) but nothing to sign in with: set the password to the "
                "client secret, or the extra 'certificate_path' to a certificate. To sign in as a managed "
                "or workload identity, leave the login empty."
            )
        if settings.client_secret and not settings.client_id:
            raise ValueError(f"{name} has a password but no client id: set the login to the client id.")
        if settings.certificate_path and not Path(settings.certificate_path).is_file():
            raise ValueError(f"{name}: there is no file at certificate_path {settings.certificate_path!r}.")
        if settings.verify is False:
            log.warning(
                "%s has verify=false: anybody on the way to %s can read the token. Give a CA bundle's path "
                "instead.",
                name,
                settings.base_url,
            )
        return settings

    def publisher(self, publisher_id: str | None) -> str:
        """Return the publisher to use: the given one, else the connection's.

        :raises ValueError: there is neither
        """
        if publisher_id is None and self.publisher_id is None:
            raise ValueError(
                f"{self.name} names no publisher: set its extra 'publisherId', or the task's publisher_id."
            )
        return self.publisher_id or "" if publisher_id is None else publisher_id


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
    conn_type = "cloud_partner"
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
        self._kept: _Shared | None = None

    # --- the calls ------------------------------------------------------------------------------------------

    def go_live(self, offer_id: str, publisher_id: str | None = None) -> str:
        """Take an offer from preview to production (reference: Go live).

        :return: Location path of the operation
        """
        return self._send(lambda s: api.go_live(s.publisher(publisher_id), offer_id))

    async def ago_live(self, offer_id: str, publisher_id: str | None = None) -> str:
        """Async twin of `go_live`."""
        return await self._asend(lambda s: api.go_live(s.publisher(publisher_id), offer_id))

    def publish(
        self, offer_id: str, publisher_id: str | None = None, *, notification_emails: Iterable[str] = ()
    ) -> str:
        """Publish an offer to its preview (reference: Publish).

        :param notification_emails: whom the service tells; ignored for migrated offers
        :return: Location path of the operation
        """
        return self._send(
            lambda s: api.publish(
                s.publisher(publisher_id), offer_id, notification_emails=notification_emails
            )
        )

    async def apublish(
        self, offer_id: str, publisher_id: str | None = None, *, notification_emails: Iterable[str] = ()
    ) -> str:
        """Async twin of `publish`."""
        return await self._asend(
            lambda s: api.publish(
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
            lambda s: api.cancel(s.publisher(publisher_id), offer_id, notification_emails=notification_emails)
        )

    async def acancel(
        self, offer_id: str, publisher_id: str | None = None, *, notification_emails: Iterable[str] = ()
    ) -> str | None:
        """Async twin of `cancel`."""
        return await self._asend(
            lambda s: api.cancel(s.publisher(publisher_id), offer_id, notification_emails=notification_emails)
        )

    def get_operation(self, operation_location: str) -> api.Operation:
        """Read an operation (reference: Retrieve operations).

        :param operation_location: what `go_live`, `publish` or `cancel` returned; an absolute URL only on the
            connection's host
        """
        return self._send(lambda s: api.get_operation(operation_location, s.base_url))

    async def aget_operation(self, operation_location: str) -> api.Operation:
        """Async twin of `get_operation`."""
        return await self._asend(lambda s: api.get_operation(operation_location, s.base_url))

    def list_operations(
        self, offer_id: str, publisher_id: str | None = None, *, status: str | None = None
    ) -> list[api.Submission]:
        """List an offer's operations (reference: Retrieve operations).

        :param status: only those in this state, e.g. `running`
        """
        return self._send(lambda s: api.list_operations(s.publisher(publisher_id), offer_id, status=status))

    async def alist_operations(
        self, offer_id: str, publisher_id: str | None = None, *, status: str | None = None
    ) -> list[api.Submission]:
        """Async twin of `list_operations`."""
        return await self._asend(
            lambda s: api.list_operations(s.publisher(publisher_id), offer_id, status=status)
        )

    def get_offer_status(self, offer_id: str, publisher_id: str | None = None) -> api.OfferStatus:
        """Read how an offer stands (reference: Retrieve offer status)."""
        return self._send(lambda s: api.get_offer_status(s.publisher(publisher_id), offer_id))

    async def aget_offer_status(self, offer_id: str, publisher_id: str | None = None) -> api.OfferStatus:
        """Async twin of `get_offer_status`."""
        return await self._asend(lambda s: api.get_offer_status(s.publisher(publisher_id), offer_id))

    def get_offer(
        self,
        offer_id: str,
        publisher_id: str | None = None,
        *,
        slot: str | None = None,
        version: int | None = None,
    ) -> api.Offer:
        """Read an offer: its draft, what is in a slot, or a version (reference: Retrieve a specific offer).

        :param slot: `draft`, `preview` or `production`
        :param version: a version's number; not together with `slot`
        """
        return self._send(
            lambda s: api.get_offer(s.publisher(publisher_id), offer_id, slot=slot, version=version)
        )

    async def aget_offer(
        self,
        offer_id: str,
        publisher_id: str | None = None,
        *,
        slot: str | None = None,
        version: int | None = None,
    ) -> api.Offer:
        """Async twin of `get_offer`."""
        return await self._asend(
            lambda s: api.get_offer(s.publisher(publisher_id), offer_id, slot=slot, version=version)
        )

    def put_offer(
        self,
        offer_id: str,
        definition: Mapping[str, Any],
        publisher_id: str | None = None,
        *,
        if_match: str | None = None,
    ) -> api.Offer:
        """Create or modify an offer (reference: Create or modify an offer; Concurrency control).

        :param definition: the whole offer, as `get_offer(...).raw` has it; or its definition alone, as
            `get_offer(...).definition` has it
        :param if_match: the ETag of what the change is based on, or `*` to overwrite; None creates
        :raises PreconditionFailedError: the offer was changed since that ETag was read
        """
        return self._send(
            lambda s: api.put_offer(s.publisher(publisher_id), offer_id, definition, if_match=if_match)
        )

    async def aput_offer(
        self,
        offer_id: str,
        definition: Mapping[str, Any],
        publisher_id: str | None = None,
        *,
        if_match: str | None = None,
    ) -> api.Offer:
        """Async twin of `put_offer`."""
        return await self._asend(
            lambda s: api.put_offer(s.publisher(publisher_id), offer_id, definition, if_match=if_match)
        )

    def list_offers(
        self, publisher_id: str | None = None, *, offer_type_id: str | None = None
    ) -> list[api.Offer]:
        """List a publisher's offers (reference: Retrieve offers).

        :param offer_type_id: only offers of this type, e.g. `microsoft-azure-virtualmachines`
        """
        return self._send(lambda s: api.list_offers(s.publisher(publisher_id), offer_type_id=offer_type_id))

    async def alist_offers(
        self, publisher_id: str | None = None, *, offer_type_id: str | None = None
    ) -> list[api.Offer]:
        """Async twin of `list_offers`."""
        return await self._asend(
            lambda s: api.list_offers(s.publisher(publisher_id), offer_type_id=offer_type_id)
        )

    def list_publishers(self) -> list[api.Publisher]:
        """List the publishers that the service principal is a user of."""
        return self._send(lambda s: api.list_publishers())

    async def alist_publishers(self) -> list[api.Publisher]:
        """Async twin of `list_publishers`."""
        return await self._asend(lambda s: api.list_publishers())

    def cancel_operation(self, operation_location: str) -> None:
        """Cancel an operation if it still runs; another one on the same offer is left alone."""
        for attempt in tenacity.Retrying(**_BRIEFLY):
            with attempt:
                if not self.get_operation(operation_location).is_terminal:
                    publisher_id, offer_id = api.offer_of(operation_location)
                    log.warning(
                        "Canceling operation %s of %s/%s.", operation_location, publisher_id, offer_id
                    )
                    self.cancel(offer_id, publisher_id)

    async def acancel_operation(self, operation_location: str) -> None:
        """Async twin of `cancel_operation`."""
        async for attempt in tenacity.AsyncRetrying(**_BRIEFLY):
            with attempt:
                if not (await self.aget_operation(operation_location)).is_terminal:
                    publisher_id, offer_id = api.offer_of(operation_location)
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
        except (api.CloudPartnerError, ValueError, AirflowNotFoundException) as error:
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
            _ssl_context(self.settings)  # says what is wrong with a CA bundle better than requests does
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

            credential = _credential(self.settings, azure.identity, connection_verify=self.settings.verify)
            self._token = azure.identity.get_bearer_token_provider(credential, api.TOKEN_SCOPE)
        return self._token

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        get_token = self._get_token_provider()
        try:
            self._sent_token = get_token()
        except Exception as error:  # whatever azure-identity makes of an answer that it can't read
            raise _identity_error(self.settings, error) from None
        request.headers["Authorization"] = f"Bearer {self._sent_token}"
        return request

    def _send(self, make_call: Callable[[Settings], api.Call[T]]) -> T:
        return self.ask(make_call(self.settings))

    def ask(self, call: api.Call[T]) -> T:
        """Send what `airflow_provider_cpp.api` describes, and return what its answer means."""
        response = self._send_once(call)
        if response.status == 401:
            self._token = None  # revoked, or refused for another reason that a fresh one may cure
            response = self._send_once(call)
        return _read(call, response, self._sent_token)

    def _send_once(self, call: api.Call[Any]) -> api.Response:
        """Send a request once.

        :raises CloudPartnerError: there was no answer
        """
        settings, session = self.settings, self.get_conn()
        self._get_token_provider()  # says what is wrong with the connection
        try:
            with _quietly():
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
        except api.CloudPartnerError:
            raise
        except Exception as error:  # also what the libraries below requests make of an odd answer
            raise _no_answer(call, settings, error, self._sent_token, unsent=_is_unsent(error)) from None
        return api.Response(answer.status_code, answer.headers, answer.content, settings.base_url)

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
            self._settings = await once(("connection", self.cloud_partner_conn_id), self._read_connection)
        return self._settings

    async def _read_connection(self) -> Settings:
        try:
            connection = await get_async_connection(self.cloud_partner_conn_id, hook=self)
            extra = await get_async_extra_dejson(connection)
        except (ValueError, AirflowNotFoundException):
            raise
        except Exception as error:
            # Airflow's own API is away for a while: no reason to end a wait of days.
            raise api.CloudPartnerError(
                f"Connection {self.cloud_partner_conn_id!r} can't be read from Airflow now: {error}",
                unsent=True,
            ) from error
        return Settings.from_connection(connection, extra)

    async def apoll(
        self, call: api.Call[T], *, before: bytes | None, until: float
    ) -> tuple[api.Response, T | None]:
        """Ask the same again, and return the answer and what it means; None if it is what it was before.

        :param before: the body of the answer before, which need not be read once more
        :param until: when to give up waiting for one's turn, in seconds since the epoch
        """
        response, token = await self._aanswer(call, until)
        if response.body == before and 200 <= response.status < 300:
            return response, None
        return response, _read(call, response, token)

    async def _asend(self, make_call: Callable[[Settings], api.Call[T]]) -> T:
        call = make_call(await self.asettings())
        return _read(call, *await self._aanswer(call))

    async def _aanswer(self, call: api.Call[Any], until: float | None = None) -> tuple[api.Response, str]:
        if self._kept is not None:
            return await self._kept.answer(call, until)
        shared = await _Shared.acquire(await self.asettings())
        if self._entered and self._kept is None:
            self._kept = shared
            return await shared.answer(call, until)
        try:
            return await shared.answer(call, until)
        finally:
            await shared.release()


class _Shared:
    """What all uses of one connection share in one event loop: session, connection pool and token."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.users = 0
        self._lock = asyncio.Lock()
        # The time for an answer begins when it is a poll's turn.
        self._turns = asyncio.Semaphore(_POLLS)
        self._session: aiohttp.ClientSession | None = None
        self._proxy: str | None = None
        self._credential: Any = None
        self._get_token: Any = None
        self._token = ""
        self._token_until = 0.0

    @classmethod
    async def acquire(cls, settings: Settings) -> _Shared:
        """Return what is shared, open; whoever has it must release it."""
        here = of_running_loop(_shared_by_loop)
        if settings not in here:
            here[settings] = cls(settings)
        shared = here[settings]
        shared.users += 1
        try:
            if shared._session is None:
                # A lock would wake who waits one by one, the last of ten thousand after minutes.
                await once(shared, shared._open)
        except BaseException:
            await shared.release()
            raise
        return shared

    async def release(self) -> None:
        """Close session and credential if nobody else uses them."""
        self.users -= 1
        if not self.users:
            del of_running_loop(_shared_by_loop)[self.settings]
            await self._close()

    async def _open(self) -> None:
        # Reading a CA bundle takes tens of milliseconds: not in the event loop.
        context = await asyncio.to_thread(_ssl_context, self.settings)
        self._proxy = _proxy_for(self.settings, self.settings.base_url).get("https")
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, keepalive_timeout=_KEEPALIVE),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self.settings.timeout),
        )
        try:
            await self._make_credential(session)
        except BaseException:
            await session.close()
            raise
        self._session = session
        if not self.users:  # all who wanted it were canceled meanwhile
            await self._close()

    async def _close(self) -> None:
        if self._session is not None:
            try:
                await self._credential.close()
            finally:
                await self._session.close()

    async def _make_credential(self, session: aiohttp.ClientSession) -> None:
        # Importing azure-identity and reading a certificate are blocking.
        self._credential, self._get_token = await asyncio.to_thread(_async_credential, self.settings, session)

    async def answer(self, call: api.Call[Any], until: float | None = None) -> tuple[api.Response, str]:
        """Send a request, and once more with a fresh token after a 401. Return the token as well.

        :param until: for a poll, which waits for its turn, when to give that up
        """
        if until is None:
            return await self._answer(call)
        # Without a token, nobody need wait for a turn to learn that.
        await self.token()
        await self._take_turn(call, until)
        try:
            return await self._answer(call)
        finally:
            self._turns.release()

    async def _answer(self, call: api.Call[Any]) -> tuple[api.Response, str]:
        token = await self.token()
        response = await self.send(call, token)
        if response.status == 401:
            await self.renew(token)
            token = await self.token()
            response = await self.send(call, token)
        return response, token

    async def _take_turn(self, call: api.Call[Any], until: float) -> None:
        try:
            # Setting a time limit costs more than taking a turn that is free.
            async with asyncio.timeout(until - time.time()) if self._turns.locked() else nullcontext():
                await self._turns.acquire()
        except TimeoutError:
            raise api.CloudPartnerError(
                f"{call.action} was not sent: it was not its turn in time, since {_POLLS} others wait for an "
                f"answer of {self.settings.base_url}. Check that the host answers.",
                unsent=True,
            ) from None

    async def token(self) -> str:
        """Return a token; it is asked for once and renewed before it expires."""
        # azure-identity sees to that whenever it is asked, which is too much to do for each of many polls.
        if time.monotonic() >= self._token_until:
            await once((self, "token"), self._ask_for_token)
        return self._token

    async def _ask_for_token(self) -> None:
        try:
            with _quietly():
                self._token = str(await self._get_token())
        except Exception as error:  # whatever azure-identity makes of an answer that it can't read
            raise _identity_error(self.settings, error) from None
        self._token_until = time.monotonic() + _TOKEN_KEPT

    async def renew(self, refused: str) -> None:
        """Forget a token that the service refused, unless another use of the connection did so already."""
        async with self._lock:
            if await self.token() == refused:
                assert self._session is not None  # noqa: S101  opened by whoever holds it
                await self._credential.close()
                await self._make_credential(self._session)
                self._token_until = 0.0

    async def send(self, call: api.Call[Any], token: str) -> api.Response:
        """Send a request once.

        :raises CloudPartnerError: there was no answer
        """
        assert self._session is not None  # noqa: S101  opened by whoever holds it
        settings = self.settings
        try:
            async with self._session.request(
                call.method,
                # As it is: an operation's path is the service's, and must not be quoted anew.
                URL(settings.base_url + call.target(settings.api_version), encoded=True),
                json=call.json_body,
                headers={**call.headers, "Authorization": f"Bearer {token}"},
                allow_redirects=False,
                proxy=self._proxy,
            ) as answer:
                return api.Response(answer.status, answer.headers, await answer.read(), settings.base_url)
        except Exception as error:  # also what aiohttp makes of an odd answer
            unsent = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
            raise _no_answer(call, settings, error, token, unsent=unsent) from None


_shared_by_loop: dict[asyncio.AbstractEventLoop, dict[Settings, _Shared]] = {}


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep those quiet who quote from what they are answered."""
    before = _sending.set(True)
    try:
        yield
    finally:
        _sending.reset(before)


def _read(call: api.Call[T], response: api.Response, token: str) -> T:
    """Return what an answer means; an error of it without the token, which a gateway's page may repeat."""
    try:
        return call.read(response)
    except api.CloudPartnerError as error:
        error.args = (mask(str(error), [token]),)
        error.code = error.code and mask(error.code, [token])
        raise


def _ssl_context(settings: Settings) -> ssl.SSLContext | bool:
    """Return the TLS context for aiohttp.

    :raises ValueError: what the connection names is no CA bundle
    """
    if isinstance(settings.verify, bool):
        return ssl.create_default_context() if settings.verify else False
    try:
        if Path(settings.verify).is_dir():
            return ssl.create_default_context(capath=settings.verify)
        return ssl.create_default_context(cafile=settings.verify)
    except OSError as error:
        raise ValueError(
            f"{settings.name}: {settings.verify!r}, which 'verify' names, can't be used as a CA bundle: "
            f"{error}"
        ) from error


def _credential(settings: Settings, identity: ModuleType, **options: Any) -> Any:
    """Return the credential for a connection.

    :param identity: `azure.identity`, or its async twin `azure.identity.aio` with the same names
    """
    options |= {
        "authority": settings.authority,
        "disable_instance_discovery": settings.authority not in _KNOWN_AUTHORITIES,
        "connection_timeout": settings.timeout,
        "read_timeout": settings.timeout,
        "retry_total": _IDENTITY_RETRIES,
        "logger": _identity_log,
    }
    if settings.proxies:
        options.setdefault("proxies", dict(settings.proxies))
    if not settings.client_id:
        transport = dict(options)
        for name in ("managed_identity_client_id", "workload_identity_tenant_id"):
            if value := getattr(settings, name):
                options[name] = value
        default = identity.DefaultAzureCredential(**options)
        if settings.authority == DEFAULT_AUTHORITY or "AZURE_FEDERATED_TOKEN_FILE" not in os.environ:
            return default
        # The default credential hands its authority on to all but this one.
        workload = identity.WorkloadIdentityCredential(
            tenant_id=settings.workload_identity_tenant_id, **transport
        )
        return identity.ChainedTokenCredential(workload, default)
    if settings.certificate_path:
        try:
            return identity.CertificateCredential(
                settings.tenant_id,
                settings.client_id,
                settings.certificate_path,
                password=settings.client_secret,
                **options,
            )
        except ValueError as error:
            raise ValueError(
                f"{settings.name}: the certificate at certificate_path {settings.certificate_path!r} can't "
                f"be used: {error} Its passphrase, if it has one, is the connection's password."
            ) from error
    return identity.ClientSecretCredential(
        settings.tenant_id, settings.client_id, settings.client_secret, **options
    )


def _proxy_for(settings: Settings, url: str) -> dict[str, str]:
    """Return the proxy to a host, the connection's or else the environment's, as azure-core wants it."""
    proxy = select_proxy(url, dict(settings.proxies) or get_environ_proxies(url))
    return {"http": proxy, "https": proxy} if proxy else {}


def _async_credential(settings: Settings, session: aiohttp.ClientSession) -> tuple[Any, Any]:
    import azure.identity.aio
    from azure.core.pipeline.transport import AioHttpTransport

    # On the shared session, so that its TLS context serves for the identity host as well.
    transport = AioHttpTransport(
        session=session,
        session_owner=False,
        connection_timeout=settings.timeout,
        read_timeout=settings.timeout,
    )
    # A session that is handed in is taken as it is, without the environment's proxies.
    credential = _credential(
        settings, azure.identity.aio, transport=transport, proxies=_proxy_for(settings, settings.authority)
    )
    return credential, azure.identity.aio.get_bearer_token_provider(credential, api.TOKEN_SCOPE)


def _identity_error(settings: Settings, error: Exception) -> api.CloudPartnerError:
    """Return the error for a token that could not be had: an outage passes, a refusal stays."""
    said = error.message if isinstance(error, AzureError) else f"{type(error).__name__}: {error}"
    secrets = (settings.client_secret, os.environ.get("IDENTITY_HEADER"))
    words = mask_long_words(mask(api.plain_text(said, 500), secrets))
    status = getattr(getattr(error, "response", None), "status_code", None)
    # What is no JSON is not the identity host's answer, but that of something in between.
    refused = isinstance(error, ClientAuthenticationError) and not isinstance(
        error.__cause__, AzureError | OSError | json.JSONDecodeError
    )
    # MSAL says an outage in these words, without the answer.
    causes = f"{words} {error.__cause__} {getattr(error.__cause__, '__context__', None)}"
    outage = re.search(r"\bHTTP (Error|status): (429|5\d\d)\b", causes)
    if not refused or outage or status == 429 or (status or 0) >= 500:
        return api.CloudPartnerError(
            f"No token could be had from {settings.authority}, so nothing was sent ({settings.name}): "
            f"{words.removesuffix('.')}. Check that the host can be reached from here, and its certificate "
            "(extra 'verify').",
            unsent=True,
        )
    if settings.client_id:
        who = f"client {settings.client_id} of tenant {settings.tenant_id}"
        cure = api.AuthenticationError.hint
    else:
        who = "this host, which DefaultAzureCredential was to sign in, since the connection has no login,"
        cure = "Set login and password, or give this host a managed or workload identity."
    cure = next((known for sign, known in _CURES.items() if re.search(rf"{sign}\b", words)), cure)
    return api.AuthenticationError(
        f"{settings.name}: {settings.authority} gave {who} no token: {words.removesuffix('.')}. {cure}"
    )


def _no_answer(
    call: api.Call[Any], settings: Settings, error: Exception, token: str, *, unsent: bool
) -> api.CloudPartnerError:
    what = "was not sent" if unsent else "was sent, and it is not known whether it had its effect"
    reason = mask(api.plain_text(str(error), 300), [token]) or "no reason given"
    if isinstance(error, TimeoutError | requests.Timeout) and not unsent:
        reason = f"no answer within {settings.timeout:g} s"
    return api.CloudPartnerError(
        f"{call.action} failed: {call.method} {call.path} {what}. {settings.base_url} could not be reached "
        f"or gave no answer ({type(error).__name__}: {reason}). Check host, network, proxy and certificate "
        "(extra 'verify').",
        unsent=unsent,
    )


def _is_unsent(error: Exception) -> bool:
    """Whether no connection came to be, so that surely nothing was sent."""
    if isinstance(error, requests.ConnectTimeout):
        return True
    reason = getattr(error.args[0], "reason", None) if error.args else None
    cause = (
        reason.args[0] if isinstance(error, requests.exceptions.SSLError) and reason and reason.args else None
    )
    return isinstance(reason, NewConnectionError) or isinstance(cause, ssl.SSLCertVerificationError)


# --- reading a connection -----------------------------------------------------------------------------------


def _without_prefixes(extra: dict[str, Any]) -> dict[str, Any]:
    """Return a connection's extras by their names, which forms of Airflow 2 give a prefix; the name wins."""
    prefix = f"extra__{CloudPartnerHook.conn_type}__"
    prefixed = {
        key.removeprefix(prefix): value for key, value in extra.items() if key.startswith(prefix) and value
    }
    return prefixed | {key: value for key, value in extra.items() if value not in (None, "")}


def _base_url(name: str, connection: Connection) -> str:
    host = (connection.host or "").strip().rstrip("/")
    if not host:
        return api.DEFAULT_HOST
    url = host if "://" in host else f"{connection.schema or 'https'}://{host}"
    if connection.port and urlsplit(url).port is None:
        url = f"{url}:{connection.port}"
    return _checked_url(name, "host", url)


def _authority(name: str, authority: str | None) -> str:
    if authority is None:
        return DEFAULT_AUTHORITY
    url = authority.rstrip("/")
    return _checked_url(name, "extra 'authority'", url if "://" in url else f"https://{url}")


def _checked_url(name: str, what: str, url: str) -> str:
    """Return a URL that secrets may be sent to: https, or on this machine; nothing but the host."""
    try:
        scheme, host, port = api.origin(url)
        host.encode("ascii").decode("idna")
        is_plain = bool(_HOST_URL.fullmatch(url))
    except ValueError:
        is_plain = False
    # Somebody may have put a password there.
    url = re.sub(r"//[^/]*@", "//***@", url)
    if not is_plain:
        raise ValueError(
            f"{name}: {what} must be like 'https://cloudpartner.azure.com', with no path; not {url!r}."
        )
    if scheme == "http" and host not in ("localhost", "127.0.0.1", "::1"):
        raise ValueError(
            f"{name}: {what} {url!r} must begin with https://, or everybody could read the token."
        )
    bracketed = f"[{host}]" if ":" in host else host
    return f"{scheme}://{bracketed}" + ("" if port == api.DEFAULT_PORTS[scheme] else f":{port}")


def _verify(name: str, value: Any) -> bool | str:
    if value is None or value is True or (isinstance(value, str) and value.strip().lower() in ("", "true")):
        # Where the environment names a bundle, requests trusts that; so that aiohttp does as well, it is
        # said.
        bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or ""
        return bundle if bundle and Path(bundle).exists() else True
    if value is False or (isinstance(value, str) and value.strip().lower() == "false"):
        return False
    if isinstance(value, str) and Path(value).exists():
        return value
    raise ValueError(
        f"{name}: extra 'verify' must be true, false or the path of a CA bundle; {value!r} is none."
    )


def _timeout(name: str, value: Any) -> float:
    if value is None or value == "":
        return 30.0
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 < seconds < 3600:
        raise ValueError(f"{name}: extra 'timeout' must be seconds from 0 to 3600, not {value!r}.")
    return seconds


def _proxies(name: str, value: Any) -> tuple[tuple[str, str], ...]:
    if not value:
        return ()
    proxies = {"http": value, "https": value} if isinstance(value, str) else value
    if isinstance(value, str) and value.lstrip().startswith("{"):
        # Airflow 2's form stores text: the JSON that somebody typed, or when it is saved again what Python
        # prints of an object. YAML reads both.
        proxies = None
        with suppress(yaml.YAMLError):
            proxies = yaml.safe_load(value)
    if not isinstance(proxies, dict) or not all(isinstance(url, str) for url in proxies.values()):
        raise ValueError(
            f"{name}: extra 'proxies' must be an object such as {{'https': 'http://proxy:8080'}}."
        )
    return tuple(sorted(proxies.items()))
