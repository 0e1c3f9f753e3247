"""Responses that repeat the request, as gateways and debugging proxies send them, cause no leak.

A page can contain a secret as it is, or encoded. A response that is not HTTP appears in the error messages of
the HTTP libraries. Each exchange is made once; then the test searches four places:

- `error`: text and fields of the provider's exception;
- `cause`: the causes of the exception, which a traceback in the task's log shows;
- `log`: log records at the levels that Airflow keeps by default (WARNING and above of other libraries);
- `debug`: log records below these levels.

For each response, the exception is the provider's own (`class`): any other would end the polling of days.
"""

from __future__ import annotations

import asyncio
import base64
import html
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from airflow_provider_cpp.exceptions import CloudPartnerError
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
from airflow_provider_cpp.transport.library_logs import identity_log
from tests.security.listening import as_http
from tests.security.recording import places_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.security.listening import Listener, Sent
    from tests.security.recording import Recording

PLACES = ("error", "cause", "log", "debug", "class")
#: A token in an unusable response of the identity host.
GIVEN = "tok-ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-abcdefghijklmn"

both = pytest.mark.parametrize("variant", ["sync", "async"])


def ask(variant: str) -> Any:
    hook = CloudPartnerHook()
    return hook.get_offer_status("slow") if variant == "sync" else asyncio.run(hook.aget_offer_status("slow"))


def page(body: str, status: int = 400, kind: str = "text/plain") -> bytes:
    return as_http(status, {"Content-Type": kind}, body.encode())


def raw(head: str, body: str = "") -> bytes:
    return f"{head}\r\n\r\n{body}".encode()


#: Forms in which a response of the API repeats the header `Authorization` and its token.
API: dict[str, Callable[[str, str], bytes]] = {
    "text": lambda header, _: page(f"Authorization: {header}"),
    "html": lambda header, _: page(f"<pre>Authorization: {header}</pre>", 502, "text/html"),
    "html escaped": lambda header, _: page("".join(f"&#{ord(letter)};" for letter in header)),
    "html marked up": lambda _, token: page(f"{token[:25]}<wbr>{token[25:]}"),
    "json code": lambda _, token: page(json.dumps({"error": {"code": token, "message": token}})),
    "url encoded": lambda header, _: page(quote(f"a={header}", safe="")),
    "base64 of header": lambda header, _: page(base64.b64encode(header.encode()).decode()),
    "base64 of token": lambda _, token: page(base64.b64encode(token.encode()).decode()),
    "base64 of request": lambda header, _: page(base64.b64encode(f"GET /\r\nA: {header}".encode()).decode()),
    "base64 in json": lambda header, _: page(
        json.dumps({"error": {"code": base64.b64encode(header.encode()).decode(), "message": "x"}})
    ),
    "redirect": lambda header, _: raw(f"HTTP/1.1 302 Found\r\nLocation: /login?{quote(header)}"),
    "no http": lambda header, _: raw(header),
    "no http, bare": lambda _, token: raw(token),
    "status code": lambda _, token: raw(f"HTTP/1.1 {token} OK"),
    "reason": lambda _, token: raw(f"HTTP/1.1 400 {token}\r\nContent-Length: 0"),
    "header without name": lambda _, token: raw(f"HTTP/1.1 400 Bad\r\n{token}\r\nContent-Length: 0"),
    "chunk": lambda _, token: raw("HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked", f"{token}\r\n"),
    "length": lambda _, token: raw(f"HTTP/1.1 400 Bad\r\nContent-Length: {token}", "xx"),
    "transfer": lambda _, token: raw(f"HTTP/1.1 400 Bad\r\nTransfer-Encoding: {token}", "xx"),
    "cookie": lambda header, _: as_http(400, {"Set-Cookie": f"bad;;={header}"}, b"x"),
}


def _as_json(status: int, document: object) -> bytes:
    return page(json.dumps(document), status, "application/json")


def _refusal(status: int, text: str) -> bytes:
    return _as_json(status, {"error": "invalid_client", "error_description": f"AADSTS7000215: {text}"})


