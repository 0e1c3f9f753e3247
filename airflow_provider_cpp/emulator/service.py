"""The service: publishers, offers, versions, slots and operations, and the rules of their changes.

The package's docstring lists the assumptions where the specification is silent.
"""

from __future__ import annotations

import copy
import uuid
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_cpp.emulator import operations
from airflow_provider_cpp.emulator.offers import (
    Cancellation,
    Failure,
    Offer,
    OfferVersion,
    ServiceError,
    bad_request,
    check_offer_body,
    notification_emails,
    store_artifacts,
    validation_problems,
)
from airflow_provider_cpp.emulator.operations import Operation, Progress, progress

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from airflow_provider_cpp.emulator.seed import OfferSeed, Seed

_NAMES = {"publish": "publish", "goLive": "go-live"}
_SLOTS = {"preview": "Staging", "production": "Production"}


class Service:
    """The publishers and offers of one emulator.

    :param clock: seconds since the epoch
    :param time_scale: how many times faster than at the real service steps run
    :param clock_offset: seconds by which times in responses differ from the clock
    """

    def __init__(self, clock: Callable[[], float], time_scale: float = 1, clock_offset: float = 0) -> None:
        self._clock = clock
        self._time_scale = time_scale
        self._clock_offset = clock_offset
        self._seeded_at = 0.0
        self.publishers: dict[str, str] = {}
        self._offers: dict[tuple[str, str], Offer] = {}

    @property
    def now(self) -> float:
        """The service's time, in seconds since the epoch."""
        return self._clock()

    def client_time(self, at: float) -> float:
        """Return a time as responses show it."""
        return at + self._clock_offset

    # -- loading and storing

    def load_seed(self, seed: Seed) -> None:
        """Replace all data by the seed's, as of now."""
        self.publishers = {publisher.id: publisher.name for publisher in seed.publishers}
        self._offers = {
            (publisher.id, offer.id): self._from_seed(publisher.id, offer)
            for publisher in seed.publishers
            for offer in publisher.offers
        }
        self._seeded_at = self.now

    def dump(self) -> dict[str, Any]:
        """Return all data as JSON, for `load`."""
        return {
            "seeded": self._seeded_at,
            "publishers": self.publishers,
            "offers": [asdict(offer) for offer in self._offers.values()],
        }

    def load(self, data: dict[str, Any]) -> None:
        """Replace all data by the result of `dump`, also by that of an older version of the emulator."""
        self._seeded_at = data.get("seeded", data.get("planted", 0.0))
        self.publishers = data["publishers"]
        self._offers = {}
        for item in data["offers"]:
            offer = Offer(**item)
            offer.published = {int(version): definition for version, definition in offer.published.items()}
            offer.operations = [
                Operation(**{"migrated": offer.migrated, **operation}) for operation in item["operations"]
            ]
            offer.failure = Failure(**item["failure"]) if item["failure"] else None
            self._offers[offer.publisher_id, offer.id] = offer

    # -- reading

    def frozen(self) -> Service:
        """Return this service with its clock stopped, so that all parts of one response agree.

        It shares the data: a change applies to this service, too.
        """
        return self._at(self.now)

    def lagging(self, seconds: float) -> Service:
        """Return the service as it was in the past, for reading only. The drafts are as they are now.

        :param seconds: of the real service; the past ends at the time of the seed
        """
        then = max(self.now - seconds / self._time_scale, self._seeded_at)
        past = self._at(then)
        past._offers = {key: _as_of(offer, then) for key, offer in self._offers.items()}
        return past

    def check_publisher(self, publisher_id: str, allowed: Collection[str]) -> None:
        """Refuse an unknown publisher (404) and one that the caller is no user of (403)."""
        if publisher_id not in self.publishers:
            raise ServiceError(404, "ResourceNotFound", f"Publisher '{publisher_id}' was not found.")
        if publisher_id not in allowed:
            raise ServiceError(
                403,
                "Forbidden",
                f"The service principal is not authorized for the publisher '{publisher_id}'.",
            )

    def offers(self, publisher_id: str | None = None, offer_type_id: str | None = None) -> list[Offer]:
        """List offers; None means any publisher or any type. Section "Retrieve offers"."""
        return [
            offer
            for offer in self._offers.values()
            if publisher_id in (None, offer.publisher_id) and offer_type_id in (None, offer.type_id)
        ]

    def offer(self, publisher_id: str, offer_id: str) -> Offer:
        """Return one offer. Section "Retrieve a specific offer".

        :raises ServiceError: 404
        """
        try:
            return self._offers[publisher_id, offer_id]
        except KeyError:
            message = f"Offer '{offer_id}' of publisher '{publisher_id}' was not found."
            raise ServiceError(404, "ResourceNotFound", message) from None

    def draft(self, offer: Offer) -> OfferVersion:
        """Return the draft of an offer."""
        return OfferVersion(offer, offer.version, offer.definition, offer.changed)

    def at_version(self, offer: Offer, version: str) -> OfferVersion:
        """Return the offer as it was published with a version number, given as text.

        :raises ServiceError: 404
        """
        for operation in offer.operations:
            if operation.kind == "publish" and str(operation.version) == version:
                definition = offer.published[operation.version]
                return OfferVersion(offer, operation.version, definition, operation.started)
        if str(offer.version) == version:
            return self.draft(offer)
        raise ServiceError(
            404, "ResourceNotFound", f"Version '{version}' of offer '{offer.id}' was not found."
        )

    def in_slot(self, offer: Offer, slot: str) -> OfferVersion:
        """Return the version in a slot: draft, preview or production.

        :raises ServiceError: 404, also if the slot is empty
        """
        slot = slot.lower()
        if slot == "draft":
            return self.draft(offer)
        version = self.slots(offer).get(slot)
        if version is None:
            message = (
                f"There is no {_SLOTS.get(slot, slot)} slot deployed for Offer ID '{offer.id}', "
                f"Publisher ID '{offer.publisher_id}'"
            )
            raise ServiceError(404, "ResourceNotFound", message)
        return self.at_version(offer, str(version))

    def slots(self, offer: Offer) -> dict[str, int | None]:
        """Return the version in preview and in production; None for an empty slot."""
        slots: dict[str, int | None] = {"preview": None, "production": None}
        for operation in offer.operations:
            state = self.progress(operation)
            if operation.kind == "goLive":
                if state.is_success:
                    slots["production"] = operation.version
            elif state.awaits_signoff or (state.is_success and not state.is_withdrawn):
                slots["preview"] = operation.version
        return slots

    def status(self, offer: Offer) -> str:
        """Return the status of an offer, in camelCase. Section "Retrieve offer status"."""
        if not offer.operations:
            return "neverPublished"
        state = self.progress(offer.operations[-1])
        if state.awaits_signoff:
            return "waitingForPublisherReview"
        if state.is_withdrawn:
            return "canceled"
        return "succeeded" if state.is_success else state.status

    def progress(self, operation: Operation) -> Progress:
        """Return the current state of an operation."""
        return progress(operation, self.now)

    def operation(self, offer: Offer, operation_id: str) -> Operation:
        """Return an operation by its GUID. Section "Retrieve operations".

        :raises ServiceError: 404
        """
        for operation in offer.operations:
            if operation.id == operation_id:
                return operation
        raise ServiceError(
            404, "ResourceNotFound", f"Operation '{operation_id}' of offer '{offer.id}' was not found."
        )

    def operation_of_version(self, offer: Offer, version: str, slot: str) -> Operation:
        """Return the latest operation for a version and a slot, of an offer that is not migrated.

        :raises ServiceError: 404
        """
        kind = {"preview": "publish", "production": "goLive"}.get(slot.lower())
        for operation in reversed(offer.operations):
            if not offer.migrated and operation.kind == kind and str(operation.version) == version:
                return operation
        message = f"No operation for version '{version}' in slot '{slot}' of offer '{offer.id}' was found."
        raise ServiceError(404, "ResourceNotFound", message)

    # -- changing

    def put_offer(
        self, publisher_id: str, offer_id: str, body: Any, if_match: str | None
    ) -> tuple[Offer, bool]:
        """Create or modify an offer's draft; return the offer and whether it was created.

        Sections "Create or modify an offer" and "Concurrency control".

        :raises ServiceError: 400; 409 without `if_match` if the offer exists; 412 if `if_match` is stale
        """
        offer = self._offers.get((publisher_id, offer_id))
        created = offer is None
        if offer is None:
            if if_match is not None:
                raise ServiceError(412, "PreconditionFailed", f"Offer '{offer_id}' does not exist.")
            check_offer_body(body, {"id": offer_id, "publisherId": publisher_id})
            if not isinstance(body.get("offerTypeId"), str):
                raise bad_request("A new offer needs an 'offerTypeId'.")
            offer = Offer(publisher_id, offer_id, body["offerTypeId"], True, 1, {}, self.now)
        elif if_match is None:
            message = (
                "Offer ID already exists. If you wanted to update an existing offer, please ensure If-Match "
                "header is specified and its value is the current ETag of the offer, or '*'."
            )
            raise ServiceError(409, "InvalidResourceId", message)
        elif if_match.strip() not in ("*", offer.etag):
            message = f"The ETag {if_match} is not the current one of offer '{offer_id}', which has changed."
            raise ServiceError(412, "PreconditionFailed", message)
        fixed = {"id": offer_id, "publisherId": publisher_id, "offerTypeId": offer.type_id}
        check_offer_body(body, fixed)
        offer.definition = store_artifacts(body["definition"], publisher_id, offer_id)
        offer.changed = self.now
        offer.touch(self.now)
        self._offers[publisher_id, offer_id] = offer
        return offer, created

    def publish(self, offer: Offer, body: Any) -> Operation:
        """Start to publish the draft. Section "Publish an offer".

        :param body: ``{"metadata": {"notification-emails": "a@x,b@x"}}``
        :raises ServiceError: 400; 409 while an operation runs; 422 if the offer fails validation
        """
        self._refuse_while_running(offer)
        emails = notification_emails(body)
        problems = validation_problems(offer)
        if problems:
            raise ServiceError(422, "ValidationFailed", " ".join(problems))
        offer.version += 1
        offer.touch(self.now)
        offer.published[offer.version] = offer.definition
        return self._start(offer, "publish", offer.version, emails, self.now)

    def go_live(self, offer: Offer) -> Operation:
        """Start to take the version in preview live. Section "Go live".

        :raises ServiceError: 409 while an operation runs; 400 if preview has nothing beyond production
        """
        self._refuse_while_running(offer, except_signoff=True)
        slots = self.slots(offer)
        version = slots["preview"]
        if version is None:
            raise bad_request(
                f"Offer '{offer.id}' has nothing in preview that could go live: publish it first."
            )
        if version == slots["production"]:
            raise bad_request(
                f"Version {version} of offer '{offer.id}' is live already: there is nothing to go live."
            )
        publish = next(
            one for one in reversed(offer.operations) if one.kind == "publish" and one.version == version
        )
        if self.progress(publish).awaits_signoff:
            publish.signed_off = self.now
        return self._start(offer, "goLive", version, publish.emails, self.now)

    def cancel(self, offer: Offer, body: Any) -> Cancellation:
        """Cancel the running operation, or the preview. Section "Cancel operation".

        :param body: as for `publish`, or None
        :raises ServiceError: 400
        """
        if body is not None:
            notification_emails(body)
        latest = offer.operations[-1] if offer.operations else None
        if latest is None:
            return Cancellation(None, at_once=False, accepted=False)
        state = self.progress(latest)
        can_cancel = state.status == "running" or state.awaits_signoff
        if not can_cancel or latest.cancel_requested is not None:
            return Cancellation(latest, at_once=False, accepted=False)
        latest.cancel_requested = latest.canceled = self.now
        if not state.awaits_signoff:
            latest.canceled += operations.CANCEL_SECONDS / self._time_scale
        return Cancellation(latest, at_once=state.awaits_signoff, accepted=True)

    # -- internal

    def _at(self, then: float) -> Service:
        """Return a service with the same data whose clock stands still at a time."""
        service = copy.copy(self)
        service._clock = lambda: then
        return service

    def _from_seed(self, publisher_id: str, seed: OfferSeed) -> Offer:
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
            self._add_history(offer, seed.live_version, "live", now)
        if seed.state != "never-published":
            self._add_history(offer, seed.version, seed.state, now)
        offer.invalid = seed.invalid
        # Only a running operation can fail: the past is as the seed says.
        offer.failure = None if seed.fail is None else Failure(**seed.fail.model_dump())
        if seed.state in ("publishing", "going-live"):
            self._set_failure(offer, offer.operations[-1])
        return offer

    def _add_history(self, offer: Offer, version: int, state: str, now: float) -> None:
        """Add the operations that brought a version to a state of the seed."""
        offer.published[version] = offer.definition
        publish = self._start(offer, "publish", version, "", now)
        if state == "publishing":
            return
        publish.started -= sum(publish.durations.values())
        if state == "preview":
            return
        publish.signed_off = now
        go_live = self._start(offer, "goLive", version, "", now)
        if state == "live":
            seconds = sum(go_live.durations.values())
            publish.started -= seconds
            publish.signed_off -= seconds
            go_live.started -= seconds

    def _start(self, offer: Offer, kind: operations.Kind, version: int, emails: str, now: float) -> Operation:
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
            migrated=offer.migrated,
        )
        self._set_failure(offer, operation)
        offer.operations.append(operation)
        return operation

    def _set_failure(self, offer: Offer, operation: Operation) -> None:
        """Let the operation fail if the seed asks for a failure."""
        failure = offer.failure
        if failure is None or failure.step not in operation.durations or failure.times == 0:
            return
        operation.failing_step = failure.step
        operation.failure_messages = failure.messages
        if failure.times is not None:
            failure.times -= 1

    def _refuse_while_running(self, offer: Offer, *, except_signoff: bool = False) -> None:
        for operation in offer.operations:
            state = self.progress(operation)
            if state.status != "running" or (except_signoff and state.awaits_signoff):
                continue
            canceling = ", and is being canceled" if operation.cancel_requested is not None else ""
            message = (
                f"Another operation is running on offer '{offer.id}': the {_NAMES[operation.kind]} "
                f"{operation.id} of version {operation.version} is at step "
                f"'{state.current_step.id}'{canceling}."
            )
            raise ServiceError(409, "Conflict", message)


def _as_of(offer: Offer, then: float) -> Offer:
    """Return an offer with its operations, and the version that they lead to, as they were at a time."""
    started = [one for one in offer.operations if one.started <= then]
    later = [one for one in offer.operations[len(started) :] if one.kind == "publish"]
    return replace(
        offer,
        version=offer.version - len(later),
        modified=0.0 if later else offer.modified,
        operations=[operations.as_of(one, then) for one in started],
    )
