"""Send requests in an event loop: one session, connection pool and token for all users of a connection."""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from typing import Any

import aiohttp
from yarl import URL

from airflow_provider_cpp.core.errors import CloudPartnerError
from airflow_provider_cpp.core.http import Request, Response
from airflow_provider_cpp.transport.credentials import make_async_credential, token_error
from airflow_provider_cpp.transport.failures import no_response_error
from airflow_provider_cpp.transport.library_logs import suppress_library_logs
from airflow_provider_cpp.transport.settings import Settings, ssl_context
from airflow_provider_cpp.transport.single_flight import for_running_loop, single_flight

# Seconds. Longer than the usual `poke_interval`, so that the next poll finds the TLS connection still open.
_KEEPALIVE = 75
# The longest time for a request, as a multiple of the timeout of the connection.
_TOTAL_FACTOR = 4
# Maximum number of polls at a time. The other connections (aiohttp opens a hundred) are for other requests.
_POLLS = 50
# Seconds for which a token is used without a check by azure-identity.
_TOKEN_KEPT = 1.0
# The proxy refuses connections or cannot be found, or it refuses to connect to the service.
_UNSENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)


class SharedSession:
    """The session, connection pool and token that all users of one connection share in one event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.users = 0
        self._lock = asyncio.Lock()
        # The timeout of a poll starts after it acquires this semaphore.
        self._poll_slots = asyncio.Semaphore(_POLLS)
        self._session: aiohttp.ClientSession | None = None
        self._proxy: dict[str, Any] = {}
        self._credential: Any = None
        self._get_token: Any = None
        self._token = ""
        self._token_until = 0.0

    @classmethod
    async def acquire(cls, settings: Settings) -> SharedSession:
        """Return the open shared session of a connection. The caller must release it."""
        sessions = for_running_loop(_sessions_by_loop)
        if settings not in sessions:
            sessions[settings] = cls(settings)
        shared = sessions[settings]
        shared.users += 1
        try:
            if shared._session is None:
                # A lock would wake the callers one by one, the last of ten thousand after minutes.
                await single_flight(shared, shared._open)
        except BaseException:
            await shared.release()
            raise
        return shared

    async def release(self) -> None:
        """Close session and credential after the last user released them."""
        self.users -= 1
        if not self.users:
            del for_running_loop(_sessions_by_loop)[self.settings]
            await self._close()

    async def _open(self) -> None:
        # Reading a CA bundle takes tens of milliseconds: not in the event loop.
        context = await asyncio.to_thread(ssl_context, self.settings)
        self._proxy = self.settings.proxies.for_aiohttp(self.settings.base_url)
        timeout = self.settings.timeout
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, keepalive_timeout=_KEEPALIVE),
            cookie_jar=aiohttp.DummyCookieJar(),
            # The timeouts of requests. The total ends a response that arrives slowly for ever.
            timeout=aiohttp.ClientTimeout(
                total=_TOTAL_FACTOR * timeout, sock_connect=timeout, sock_read=timeout
            ),
        )
        try:
            await self._make_credential(session)
        except BaseException:
            await session.close()
            raise
        self._session = session
        if not self.users:  # all callers were canceled in the meantime
            await self._close()

    async def _close(self) -> None:
        if self._session is not None:
            try:
                await self._credential.close()
            finally:
                await self._session.close()

    async def _make_credential(self, session: aiohttp.ClientSession) -> None:
        # The import of azure-identity and reading a certificate block.
        self._credential, self._get_token = await asyncio.to_thread(
            make_async_credential, self.settings, session
        )

    async def answer(self, call: Request[Any], until: float | None = None) -> tuple[Response, str]:
        """Send a request, and once more with a new token after a 401. Return the response and the token.

        :param until: for a poll, which is sent after other polls if there are many: the latest time to send
            it, in seconds since the epoch
        """
        if until is None:
            return await self._answer(call)
        # Without a token there is no reason to wait for other polls.
        await self.token()
        await self._acquire_poll_slot(call, until)
        try:
            return await self._answer(call)
        finally:
            self._poll_slots.release()

    async def _answer(self, call: Request[Any]) -> tuple[Response, str]:
        token = await self.token()
        response = await self.send(call, token)
        if response.status == 401:
            await self.renew(token)
            token = await self.token()
            response = await self.send(call, token)
        return response, token

    async def _acquire_poll_slot(self, call: Request[Any], until: float) -> None:
        try:
            # A timeout costs more than acquiring a free slot.
            async with asyncio.timeout(until - time.time()) if self._poll_slots.locked() else nullcontext():
                await self._poll_slots.acquire()
        except TimeoutError:
            raise CloudPartnerError(
                f"{call.action} was not sent: {_POLLS} other polls still wait for an answer of "
                f"{self.settings.base_url}. Check that the host answers.",
                unsent=True,
            ) from None

    async def token(self) -> str:
        """Return a token. It is requested once, and renewed before it expires."""
        # The check by azure-identity takes too long for each of many polls.
        if time.monotonic() >= self._token_until:
            await single_flight((self, "token"), self._request_token)
        return self._token

    async def _request_token(self) -> None:
        try:
            with suppress_library_logs():
                self._token = str(await self._get_token())
        except Exception as error:  # azure-identity also raises other classes for a malformed response
            raise token_error(self.settings, error) from None
        self._token_until = time.monotonic() + _TOKEN_KEPT

    async def renew(self, refused: str) -> None:
        """Discard a token that the service refused, unless another request discarded it already."""
        async with self._lock:
            if await self.token() == refused:
                assert self._session is not None  # noqa: S101  open until the caller releases it
                await self._credential.close()
                await self._make_credential(self._session)
                self._token_until = 0.0

    async def send(self, call: Request[Any], token: str) -> Response:
        """Send a request once.

        :raises CloudPartnerError: there is no response
        """
        assert self._session is not None  # noqa: S101  open until the caller releases it
        settings = self.settings
        try:
            async with self._session.request(
                call.method,
                # Unchanged: the service's path of an operation must not be percent-encoded again.
                URL(settings.base_url + call.target(settings.api_version), encoded=True),
                json=call.json_body,
                headers={**call.headers, "Authorization": f"Bearer {token}"},
                allow_redirects=False,
                **self._proxy,
            ) as answer:
                return Response(answer.status, answer.headers, await answer.read(), settings.base_url)
        except Exception as error:  # aiohttp raises many classes for a malformed response
            unsent = isinstance(error, _UNSENT)
            raise no_response_error(call, settings, error, token, unsent=unsent) from None


_sessions_by_loop: dict[asyncio.AbstractEventLoop, dict[Settings, SharedSession]] = {}
