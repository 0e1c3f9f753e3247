"""The seed: publishers, their offers, and the service principals with which the emulator starts.

A seed is a JSON file. Times are seconds of the real service; ``--time-scale`` divides them::

    {
      "publishers": [                     at least one; the printed connection names the first
        {
          "id": "contoso",
          "displayText": "Contoso",       optional
          "offers": [
            {
              "id": "contoso-offer",
              "offerTypeId": "microsoft-azure-virtualmachines",   optional, this is the default
              "migrated": true,           optional; false: an offer that was not migrated to Partner Center
              "state": "preview",         optional; see below
              "version": 2,               optional: the version that the state describes
              "liveVersion": 1,           optional: an older version that is in production
              "definition": {...},        optional; the default passes validation
              "stepSeconds": {"displaycertify": 60, "live": 120},   optional, per step
              "fail": {                   optional: a step that fails
                "step": "displaycertify",
                "messages": ["<p>No SSH key.</p>"],
                "times": 1                optional: only the first times; without it always
              },
              "invalid": "No logo."       optional: publish is refused with 422 and this message
            }
          ]
        }
      ],
      "principals": [                     optional; by default the built-in ones, see below
        {
          "tenantId": "...", "clientId": "...",
          "secret": "...",                optional
          "certificate": "-----BEGIN CERTIFICATE-----...",           optional: for client assertions
          "federation": {                 optional: for workload identity
            "issuer": "...", "subject": "...", "publicKey": "-----BEGIN PUBLIC KEY-----..."
          },
          "identityHeader": "...",        optional: makes it a managed identity, at /msi/token
          "publishers": ["contoso"]       the publishers that it is a user of; others answer with 403
        }
      ]
    }

States: ``never-published``; ``publishing`` (a publish starts with the emulator); ``preview`` (the preview
awaits the publisher's signoff); ``going-live`` (a go-live starts with the emulator); ``live``.

Steps: ``displaydummycertify``, ``displaycertify``, ``displayprovision``, ``displaypackage``, ``live``.

A seed without ``principals`` has the built-in ones: the first is a user of all publishers, the second of no
publisher.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, field_validator

from airflow_provider_cpp.emulator.operations import STEPS, VIRTUAL_MACHINE
from airflow_provider_cpp.emulator.validation import Document, describe

State = Literal["never-published", "publishing", "preview", "going-live", "live"]

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
    """An invalid seed; the message is one line that names the key."""


def default_definition(offer_id: str) -> dict[str, Any]:
    """Return a definition that passes validation."""
    title = offer_id.replace("-", " ").title()
    return {
        "displayText": title,
        "offer": {"microsoft-azure-marketplace.title": title},
        "plans": [{"planId": "standard", "microsoft-azure-virtualmachines.skuTitle": "Standard"}],
    }


def _check_step(step: str) -> str:
    if step not in STEPS:
        raise ValueError(f"is an unknown step; the steps are {', '.join(STEPS)}")
    return step


def _check_certificate(pem: str) -> str:
    try:
        x509.load_pem_x509_certificate(pem.encode())
    except ValueError:
        raise ValueError("must be a certificate in PEM format") from None
    return pem


def _check_public_key(pem: str) -> str:
    try:
        serialization.load_pem_public_key(pem.encode())
    except ValueError:
        raise ValueError("must be a public key in PEM format") from None
    return pem


Text = Annotated[str, Field(min_length=1)]
StepId = Annotated[str, AfterValidator(_check_step)]


class FailureSeed(Document):
    """A step that fails with error messages (HTML); `times` limits how often."""

    step: StepId
    messages: list[str]
    times: int | None = None


class OfferSeed(Document):
    """One offer of the seed."""

    id: Text
    offer_type_id: Text = VIRTUAL_MACHINE
    migrated: bool = True
    state: State = "never-published"
    version: int = Field(
        ge=1, default_factory=lambda seed: 1 if seed.get("state") == "never-published" else 2
    )
    live_version: int | None = Field(None, ge=1)
    definition: dict[str, Any] = Field(default_factory=lambda seed: default_definition(seed.get("id", "")))
    step_seconds: dict[StepId, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    fail: FailureSeed | None = None
    invalid: Text | None = None

    @field_validator("live_version")
    @classmethod
    def _check_live_version(cls, live: int | None, info: ValidationInfo) -> int | None:
        seed = info.data
        if live is None or "state" not in seed or "version" not in seed:
            return live
        if seed["state"] in ("never-published", "live") or live >= seed["version"]:
            raise ValueError("needs an offer in publishing, preview or going-live, with a greater version")
        return live


class PublisherSeed(Document):
    """One publisher of the seed."""

    id: Text
    display_text: Text | None = None
    offers: list[OfferSeed]

    @property
    def name(self) -> str:
        """The publisher's name."""
        return self.display_text or self.id

    @field_validator("offers")
    @classmethod
    def _check_ids(cls, offers: list[OfferSeed]) -> list[OfferSeed]:
        _check_unique([offer.id for offer in offers])
        return offers


class Federation(Document):
    """The issuer whose tokens are accepted instead of a secret (workload identity)."""

    issuer: Text
    subject: Text
    public_key: Annotated[Text, AfterValidator(_check_public_key)]


class Principal(Document):
    """A service principal and its credentials."""

    tenant_id: Text
    client_id: Text
    secret: Text | None = None
    certificate: Annotated[Text, AfterValidator(_check_certificate)] | None = None
    federation: Federation | None = None
    identity_header: Text | None = None
    publishers: list[str]


def _built_in_principals(seed: dict[str, Any]) -> list[Principal]:
    user, stranger = BUILT_IN["principals"]
    publishers = [publisher.id for publisher in seed.get("publishers", [])]
    return [Principal.model_validate(one) for one in ({**user, "publishers": publishers}, stranger)]


class Seed(Document):
    """A valid seed."""

    publishers: list[PublisherSeed] = Field(min_length=1)
    principals: list[Principal] = Field(default_factory=_built_in_principals)

    @field_validator("publishers")
    @classmethod
    def _check_publisher_ids(cls, publishers: list[PublisherSeed]) -> list[PublisherSeed]:
        _check_unique([publisher.id for publisher in publishers])
        return publishers

    @field_validator("principals")
    @classmethod
    def _check_client_ids(cls, principals: list[Principal]) -> list[Principal]:
        _check_unique([principal.client_id for principal in principals])
        return principals


def parse(document: Any) -> Seed:
    """Return a seed from its JSON.

    :raises SeedError: names the wrong key
    """
    try:
        seed = Seed.model_validate(document)
    except ValidationError as error:
        raise SeedError(f"seed: {describe(error, Seed)}") from None
    known = {publisher.id for publisher in seed.publishers}
    for number, principal in enumerate(seed.principals):
        for publisher in principal.publishers:
            if publisher not in known:
                raise SeedError(
                    f"seed: principals[{number}].publishers: the seed has no publisher {publisher!r}"
                )
    return seed


def _check_unique(ids: list[str]) -> None:
    for one in ids:
        if ids.count(one) > 1:
            raise ValueError(f"{one!r} occurs twice")
