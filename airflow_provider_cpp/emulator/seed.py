"""What the emulator starts with: publishers, their offers, and the service principals that may call.

A seed is a JSON file; times are seconds of the real service, which ``--time-scale`` divides::

    {
      "publishers": [                     at least one; the connection that is printed names the first
        {
          "id": "contoso",
          "displayText": "Contoso",       optional
          "offers": [
            {
              "id": "contoso-offer",
              "offerTypeId": "microsoft-azure-virtualmachines",   optional, this is the default
              "migrated": true,           optional; false: operations have the older form of Location
              "state": "preview",         optional; see below
              "version": 2,               optional: the one that the state is about
              "liveVersion": 1,           optional: an older version that is in production meanwhile
              "definition": {...},        optional; by default one that passes validation
              "stepSeconds": {"displaycertify": 60, "live": 120},   optional, per step
              "fail": {                   optional: a step that ends with a failure
                "step": "displaycertify",
                "messages": ["<p>No SSH key.</p>"],
                "times": 1                optional: only the first times, else always
              },
              "invalid": "No logo."       optional: publishing is refused with 422 and this message
            }
          ]
        }
      ],
      "principals": [
        {
          "tenantId": "...", "clientId": "...",
          "secret": "...",                optional
          "certificate": "-----BEGIN CERTIFICATE-----...",           optional: for client assertions
          "federation": {                 optional: for workload identity
            "issuer": "...", "subject": "...", "publicKey": "-----BEGIN PUBLIC KEY-----..."
          },
          "identityHeader": "...",        optional: makes it a managed identity, at /msi/token
          "publishers": ["contoso"]       whose users it is one of; an empty list gets 403 everywhere
        }
      ]
    }

States: ``never-published``; ``publishing`` (a publish begins at the start of the emulator); ``preview`` (the
publisher's signoff is awaited); ``going-live`` (a go-live begins at the start of the emulator); ``live``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from airflow_provider_cpp.emulator.operations import STEPS, VIRTUAL_MACHINE

STATES = ("never-published", "publishing", "preview", "going-live", "live")

_T = TypeVar("_T")
_REQUIRED: Any = object()

_TENANT = "5c2fa1e6-3b0d-4c52-9f6e-0d7a4b1c8e21"
BUILT_IN: dict[str, Any] = {
    "publishers": [
        {
            "id": "contoso",
            "displayText": "Contoso",
            "offers": [
                {"id": "contoso-linux", "state": "preview"},
                {"id": "contoso-database", "state": "preview", "version": 4, "liveVersion": 3},
                {"id": "contoso-classic", "state": "preview", "migrated": False},
                {"id": "contoso-next", "state": "never-published"},
                {"id": "contoso-web", "state": "live", "version": 3},
                {"id": "contoso-mail", "state": "never-published"},
                {"id": "contoso-shop", "state": "live"},
                {"id": "contoso-wiki", "state": "live", "migrated": False},
            ],
        }
    ],
    "principals": [
        {
            "tenantId": _TENANT,
            "clientId": "0f7e6c1d-7a55-4f0b-8f0e-5d3c2b1a9e01",
            "secret": "emulator-secret",
            "identityHeader": "emulator-identity-header",
            "publishers": ["contoso"],
        },
        {
            "tenantId": _TENANT,
            "clientId": "0f7e6c1d-7a55-4f0b-8f0e-5d3c2b1a9e02",
            "secret": "emulator-secret-of-a-stranger",
            "publishers": [],
        },
    ],
}


class SeedError(ValueError):
    """A seed that can't be used; the message is one line that names the key."""


@dataclass
class Failure:
    """A step that fails with error messages (HTML); ``times`` counts down, None means always."""

    step: str
    messages: list[str]
    times: int | None


@dataclass(frozen=True)
class OfferSeed:
    """One offer of the seed, checked; see the module for the meaning."""

    id: str
    offer_type_id: str
    migrated: bool
    state: str
    version: int
    live_version: int | None
    definition: dict[str, Any]
    step_seconds: dict[str, float]
    failure: Failure | None
    invalid: str | None


@dataclass(frozen=True)
class PublisherSeed:
    """One publisher of the seed, checked."""

    id: str
    display_text: str
    offers: tuple[OfferSeed, ...]


@dataclass(frozen=True)
class Federation:
    """Whose tokens are accepted in place of a secret (workload identity)."""

    issuer: str
    subject: str
    public_key: str


@dataclass(frozen=True)
class Principal:
    """A service principal and all its ways to prove who it is."""

    tenant_id: str
    client_id: str
    secret: str | None
    certificate: str | None
    federation: Federation | None
    identity_header: str | None
    publishers: frozenset[str]


@dataclass(frozen=True)
class Seed:
    """A checked seed."""

    publishers: tuple[PublisherSeed, ...]
    principals: tuple[Principal, ...]


def parse(document: Any) -> Seed:
    """Check a seed's JSON and return it typed.

    :raises SeedError: naming the offending key.
    """
    root = _Object(document, "")
    publishers = tuple(_publisher(item) for item in root.objects("publishers"))
    if not publishers:
        raise SeedError("seed: publishers: at least one is needed")
    _unique("publishers", [publisher.id for publisher in publishers])
    known = {publisher.id for publisher in publishers}
    principals = tuple(_principal(item, known) for item in root.objects("principals"))
    _unique("principals", [principal.client_id for principal in principals])
    root.finish()
    return Seed(publishers, principals)


