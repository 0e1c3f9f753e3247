"""The service: offers, versions, slots and operations, and the rules by which they change. No HTTP in here.

What the specification leaves open, and what is assumed here:

- A new offer has version 1. Every accepted publish raises the offer's version by one, and that is its
  ``publishingVersion``; ``offerVersion`` is the version before. A failed or canceled publish has used its
  number up.
- A version that was never published (the draft's) can be read by its number as long as it is the offer's
  current one.
- A publish consists of the timed steps and the publisher's signoff, a go-live of the step ``live``; the
  status of the offer shows all of them. Offers of other types than virtual machines aren't provisioned.
- The preview slot takes the new version when the signoff begins to be awaited, and gives it back when the
  publish is canceled then. Production takes it when the go-live completes.
- A publish that awaits the signoff is still running: a new publish is refused (409) until it is canceled or
  goes live. Only go-live is accepted, and completes it.
- After a go-live that failed or was canceled, the version is still in preview, so go-live can be called
  again.
- Cancel: while a step runs, 202, and the operation stops moving at once but shows ``canceled`` only two
  minutes later; a second cancel meanwhile is the same. While the signoff is awaited nothing costly runs, so
  it is canceled at once: 200. While nothing runs, 202 with the Location of the latest operation, which
  doesn't change; without a Location when there never was one.
- The draft can be edited at any time; what is being published is the draft as it was when publish was
  called. Its ETag changes with the definition and with the version, so that a publish makes an older one
  stale.
- A PUT names ``offerTypeId`` when it creates; ``id`` and ``publisherId`` may be left out, and none of the
  three can change. ``If-Match`` for an offer that doesn't exist: 412. What else GET returns (``status``,
  ``version``, …) is ignored.
- Publish needs its body with ``metadata``; cancel may have it, go live may have anything.
- ``slot`` of a list's item is ``staging`` or ``production``; in a Location it is ``preview`` or
  ``production``. For an offer that isn't migrated an item's ``id`` is a GUID too, but only the Location
  ``/api/operations/{publisher}${offer}${publishingVersion}${slot}`` finds the operation; where several have
  the same (a go-live that was repeated), it is the latest. For a migrated one only the GUID does.
- A list of operations begins with the latest. A filter with an unknown word matches nothing.
- Offers and steps of an offer that isn't migrated have their status in PascalCase in the offer's status,
  others in camelCase; operations always in camelCase.
- ``cancellationRequestState`` is ``canCancel``, ``canceling``, ``canceled`` or ``cannotCancel``.
  ``previewLinks`` and ``liveLinks`` are empty. ``pcMigrationStatus`` is ``completed``, or ``none``.
- Secret values in a definition are those whose key ends in ``password``, ``secret``, ``accountKey`` or
  ``connectionString``.
- An id is compared exactly. One slash at the end of a path changes nothing.
- A principal gets 403 at a publisher that it isn't a user of, 404 at one that doesn't exist, and lists its
  own ones.
- A token counts first (401), then the api-version (400), the publisher (404, 403), the offer (404), a
  running operation (409), and the content last.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_cpp.emulator import operations
from airflow_provider_cpp.emulator.operations import Operation, Progress, progress
from airflow_provider_cpp.emulator.seed import Failure, OfferSeed, Seed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_NAMES = {"publish": "publish", "goLive": "go-live"}


class ServiceError(Exception):
    """A refusal: HTTP status, error code and message, as the API answers them."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


@dataclass
class Offer:
    """An offer: its draft, what was published of it, and its operations in the order of their beginning.

    :param published: definition by version, of every publish that was accepted.
    :param changed: when the draft was last changed.
    """

    publisher_id: str
    id: str
    type_id: str
    migrated: bool
    version: int
    definition: dict[str, Any]
    changed: float
    published: dict[int, dict[str, Any]] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    step_seconds: dict[str, float] = field(default_factory=dict)
    failure: Failure | None = None
    invalid: str | None = None

    @property
    def etag(self) -> str:
        """The entity tag of the draft. Section "Concurrency control"."""
        draft = json.dumps([self.version, self.changed, self.definition], sort_keys=True)
        return f'"{hashlib.sha256(draft.encode()).hexdigest()[:32]}"'


