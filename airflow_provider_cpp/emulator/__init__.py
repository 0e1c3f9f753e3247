"""A local Cloud Partner Portal for tests and trials: run ``python -m airflow_provider_cpp.emulator``.

It implements the service's API from the same specification as the provider, and shares no code with it, so
that each checks the other. It needs the extra ``emulator``.

Assumptions where the specification is silent:

- A new offer has version 1. Each accepted publish raises the offer's version by one; the new number is its
  ``publishingVersion``, the previous one its ``offerVersion``. A failed or canceled publish uses up its
  number.
- The draft's version can be read by number before it was published.
- A publish has the timed steps, ``publisher-signoff`` and ``live``; a go-live has the step ``live``. In a
  publish, ``live`` shows the progress of the go-live that follows it. Only virtual machines are provisioned.
- Migrated offer: a publish ends as ``succeeded`` when the preview is ready, and a go-live as ``succeeded``. A
  new publish is accepted while the preview awaits the signoff.
- Offer that is not migrated: a publish keeps running while it awaits the signoff, and ends as ``completed``
  when a go-live is accepted; the go-live ends as ``completed``. A new publish is refused (409) while one
  awaits the signoff.
- The preview slot gets the new version when the preview is ready, and the previous one again when the preview
  is canceled. Production gets it when the go-live succeeds.
- After a failed or canceled go-live the version is still in preview, so go-live can be called again.
- Cancel while a step runs: 202. The operation stops at once and shows ``canceled`` two minutes later; another
  cancel in between changes nothing.
- Cancel while the signoff is awaited withdraws the preview at once: 200. The offer's status is then
  ``canceled``. The publish of an offer that is not migrated becomes ``canceled`` too; the publish of a
  migrated offer had succeeded and keeps its status, with ``cancellationRequestState: canceled``.
- Cancel while nothing can be canceled: 202 with the Location of the latest operation, which does not change;
  without a Location if the offer has no operation.
- The draft can be edited at any time; a publish uses the draft of the moment when it was requested. The ETag
  changes with the definition and with the version, so that a publish makes an older ETag stale.
- A GET of a migrated offer has no ETag; the response to a PUT has one, for every offer.
- A PUT names ``offerTypeId`` when it creates; ``id`` and ``publisherId`` are optional, and none of the three
  can change. ``If-Match`` for an offer that does not exist: 412. Other members that GET returns (``status``,
  ``version``, …) are ignored. The service replaces URLs of images, documents and archives by URLs of its own
  storage, but not URLs of disks.
- A publish needs a body with ``metadata``; a cancel may have one; a go-live may have any body.
- ``slot`` of a list item is ``staging`` or ``production``; in a Location it is ``preview`` or ``production``.
  A list item's ``id`` is a GUID that finds the operation of every offer. For an offer that is not migrated,
  ``/api/operations/{publisher}${offer}${publishingVersion}${slot}`` also finds it; if several operations
  share this path (a repeated go-live), it returns the latest.
- A list of operations starts with the latest. A filter with an unknown word matches nothing.
- ``cancellationRequestState`` is ``canCancel``, ``canceling``, ``canceled`` or ``cannotCancel``.
- Secret values in a definition have a key that ends in ``password``, ``secret``, ``accountKey`` or
  ``connectionString``.
- Ids are compared exactly, slot names without case. A trailing slash of a path changes nothing.
- A principal that is not a user of a publisher gets 403 for it, 404 for an unknown one, and lists only its
  own.
- Checks come in this order: token (401), api-version (400), publisher (404, 403), offer (404), running
  operation (409), content.
"""
