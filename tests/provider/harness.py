"""Shared helpers of the provider tests: the seed, and functions that run a task as Airflow does."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dev.emulator_process import Emulator

#: An hour and a half of the service's in 4.5 s of a test; a cancel shows after a tenth of a second.
TIME_SCALE = 1200
#: A step of as many seconds of the service's never ends in a test, or ends soon.
NEVER, SOON = 10_000_000, 240

ODD = "Größe 100% $5 & ☃"

HTML = "<html><h1>502 Bad Gateway</h1></html>"
#: After these faults, the client cannot know whether the request had its effect.
UNKNOWN_OUTCOMES: dict[str, dict[str, Any]] = {
    "closed before": {"close": "before"},
    "closed after": {"close": "after"},
    "500 before": {"status": 500},
    "500 after": {"replace": {"status": 500, "body": ""}},
    "502 before": {"status": 502, "body": HTML},
    "502 after": {"replace": {"status": 502, "body": HTML}},
    "503 after": {"replace": {"status": 503}},
}
#: The service returns URLs with their signatures, and repeats them in messages.
SIGNATURE = "sEedOfTheTests%2BcQx0fP3vKz9LmN2bRtY5uHsJ8aGe4i%3D"
SAS_URL = (
    f"https://contoso.blob.core.windows.net/images/web.vhd?sv=2021-08-06&sr=b&sig={SIGNATURE}&se=2027-01-01"
)
UNREADABLE = f'<p>No access to <a href="{escape(SAS_URL)}">{escape(SAS_URL)}</a>; AccountKey={SIGNATURE};</p>'
#: Of an offer's definition; the service never returns the key and the secret.
SECRETS = {
    "storageAccountKey": "a key of the seed",
    "plans": [{"sasSecret": "a signature of the seed", "osVhdUrl": SAS_URL}],
}


@dataclass
class Principal:
    """The principal that tests sign in as, with all its ways to do so."""

    directory: Path
    tenant: str = "5c2fa1e6-3b0d-4c52-9f6e-0d7a4b1c8e21"
    client: str = "0f7e6c1d-7a55-4f0b-8f0e-5d3c2b1a9e01"
    secret: str = "a secret of the seed"
    identity_header: str = "an identity header of the seed"
    issuer: str = "https://issuer.example"
    subject: str = "system:serviceaccount:airflow:triggerer"
    federated_key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))

    def __post_init__(self) -> None:
        key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "release")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), 1)
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .sign(key, hashes.SHA256())
        )
        self.certificate = certificate.public_bytes(serialization.Encoding.PEM).decode()
        self.certificate_path = self._write("plain.pem", key, serialization.NoEncryption())
        self.locked_path = self._write(
            "locked.pem", key, serialization.BestAvailableEncryption(b"passphrase")
        )

    def _write(
        self, name: str, key: rsa.RSAPrivateKey, lock: serialization.KeySerializationEncryption
    ) -> str:
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)
        path = self.directory / name
        path.write_text(pem.decode() + self.certificate)
        return str(path)

    @property
    def seed(self) -> dict[str, Any]:
        public = self.federated_key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return {
            "tenantId": self.tenant,
            "clientId": self.client,
            "secret": self.secret,
            "certificate": self.certificate,
            "identityHeader": self.identity_header,
            "federation": {"issuer": self.issuer, "subject": self.subject, "publicKey": public.decode()},
            "publishers": ["contoso", "fabrikam"],
        }


#: No publisher has registered this one.
STRANGER = {
    "tenantId": "5c2fa1e6-3b0d-4c52-9f6e-0d7a4b1c8e21",
    "clientId": "0f7e6c1d-7a55-4f0b-8f0e-5d3c2b1a9e02",
    "secret": "a secret of a stranger",
    "publishers": [],
}


def offers() -> list[dict[str, Any]]:
    slow = dict.fromkeys(("displaydummycertify", "displaycertify", "live"), NEVER)
    quick = dict.fromkeys(
        ("displaydummycertify", "displaycertify", "displayprovision", "displaypackage", "live"), SOON / 5
    ) | {"live": SOON}
    broken = "<p>No <b>SSH</b> key &amp; no <script>alert(1)</script>password.</p>"
    return [
        {"id": "slow", "state": "preview", "stepSeconds": slow},
        {"id": "slow-classic", "state": "preview", "stepSeconds": slow, "migrated": False},
        {"id": "quick", "state": "preview", "stepSeconds": quick},
        {"id": "quick-classic", "state": "preview", "stepSeconds": quick, "migrated": False},
        # Its go-live still runs when a busy machine comes to look.
        {"id": "brief", "state": "preview", "stepSeconds": quick | {"live": 3 * TIME_SCALE}},
        {"id": "update", "state": "preview", "version": 4, "liveVersion": 3, "stepSeconds": slow},
        {"id": "publishing", "state": "publishing", "stepSeconds": slow},
        {"id": "going-live", "state": "going-live", "stepSeconds": slow},
        {"id": "live", "state": "live", "stepSeconds": quick},
        {"id": "live-classic", "state": "live", "stepSeconds": quick, "migrated": False},
        {"id": "publishing-classic", "state": "publishing", "stepSeconds": slow, "migrated": False},
        {"id": "going-live-classic", "state": "going-live", "stepSeconds": slow, "migrated": False},
        {"id": "next", "state": "never-published", "stepSeconds": quick},
        {"id": "next-classic", "state": "never-published", "stepSeconds": quick, "migrated": False},
        {"id": "next-slow", "state": "never-published", "stepSeconds": slow},
        {"id": "next-slow-classic", "state": "never-published", "stepSeconds": slow, "migrated": False},
        {"id": "container", "state": "never-published", "offerTypeId": "microsoft-azure-container"},
        {"id": "invalid", "state": "never-published", "invalid": "The offer has no <b>logo</b>."},
        {"id": "secretive", "definition": {"displayText": "Secretive", "offer": {}} | SECRETS},
        {
            "id": "failing",
            "state": "preview",
            "stepSeconds": quick,
            "fail": {"step": "live", "messages": [broken], "times": 1},
        },
        {
            "id": "unreadable",
            "state": "preview",
            "stepSeconds": quick,
            "fail": {"step": "live", "messages": [UNREADABLE]},
        },
        {
            "id": "failing-classic",
            "state": "preview",
            "migrated": False,
            "stepSeconds": quick,
            "fail": {"step": "live", "messages": [broken], "times": 1},
        },
        *(
            {
                "id": f"uncertified{kind}",
                "stepSeconds": quick,
                "migrated": not kind,
                "fail": {"step": "displaycertify", "messages": [broken], "times": 1},
            }
            for kind in ("", "-classic")
        ),
        {
            "id": "talkative",
            "state": "preview",
            "stepSeconds": quick,
            "fail": {"step": "live", "messages": [f"<i>Problem {n}</i>" for n in range(30)]},
        },
        {"id": ODD, "state": "preview", "stepSeconds": slow},
        {"id": f"{ODD} classic".replace("$", ""), "state": "preview", "stepSeconds": slow, "migrated": False},
    ]


class Connect:
    """Sets the default connection to the emulator's connection, with the changes of the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def __call__(self, emulator: Emulator, **changes: Any) -> None:
        """Extra values and fields; None removes one."""
        extra = emulator.connection["extra"] | changes.pop("extra", {})
        connection = emulator.connection | changes
        connection["extra"] = {key: value for key, value in extra.items() if value is not None}
        document = {key: value for key, value in connection.items() if value is not None}
        self._monkeypatch.setenv("AIRFLOW_CONN_CLOUD_PARTNER_DEFAULT", json.dumps(document))