def default_definition(offer_id: str) -> dict[str, Any]:
    """Return a definition that passes validation."""
    title = offer_id.replace("-", " ").title()
    return {
        "displayText": title,
        "offer": {"microsoft-azure-marketplace.title": title},
        "plans": [{"planId": "standard", "microsoft-azure-virtualmachines.skuTitle": "Standard"}],
    }


class _Object:
    """A JSON object being read: every key is taken once, then `finish` refuses what is left."""

    def __init__(self, value: Any, where: str) -> None:
        self.where = where
        if not isinstance(value, dict):
            raise SeedError(f"seed: {where or 'the document'}: must be an object")
        self._rest = dict(value)

    def error(self, key: str, problem: str) -> SeedError:
        return SeedError(f"seed: {self.where}{'.' if self.where else ''}{key}: {problem}")

    def take(self, key: str, kind: type[_T], default: Any = _REQUIRED) -> _T:
        value = self._rest.pop(key, default)
        if value is _REQUIRED:
            raise self.error(key, "is missing")
        # bool is an int for Python, but not for JSON.
        if value is not default and (
            not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
        ):
            raise self.error(key, f"must be of type {kind.__name__}, not {type(value).__name__}")
        return value  # type: ignore[no-any-return]

    def text(self, key: str, default: Any = _REQUIRED) -> Any:
        value = self.take(key, str, default)
        if value == "":
            raise self.error(key, "must not be empty")
        return value

    def strings(self, key: str) -> list[str]:
        values = self.take(key, list)
        if not all(isinstance(value, str) for value in values):
            raise self.error(key, "must be a list of strings")
        return values

    def objects(self, key: str) -> list[_Object]:
        prefix = f"{self.where}." if self.where else ""
        return [_Object(item, f"{prefix}{key}[{n}]") for n, item in enumerate(self.take(key, list))]

    def child(self, key: str) -> _Object | None:
        value = self.take(key, dict, None)
        return None if value is None else _Object(value, f"{self.where}.{key}")

    def finish(self) -> None:
        for key in self._rest:
            raise self.error(key, "is not a key known here")


def _publisher(item: _Object) -> PublisherSeed:
    publisher_id = item.text("id")
    publisher = PublisherSeed(
        id=publisher_id,
        display_text=item.text("displayText", publisher_id),
        offers=tuple(_offer(offer) for offer in item.objects("offers")),
    )
    _unique(f"{item.where}.offers", [offer.id for offer in publisher.offers])
    item.finish()
    return publisher


def _offer(item: _Object) -> OfferSeed:
    offer_id = item.text("id")
    state = item.text("state", "never-published")
    if state not in STATES:
        raise item.error("state", f"must be one of {', '.join(STATES)}")
    version = item.take("version", int, 1 if state == "never-published" else 2)
    if version < 1:
        raise item.error("version", "must be 1 or more")
    live_version = item.take("liveVersion", int, None)
    if live_version is not None and (state in ("never-published", "live") or not 1 <= live_version < version):
        raise item.error("liveVersion", "needs an offer that is on its way, with a greater version")
    offer = OfferSeed(
        id=offer_id,
        offer_type_id=item.text("offerTypeId", VIRTUAL_MACHINE),
        migrated=item.take("migrated", bool, True),
        state=state,
        version=version,
        live_version=live_version,
        definition=item.take("definition", dict, None) or default_definition(offer_id),
        step_seconds=_step_seconds(item),
        failure=_failure(item.child("fail")),
        invalid=item.text("invalid", None),
    )
    item.finish()
    return offer


def _step_seconds(item: _Object) -> dict[str, float]:
    seconds = item.take("stepSeconds", dict, {})
    for step, value in seconds.items():
        if step not in STEPS:
            raise item.error(f"stepSeconds.{step}", f"must be one of {', '.join(STEPS)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise item.error(f"stepSeconds.{step}", "must be a number of seconds")
    return seconds


def _failure(item: _Object | None) -> Failure | None:
    if item is None:
        return None
    step = item.text("step")
    if step not in STEPS:
        raise item.error("step", f"must be one of {', '.join(STEPS)}")
    failure = Failure(step, item.strings("messages"), item.take("times", int, None))
    item.finish()
    return failure


def _principal(item: _Object, known_publishers: set[str]) -> Principal:
    publishers = item.strings("publishers")
    for publisher in publishers:
        if publisher not in known_publishers:
            raise item.error("publishers", f"{publisher!r} is not a publisher of this seed")
    certificate = item.text("certificate", None)
    if certificate is not None:
        try:
            x509.load_pem_x509_certificate(certificate.encode())
        except ValueError:
            raise item.error("certificate", "must be a certificate as PEM") from None
    principal = Principal(
        tenant_id=item.text("tenantId"),
        client_id=item.text("clientId"),
        secret=item.text("secret", None),
        certificate=certificate,
        federation=_federation(item.child("federation")),
        identity_header=item.text("identityHeader", None),
        publishers=frozenset(publishers),
    )
    item.finish()
    return principal


def _federation(item: _Object | None) -> Federation | None:
    if item is None:
        return None
    federation = Federation(item.text("issuer"), item.text("subject"), item.text("publicKey"))
    try:
        serialization.load_pem_public_key(federation.public_key.encode())
    except ValueError:
        raise item.error("publicKey", "must be a public key as PEM") from None
    item.finish()
    return federation


def _unique(where: str, ids: list[str]) -> None:
    for one in ids:
        if ids.count(one) > 1:
            raise SeedError(f"seed: {where}: {one!r} is there twice")