#: Forms in which a response of the identity host repeats the request.
IDENTITY: dict[str, Callable[[str], bytes]] = {
    "text": lambda shown: page(shown, 502),
    "html": lambda shown: page(f"<pre>{html.escape(shown)}</pre>", 400, "text/html"),
    "json 400": lambda shown: _refusal(400, shown),
    "json 500": lambda shown: _refusal(500, shown),
    "base64": lambda shown: _refusal(401, base64.b64encode(shown.encode()).decode()),
    "list": lambda shown: _as_json(200, [shown]),
    "no json": lambda shown: page(f'{{"seen": {shown}', 200, "application/json"),
    "no http": lambda shown: raw(shown),
    "reason": lambda shown: raw(f"HTTP/1.1 400 {shown}\r\nContent-Length: 0"),
    "header without name": lambda shown: raw(f"HTTP/1.1 400 Bad\r\n{shown}\r\nContent-Length: 0"),
    "headers": lambda shown: raw(f"HTTP/1.1 400 Bad\r\nX-Seen: {shown}\r\nx-ms-request-id: {shown}"),
    "redirect": lambda shown: raw(f"HTTP/1.1 307 Moved\r\nLocation: /login?{shown}\r\nContent-Length: 0"),
    # Those are tokens, but not usable ones.
    "token cut off": lambda _: page(
        f'{{"token_type": "Bearer", "access_token": "{GIVEN}"', 200, "application/json"
    ),
    "token as text": lambda _: page(f'{{"token_type": "Bearer", "access_token": "{GIVEN}"}}', 200),
    "token without end": lambda _: _as_json(200, {"token_type": "Bearer", "access_token": GIVEN}),
    "token of odd end": lambda _: _as_json(
        200, {"token_type": "Bearer", "access_token": GIVEN, "expires_in": "soon"}
    ),
    "token in refusal": lambda _: _as_json(400, {"error": "x", "access_token": GIVEN, "expires_in": 33}),
}

#: An assertion is sent in the same way as a secret, so a few forms are enough.
WAYS = [("secret", kind) for kind in IDENTITY]
WAYS += [("certificate", kind) for kind in ("json 400", "no json", "no http")]
WAYS += [("managed", kind) for kind in ("json 400", "no json", "no http", "headers", "token cut off")]


def leaks(recorded: Recording, error: BaseException) -> dict[str, list[str]]:
    """Return the secrets that were found, by place."""
    said = places_of(error)
    assert said[0][0] == f"str({type(error).__name__})"
    places: dict[str, list[tuple[str, str | bytes]]] = {name: [] for name in PLACES}
    places["error"] = said[:3]
    places["cause"] = said[3:]
    for where, text in recorded.logged:
        loud = where.endswith((" WARNING", " ERROR", " CRITICAL"))
        places["log" if loud else "debug"].append((where, text))
    found = {name: recorded.secrets.find_all(texts) for name, texts in places.items()}
    if not isinstance(error, CloudPartnerError):
        found["class"] = [repr(error)]
    return {name: hits for name, hits in found.items() if hits}


@both
@pytest.mark.parametrize("kind", API)
def test_no_response_of_the_service_leaks_the_token(
    gateway: Listener, recorded: Recording, kind: str, variant: str
) -> None:
    def answer(sent: Sent) -> bytes | None:
        if "Authorization" not in sent.headers:
            return None
        header = sent.headers["Authorization"]
        return API[kind](header, header.partition(" ")[2])

    gateway.answer = answer
    with pytest.raises(CloudPartnerError) as raised:
        ask(variant)
    assert [name for name in recorded.secrets.known.values() if name.startswith("access")]
    assert leaks(recorded, raised.value) == {}


@both
@pytest.mark.parametrize(("sign_in", "kind"), WAYS, indirect=["sign_in"])
def test_no_response_of_the_identity_host_leaks_a_credential(
    gateway: Listener,
    recorded: Recording,
    sign_in: str,
    kind: str,
    variant: str,
) -> None:
    def answer(sent: Sent) -> bytes | None:
        if not sent.is_for_identity:
            return None
        return IDENTITY[kind](sent.body.decode() or f"h={sent.headers['X-IDENTITY-HEADER']}")

    recorded.secrets.add("access token", GIVEN)
    gateway.answer = answer
    with pytest.raises(Exception, match=r"\w") as raised:
        ask(variant)
    assert [sent for sent in gateway.requests if sent.is_for_identity]
    assert leaks(recorded, raised.value) == {}


def test_identity_requests_stay_unlogged_after_a_log_configuration(
    recorded: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`logging.config.dictConfig`, which Airflow calls, enables each logger."""
    monkeypatch.setattr(identity_log, "disabled", False)
    identity_log.warning("Request headers: secret")
    assert [text for where, text in recorded.logged if identity_log.name in where] == []