class TaskInstance:
    """The parts of a task instance that the operators use: XComs and the first reschedule date."""

    # By these Airflow 2 asks its database for the latter.
    dag_id, task_id, run_id, map_index, max_tries = "release", "wait", "manual", -1, 0

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}
        self.first_reschedule_date: datetime | None = None

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value

    def get_first_reschedule_date(self, _: Any) -> datetime | None:
        return self.first_reschedule_date


def eventually(is_so: Callable[[], Any], within: float = 30.0) -> Any:
    """Wait until something is so, and return it."""
    deadline = time.monotonic() + within
    while not (result := is_so()):
        assert time.monotonic() < deadline, "it did not become so"
        time.sleep(0.01)
    return result


def operations(emulator: Emulator, offer: str, kind: str = "goLive") -> list[dict[str, Any]]:
    """The operations of an offer of contoso, as the emulator knows them, the latest first."""
    found = emulator.offers()[f"contoso/{offer}"]["operations"]
    return [operation for operation in found if operation["submissionType"] == kind]


def state_of(emulator: Emulator, offer: str, kind: str = "goLive") -> str:
    """The state of an offer's latest operation; `completed` for the success words of both variants."""
    state = str(operations(emulator, offer, kind)[0]["submissionState"])
    return "completed" if state == "succeeded" else state