@dataclass(frozen=True)
class Edition:
    """An offer as it is in a slot or had been at a version."""

    offer: Offer
    version: int
    definition: dict[str, Any]
    changed: float


@dataclass(frozen=True)
class Cancellation:
    """What a cancel came to.

    :param operation: the one that was or is being canceled, else the latest one, None without any.
    :param at_once: whether it is canceled already.
    :param accepted: whether this call changed anything.
    """

    operation: Operation | None
    at_once: bool
    accepted: bool


class Service:
    """The publishers and offers of one emulator.

    :param clock: seconds since the epoch.
    :param time_scale: by how much steps run faster than at the real service.
    :param clock_offset: seconds by which the times that clients are told are off.
    """

    def __init__(self, clock: Callable[[], float], time_scale: float = 1, clock_offset: float = 0) -> None:
        self._clock = clock
        self._time_scale = time_scale
        self._clock_offset = clock_offset
        self._planted_at = 0.0
        self.publishers: dict[str, str] = {}
        self._offers: dict[tuple[str, str], Offer] = {}

    @property
    def now(self) -> float:
        """The service's time, in seconds since the epoch."""
        return self._clock()

    def told(self, at: float) -> float:
        """Return a time as clients are told it."""
        return at + self._clock_offset

    # -- where the data comes from and goes to

    def plant(self, seed: Seed) -> None:
        """Replace everything by what the seed says, as of now."""
        self.publishers = {publisher.id: publisher.display_text for publisher in seed.publishers}
        self._offers = {
            (publisher.id, offer.id): self._planted(publisher.id, offer)
            for publisher in seed.publishers
            for offer in publisher.offers
        }
        self._planted_at = self.now

    def dump(self) -> dict[str, Any]:
        """Return everything as JSON, for `load`."""
        return {
            "planted": self._planted_at,
            "publishers": self.publishers,
            "offers": [asdict(offer) for offer in self._offers.values()],
        }

    def load(self, data: dict[str, Any]) -> None:
        """Replace everything by what `dump` returned."""
        self._planted_at = data.get("planted", 0.0)  # older files lack it
        self.publishers = data["publishers"]
        self._offers = {}
        for item in data["offers"]:
            offer = Offer(**item)
            offer.published = {int(version): definition for version, definition in offer.published.items()}
            offer.operations = [Operation(**operation) for operation in item["operations"]]
            offer.failure = Failure(**item["failure"]) if item["failure"] else None
            self._offers[offer.publisher_id, offer.id] = offer

    # -- reading

    def lagging(self, seconds: float) -> Service:
        """Return the service as it stood so long ago, though not before its seed; to be read only.

        What is in an offer's draft is as it is now.

        :param seconds: of the real service.
        """
        then = max(self.now - seconds / self._time_scale, self._planted_at)
        past = Service(lambda: then, self._time_scale, self._clock_offset)
        past.publishers = self.publishers
        past._offers = {key: _as_of(offer, then) for key, offer in self._offers.items()}
        return past

    def check_publisher(self, publisher_id: str, allowed: Collection[str]) -> None:
        """Refuse an unknown publisher (404) and one of which the caller isn't a user (403)."""
        if publisher_id not in self.publishers:
            raise ServiceError(404, "ResourceNotFound", f"Publisher '{publisher_id}' was not found.")
        if publisher_id not in allowed:
            raise ServiceError(
                403,
                "Forbidden",
                f"The service principal is not authorized for the publisher '{publisher_id}'.",
            )

    def offers(self, publisher_id: str | None = None, offer_type_id: str | None = None) -> list[Offer]:
        """List offers; None: of any publisher, of any type. Section "Retrieve offers"."""
        return [
            offer
            for offer in self._offers.values()
            if publisher_id in (None, offer.publisher_id) and offer_type_id in (None, offer.type_id)
        ]

    def offer(self, publisher_id: str, offer_id: str) -> Offer:
        """Return one offer. Section "Retrieve a specific offer".

        :raises ServiceError: 404.
        """
        try:
            return self._offers[publisher_id, offer_id]
        except KeyError:
            message = f"Offer '{offer_id}' of publisher '{publisher_id}' was not found."
            raise ServiceError(404, "ResourceNotFound", message) from None

    def draft(self, offer: Offer) -> Edition:
        """Return the offer as it is being edited."""
        return Edition(offer, offer.version, offer.definition, offer.changed)

    def at_version(self, offer: Offer, version: str) -> Edition:
        """Return the offer as it was published with a version number, as text.

        :raises ServiceError: 404.
        """
        for operation in offer.operations:
            if operation.kind == "publish" and str(operation.version) == version:
                return Edition(
                    offer, operation.version, offer.published[operation.version], operation.started
                )
        if str(offer.version) == version:
            return self.draft(offer)
        raise ServiceError(
            404, "ResourceNotFound", f"Version '{version}' of offer '{offer.id}' was not found."
        )

    def in_slot(self, offer: Offer, slot: str) -> Edition:
        """Return what is in one of the slots draft, preview and production.

        :raises ServiceError: 404, also while nothing was ever put in that slot.
        """
        if slot == "draft":
            return self.draft(offer)
        version = self.slots(offer).get(slot)
        if version is None:
            raise ServiceError(404, "ResourceNotFound", f"Offer '{offer.id}' has nothing in slot '{slot}'.")
        return self.at_version(offer, str(version))

    def slots(self, offer: Offer) -> dict[str, int | None]:
        """Return the version in preview and in production, None while there is none."""
        slots: dict[str, int | None] = {"preview": None, "production": None}
        for operation in offer.operations:
            state = self.progress(operation)
            if operation.kind == "goLive" and state.status == "completed":
                slots["production"] = operation.version
            elif operation.kind == "publish" and (state.status == "completed" or state.at_signoff):
                slots["preview"] = operation.version
        return slots

    def status(self, offer: Offer) -> str:
        """Return the status of an offer, in camelCase. Section "Retrieve offer status"."""
        if not offer.operations:
            return "neverPublished"
        state = self.progress(offer.operations[-1])
        if state.at_signoff:
            return "waitingForPublisherReview"
        return "succeeded" if state.status == "completed" else state.status

    def progress(self, operation: Operation) -> Progress:
        """Return where an operation stands now."""
        return progress(operation, self.now)

    def operation(self, offer: Offer, operation_id: str) -> Operation:
        """Return an operation of a migrated offer. Section "Retrieve operations".

        :raises ServiceError: 404.
        """
        for operation in offer.operations:
            if offer.migrated and operation.id == operation_id:
                return operation
        raise ServiceError(
            404, "ResourceNotFound", f"Operation '{operation_id}' of offer '{offer.id}' was not found."
        )

    def operation_of_version(self, offer: Offer, version: str, slot: str) -> Operation:
        """Return the latest operation that puts a version in a slot, of an offer that isn't migrated.

        :raises ServiceError: 404.
        """
        kind = {"preview": "publish", "production": "goLive"}.get(slot)
        for operation in reversed(offer.operations):
            if not offer.migrated and operation.kind == kind and str(operation.version) == version:
                return operation
        message = f"No operation for version '{version}' in slot '{slot}' of offer '{offer.id}' was found."
        raise ServiceError(404, "ResourceNotFound", message)

    # -- changing

    def put_offer(
        self, publisher_id: str, offer_id: str, body: Any, if_match: str | None
    ) -> tuple[Offer, bool]:
        """Create or modify an offer's draft; return it and whether it was created.

        Sections "Create or modify an offer" and "Concurrency control".

        :raises ServiceError: 400; 412 when ``if_match`` is stale.
        """
        offer = self._offers.get((publisher_id, offer_id))
        if offer is None:
            if if_match is not None:
                raise ServiceError(412, "PreconditionFailed", f"Offer '{offer_id}' doesn't exist.")
            _check_offer_body(body, {"id": offer_id, "publisherId": publisher_id})
            if not isinstance(body.get("offerTypeId"), str):
                raise _bad_request("A new offer needs an 'offerTypeId'.")
            offer = Offer(
                publisher_id,
                offer_id,
                body["offerTypeId"],
                True,
                1,
                definition=body["definition"],
                changed=self.now,
            )
            self._offers[publisher_id, offer_id] = offer
            return offer, True
        if if_match is None:
            raise _bad_request(f"Offer '{offer_id}' exists: the header 'If-Match' is required to modify it.")
        if if_match.strip() not in ("*", offer.etag):
            message = f"The ETag {if_match} is not that of offer '{offer_id}', which was changed meanwhile."
            raise ServiceError(412, "PreconditionFailed", message)
        _check_offer_body(body, {"id": offer_id, "publisherId": publisher_id, "offerTypeId": offer.type_id})
        offer.definition = body["definition"]
        offer.changed = self.now
        return offer, False

    def publish(self, offer: Offer, body: Any) -> Operation:
        """Start to publish the draft. Section "Publish an offer".

        :param body: ``{"metadata": {"notification-emails": "a@x,b@x"}}``
        :raises ServiceError: 400; 409 while an operation runs; 422 when the offer fails validation.
        """
        self._refuse_while_running(offer)
        emails = _emails(body)
        problems = _problems(offer)
        if problems:
            raise ServiceError(422, "ValidationFailed", " ".join(problems))
        offer.version += 1
        offer.published[offer.version] = offer.definition
        return self._begin(offer, "publish", offer.version, emails, self.now)

    def go_live(self, offer: Offer) -> Operation:
        """Start to take what is in preview live. Section "Go live".

        :raises ServiceError: 409 while an operation runs; 400 when preview has nothing beyond production.
        """
        latest = offer.operations[-1] if offer.operations else None
        signing_off = latest is not None and self.progress(latest).at_signoff
        if not signing_off:
            self._refuse_while_running(offer)
        slots = self.slots(offer)
        version = slots["preview"]
        if version is None:
            raise _bad_request(
                f"Offer '{offer.id}' has nothing in preview that could go live: publish it first."
            )
        if version == slots["production"]:
            raise _bad_request(
                f"Version {version} of offer '{offer.id}' is live already: there is nothing to go live."
            )
        if latest is not None and signing_off:
            latest.signed_off = self.now
        emails = next(
            one.emails for one in offer.operations if one.kind == "publish" and one.version == version
        )
        return self._begin(offer, "goLive", version, emails, self.now)

    def cancel(self, offer: Offer, body: Any) -> Cancellation:
        """Cancel what runs. Section "Cancel operation"; see the module for what is assumed.

        :param body: as `publish` takes it, or None.
        :raises ServiceError: 400.
        """
        if body is not None:
            _emails(body)
        latest = offer.operations[-1] if offer.operations else None
        if latest is None:
            return Cancellation(None, at_once=False, accepted=False)
        state = self.progress(latest)
        if state.status != "running" or latest.cancel_requested is not None:
            return Cancellation(latest, at_once=False, accepted=False)
        latest.cancel_requested = latest.canceled = self.now
        if not state.at_signoff:
            latest.canceled += operations.CANCEL_SECONDS / self._time_scale
        return Cancellation(latest, at_once=state.at_signoff, accepted=True)

    # -- inside

    def _planted(self, publisher_id: str, seed: OfferSeed) -> Offer:
        now = self.now
        offer = Offer(
            publisher_id,
            seed.id,
            seed.offer_type_id,
            seed.migrated,
            seed.version,
            definition=seed.definition,
            changed=now,
            step_seconds=seed.step_seconds,
        )
        if seed.live_version is not None:
            self._history(offer, seed.live_version, "live", now)
        if seed.state != "never-published":
            self._history(offer, seed.version, seed.state, now)
        offer.invalid = seed.invalid
        # Only what still runs can fail: the past of the seed is as the seed says.
        offer.failure = None if seed.failure is None else Failure(**asdict(seed.failure))
        if seed.state in ("publishing", "going-live"):
            self._set_failure(offer, offer.operations[-1])
        return offer

    def _history(self, offer: Offer, version: int, state: str, now: float) -> None:
        """Add the operations that brought a version to a state of the seed."""
        offer.published[version] = offer.definition
        publish = self._begin(offer, "publish", version, "", now)
        if state == "publishing":
            return
        publish.started -= sum(publish.durations.values())
        if state == "preview":
            return
        publish.signed_off = now
        go_live = self._begin(offer, "goLive", version, "", now)
        if state == "live":
            seconds = sum(go_live.durations.values())
            publish.started -= seconds
            publish.signed_off -= seconds
            go_live.started -= seconds

    def _begin(self, offer: Offer, kind: operations.Kind, version: int, emails: str, now: float) -> Operation:
        operation = Operation(
            id=str(uuid.uuid4()),
            kind=kind,
            version=version,
            offer_version=version - 1,
            emails=emails,
            started=now,
            durations={
                step: offer.step_seconds.get(step, operations.STEPS[step].seconds) / self._time_scale
                for step in operations.steps_of(kind, offer.type_id)
            },
        )
        self._set_failure(offer, operation)
        offer.operations.append(operation)
        return operation

    def _set_failure(self, offer: Offer, operation: Operation) -> None:
        """Let the operation fail if the seed wants it."""
        failure = offer.failure
        if failure is None or failure.step not in operation.durations or failure.times == 0:
            return
        operation.failing_step = failure.step
        operation.failure_messages = failure.messages
        if failure.times is not None:
            failure.times -= 1

    def _refuse_while_running(self, offer: Offer) -> None:
        for operation in offer.operations:
            state = self.progress(operation)
            if state.status == "running":
                canceling = ", and is being canceled" if operation.cancel_requested is not None else ""
                message = (
                    f"Another operation is running on offer '{offer.id}': the {_NAMES[operation.kind]} "
                    f"{operation.id} of version {operation.version} is at step "
                    f"'{state.current_step.id}'{canceling}."
                )
                raise ServiceError(409, "Conflict", message)


