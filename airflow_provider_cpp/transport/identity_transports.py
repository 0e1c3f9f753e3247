"""HTTP transports for azure-identity that select the proxy for each request by its URL.

A credential sends requests to the identity host and to managed identity endpoints, which often need different
proxies. Its sync and async variants read azure-core's option `proxies` and the environment differently.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from azure.core.pipeline.transport import AioHttpTransport, RequestsTransport

if TYPE_CHECKING:
    import aiohttp

    from airflow_provider_cpp.transport.settings import Settings


class SyncIdentityTransport(RequestsTransport):  # type: ignore[misc]
    """Sends the requests of a sync credential."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            use_env_settings=False,
            connection_timeout=settings.timeout,
            read_timeout=settings.timeout,
            connection_verify=settings.verify,
        )
        self._proxies = settings.proxies

    def send(self, request: Any, *, proxies: Any = None, **kwargs: Any) -> Any:
        """Send a request; the argument `proxies` is ignored."""
        return super().send(request, proxies=self._proxies.for_requests(request.url), **kwargs)


class AsyncIdentityTransport(AioHttpTransport):  # type: ignore[misc]
    """Sends the requests of an async credential through a session that the caller owns."""

    def __init__(self, settings: Settings, session: aiohttp.ClientSession) -> None:
        super().__init__(
            session=session,
            session_owner=False,
            connection_timeout=settings.timeout,
            read_timeout=settings.timeout,
        )
        self._proxies = settings.proxies

    async def send(self, request: Any, *, proxies: Any = None, **config: Any) -> Any:
        """Send a request; the argument `proxies` is ignored."""
        return await super().send(request, **config, **self._proxies.for_aiohttp(request.url))
