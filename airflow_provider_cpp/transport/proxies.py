"""Select the proxy for a URL, with the same result in worker and triggerer."""

from __future__ import annotations

import base64
import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from urllib.request import getproxies

import yaml
from requests.utils import should_bypass_proxies

_HOST_AND_PORT = re.compile(
    r"([a-z0-9]([a-z0-9._-]*[a-z0-9])?\.?|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.IGNORECASE
)
#: Key of the extra `proxies` for the hosts that are reached without a proxy of the environment.
_NO_PROXY = "no_proxy"


@dataclass(frozen=True)
class Proxies:
    """Select proxies from the connection's extra `proxies`, else from the environment.

    The rules are the same as in requests and the HTTP provider: the keys of the extra are `https`, `all`,
    `https://host` and `all://host`, and an empty value means no proxy. `HTTPS_PROXY`, `ALL_PROXY` and
    `NO_PROXY` apply where the extra has no matching key. The key `no_proxy` replaces `NO_PROXY`.

    There is one exception: a request over plain http never uses a proxy. This provider sends such requests to
    this machine and to managed identity endpoints only, and they carry secrets in clear text.

    :param connection: name of the connection for error messages
    :param configured: the extra `proxies` as pairs of key and normalized URL
    """

    connection: str = field(compare=False)
    configured: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @classmethod
    def from_extra(cls, connection: str, value: Any) -> Proxies:
        """Read the extra `proxies`: an object, the JSON text of one, or one URL.

        :raises ValueError: the value has another form, or one of its URLs is not the URL of a proxy
        """
        proxies = {"http": value, "https": value} if isinstance(value, str) and value.strip() else value or {}
        if isinstance(value, str) and value.lstrip().startswith("{"):
            # The form of Airflow 2 stores JSON that a user typed, or Python's notation of an object after the
            # form is saved again. YAML reads both.
            proxies = None
            with suppress(yaml.YAMLError):
                proxies = yaml.safe_load(value)
        if not isinstance(proxies, dict) or not all(
            isinstance(item, str) for pair in proxies.items() for item in pair
        ):
            raise ValueError(
                f"{connection}: extra 'proxies' must be an object such as {{'https': 'http://proxy:8080'}}."
            )
        return cls(
            connection,
            tuple(
                (
                    key,
                    url
                    if key == _NO_PROXY
                    else _normalize(connection, f"extra 'proxies', key {key!r},", url),
                )
                for key, url in sorted(proxies.items())
            ),
        )

    def for_url(self, url: str) -> str | None:
        """Return the URL of the proxy for a request, with user name and password; None for no proxy.

        :raises ValueError: the environment names a proxy that cannot be used
        """
        parts = urlsplit(url)
        if parts.scheme != "https" or parts.hostname is None:
            return None
        configured = dict(self.configured)
        for key in (f"https://{parts.hostname}", "https", f"all://{parts.hostname}", "all"):
            if key in configured:
                return configured[key] or None
        if should_bypass_proxies(url, no_proxy=configured.get(_NO_PROXY)):
            return None
        environment = getproxies()
        for key in ("https", "all"):
            if key in environment:
                name = f"{key}_proxy"
                name = name if os.environ.get(name) else name.upper()
                return (
                    _normalize(self.connection, f"the environment variable {name}", environment[key]) or None
                )
        return None

    def for_requests(self, url: str) -> dict[str, str]:
        """Return the argument `proxies` of requests."""
        proxy = self.for_url(url)
        return {"https": proxy} if proxy else {}

    def for_aiohttp(self, url: str) -> dict[str, Any]:
        """Return the arguments of aiohttp. The password is in a header, since its errors quote the URL."""
        proxy = self.for_url(url)
        if proxy is None:
            return {}
        user, password = _credentials(proxy)
        if not user:
            return {"proxy": without_credentials(proxy)}
        basic = base64.b64encode(f"{user}:{password}".encode("latin1")).decode()
        return {
            "proxy": without_credentials(proxy),
            "proxy_headers": {"Proxy-Authorization": f"Basic {basic}"},
        }

    def secrets(self, url: str) -> list[str]:
        """Return the credentials that an error about a request must not show."""
        proxy = self.for_url(url)
        return [":".join(_credentials(proxy)), _credentials(proxy)[1]] if proxy else []


def without_credentials(proxy: str) -> str:
    """Return a proxy's URL without user name and password."""
    return re.sub(r"//.*@", "//", proxy)


def _credentials(proxy: str) -> tuple[str, str]:
    parts = urlsplit(proxy)
    return unquote(parts.username or ""), unquote(parts.password or "")


def _normalize(connection: str, setting: str, value: str) -> str:
    """Return a proxy's URL in the form that requests and aiohttp read in the same way; an empty text stays.

    :param setting: where the URL comes from, for the error message
    :raises ValueError: neither http nor https, no host, a path, or characters that must be percent-encoded
    """
    url = value.strip()
    if not url:
        return ""
    if "://" not in url:
        url = f"http://{url.lstrip('/')}"
    redacted = re.sub(r"//.*@", "//***@", url, flags=re.DOTALL)
    try:
        parts = urlsplit(url)
        address = parts.netloc.rpartition("@")[2]
        valid = bool(_HOST_AND_PORT.fullmatch(address)) and parts.port != 0
        ":".join(_credentials(url)).encode("latin1")
    except ValueError:
        valid = False
    if valid and parts.scheme not in ("http", "https"):
        raise ValueError(
            f"{connection}: {setting} names the proxy {redacted!r}, but only http and https proxies are "
            "supported, since the triggerer cannot use others. Set an http:// or https:// URL, or an empty "
            "value for no proxy."
        )
    if not valid or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(
            f"{connection}: {setting} names the proxy {redacted!r}, which is not a URL such as "
            "'http://proxy:8080' or 'http://user:password@proxy:8080'. Correct it; percent-encode the "
            "characters '/', '?', '#', '@' and ':' in user name and password."
        )
    user, password = _credentials(url)
    # With a user name alone, requests would send no Proxy-Authorization header.
    prefix = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user else ""
    return f"{parts.scheme}://{prefix}{address}"
