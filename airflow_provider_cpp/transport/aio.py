"""One session, connection pool and token for all users of a connection in an event loop."""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from typing import Any

import aiohttp
from yarl import URL

from airflow_provider_cpp.core.errors import CloudPartnerError
from airflow_provider_cpp.core.http import Request, Response
from airflow_provider_cpp.transport.credentials import make_async_credential, proxy_for, token_error
from airflow_provider_cpp.transport.failures import no_response_error
from airflow_provider_cpp.transport.library_logs import suppress_library_logs
from airflow_provider_cpp.transport.settings import Settings, ssl_context
from airflow_provider_cpp.transport.single_flight import for_running_loop, single_flight

# Longer than the usual `poke_interval`, so that polls find their TLS connection still open; in seconds.
_KEEPALIVE = 75
# At most so many polls at once: the connections, of which aiohttp opens a hundred, are for others as well.
_POLLS = 50
# For so many seconds azure-identity is not asked whether a token is still good.
_TOKEN_KEPT = 1.0


class SharedSession:
    """What all uses of one connection share in one event loop: session, connection pool and token."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.users = 0
        self._lock = asyncio.Lock()
        # The time for an answer begins when it is a poll's turn.
        self._turns = asyncio.Semaphore(_POLLS)
        self._session: aiohttp.ClientSession | None = None
        self._proxy: str | None = None
        self.make_credential: Any = None
        self._get_token: Any = None
        self._token = ""
        self._token_until = 0.0

    @classmethod
    async def acquire(cls, settings: Settings) -> SharedSession:
        """Return what is shared, open; whoever has it must release it."""
        here = for_running_loop(_sessions_by_loop)
        if settings not in here:
            here[settings] = cls(settings)
        shared = here[settings]
        shared.users += 1
        try:
            if shared._session is None:
                # A lock would wake who waits one by one, the last of ten thousand after minutes.
                await single_flight(shared, shared._open)
        except BaseException:
            await shared.release()
            raise
        return shared

    async def release(self) -> None:
        """Close session and credential if nobody else uses them."""
        self.users -= 1
        if not self.users:
            del for_running_loop(_sessions_by_loop)[self.settings]
            await self._close()

    async def _open(self) -> None:
        # Reading a CA bundle takes tens of milliseconds: not in the event loop.
        context = await asyncio.to_thread(ssl_context, self.settings)
        self._proxy = proxy_for(self.settings, self.settings.base_url).get("https")
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
                await self.make_credential.close()
            finally:
                await self._session.close()

    async def _make_credential(self, session: aiohttp.ClientSession) -> None:
        # Importing azure-identity and reading a certificate are blocking.
        self.make_credential, self._get_token = await asyncio.to_thread(
            make_async_credential, self.settings, session
        )

    async def answer(self, call: Request[Any], until: float | None = None) -> tuple[Response, str]:
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

    async def _answer(self, call: Request[Any]) -> tuple[Response, str]:
        token = await self.token()
        response = await self.send(call, token)
        if response.status == 401:
            await self.renew(token)
            token = await self.token()
            response = await self.send(call, token)
        return response, token

    async def _take_turn(self, call: Request[Any], until: float) -> None:
        try:
            # Setting a time limit costs more than taking a turn that is free.
            async with asyncio.timeout(until - time.time()) if self._turns.locked() else nullcontext():
                await self._turns.acquire()
        except TimeoutError:
            raise CloudPartnerError(
                f"{call.action} was not sent: it was not its turn in time, since {_POLLS} others wait for an "
                f"answer of {self.settings.base_url}. Check that the host answers.",
                unsent=True,
            ) from None

    async def token(self) -> str:
        """Return a token; it is asked for once and renewed before it expires."""
        # azure-identity sees to that whenever it is asked, which is too much to do for each of many polls.
        if time.monotonic() >= self._token_until:
            await single_flight((self, "token"), self._ask_for_token)
        return self._token

    async def _ask_for_token(self) -> None:
        try:
            with suppress_library_logs():
                self._token = str(await self._get_token())
        except Exception as error:  # whatever azure-identity makes of an answer that it can't read
            raise token_error(self.settings, error) from None
        self._token_until = time.monotonic() + _TOKEN_KEPT

    async def renew(self, refused: str) -> None:
        """Forget a token that the service refused, unless another use of the connection did so already."""
        async with self._lock:
            if await self.token() == refused:
                assert self._session is not None  # noqa: S101  opened by whoever holds it
                await self.make_credential.close()
                await self._make_credential(self._session)
                self._token_until = 0.0

    async def send(self, call: Request[Any], token: str) -> Response:
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
                return Response(answer.status, answer.headers, await answer.read(), settings.base_url)
        except Exception as error:  # also what aiohttp makes of an odd answer
            unsent = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
            raise no_response_error(call, settings, error, token, unsent=unsent) from None


_sessions_by_loop: dict[asyncio.AbstractEventLoop, dict[Settings, SharedSession]] = {}