def revise(offer: str, text: str = "Changed") -> None:
    """Change an offer's draft, as a user does in the portal."""
    hook = CloudPartnerHook()
    hook.put_offer(offer, {**hook.get_offer(offer).definition, "displayText": text}, if_match="*")


def answer_in_turn(emulator: Emulator, *steps: list[tuple[str, int]]) -> None:
    """Let the next polls find a running operation, each with some steps under way: name and percentage."""
    for under_way in steps:
        found = [
            {
                "id": name.lower(),
                "stepName": name,
                "status": "complete" if percentage == 100 else "inProgress",
                "progressPercentage": percentage,
            }
            for name, percentage in under_way
        ]
        body = json.dumps({"status": "running", "messages": [], "steps": found})
        emulator.inject(path="/operations/", replace={"body": body})


def clear_faults(emulator: Emulator) -> None:
    """Let everything go well from now on."""
    emulator._control("DELETE", "faults")


def deferral(task: Any, context: dict[str, Any]) -> TaskDeferred:
    """Execute a task up to its deferral."""
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(context)
    return deferred.value


def event_of(deferred: TaskDeferred) -> Any:
    """Run the trigger as the triggerer does, from its serialized form. Return the payload of its event."""
    path, kwargs = deferred.trigger.serialize()
    module, _, name = path.rpartition(".")
    trigger = getattr(import_module(module), name)(**json.loads(json.dumps(kwargs)))

    async def run() -> Any:
        events = [event.payload async for event in trigger.run()]
        assert len(events) == 1
        return events[0]

    payload = asyncio.run(asyncio.wait_for(run(), 60))
    return json.loads(json.dumps(payload))


def resume(task: Any, context: dict[str, Any], deferred: TaskDeferred) -> Any:
    """Run the trigger, and the task as a worker does when the event is there."""
    return task.resume_execution(deferred.method_name, {"event": event_of(deferred)}, context)


def finish(task: Any, context: dict[str, Any]) -> Any:
    """Execute a task to its end, deferred in between or not, and return its result."""
    try:
        return task.execute(context)
    except TaskDeferred as deferred:
        return resume(task, context, deferred)


class Log(logging.Handler):
    """All that is logged, by the standard library or by structlog, which newer versions of Airflow use."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._reactions: list[tuple[str, Callable[[], Any]]] = []

    def react(self, words: str, reaction: Callable[[], Any]) -> None:
        """Do something, once, when a line with some words is logged; who logs it waits for that."""
        self._reactions.append((words, reaction))

    def containing(self, words: str) -> list[str]:
        return [line for line in self.lines if words in line]

    def emit(self, record: logging.LogRecord) -> None:
        self._add(record.getMessage())

    def process(self, _: Any, __: str, event: Any) -> Any:
        """A processor of structlog."""
        self._add(str(event.get("event")))
        return event

    def _add(self, line: str) -> None:
        self.lines.append(line)
        due = [reaction for words, reaction in self._reactions if words in line]
        self._reactions = [(words, reaction) for words, reaction in self._reactions if words not in line]
        for reaction in due:
            reaction()