def _as_of(offer: Offer, then: float) -> Offer:
    """Return an offer with its operations, and the version that these raise, as they were at a time."""
    begun = [one for one in offer.operations if one.started <= then]
    later = offer.operations[len(begun) :]
    return replace(
        offer,
        version=offer.version - sum(one.kind == "publish" for one in later),
        operations=[operations.as_of(one, then) for one in begun],
    )


def _bad_request(message: str) -> ServiceError:
    return ServiceError(400, "BadRequest", message)


def _check_offer_body(body: Any, fixed: dict[str, str]) -> None:
    if not isinstance(body, dict) or not isinstance(body.get("definition"), dict):
        raise _bad_request("The body must be an offer, a JSON object with the object 'definition'.")
    for key, value in fixed.items():
        if body.get(key, value) != value:
            raise _bad_request(f"'{key}' must be '{value}'.")


def _emails(body: Any) -> str:
    """Return the notification addresses of a request's body."""
    metadata = body.get("metadata") if isinstance(body, dict) else None
    emails = metadata.get("notification-emails", "") if isinstance(metadata, dict) else None
    if not isinstance(emails, str):
        raise _bad_request(
            "The body must be like {'metadata': {'notification-emails': 'a@contoso.com,b@contoso.com'}}."
        )
    for email in filter(None, emails.split(",")):
        if "@" not in email:
            raise _bad_request(f"'{email}' in 'notification-emails' is not an address.")
    return emails


def _problems(offer: Offer) -> list[str]:
    """Return why the offer can't be published, in sentences."""
    problems = [] if offer.invalid is None else [offer.invalid]
    if not offer.definition.get("displayText"):
        problems.append("The offer has no 'displayText'.")
    if not isinstance(offer.definition.get("offer"), dict):
        problems.append("The offer has no 'offer' details.")
    plans = offer.definition.get("plans")
    if not isinstance(plans, list) or not plans:
        problems.append("The offer has no 'plans'.")
    return problems
