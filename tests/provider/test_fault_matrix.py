"""Every fault of docs/faults.md with every kind of task; the expected outcomes are read from its tables.

Each cell asserts the outcome, how many requests had an effect, that no other host was contacted, and that
a retry of the task without the fault succeeds with exactly one effect in total.
"""

from __future__ import annotations

import json
import re
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from harness import TIME_SCALE, Connect, Log, finish, operations, state_of

from airflow_provider_cpp.core import polling
from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
from airflow_provider_cpp.operators.cloud_partner import CancelOperator, GoLiveOperator, PublishOperator
from airflow_provider_cpp.release import lookup, submission
from airflow_provider_cpp.sensors.cloud_partner import OperationSensor
from airflow_provider_cpp.transport import credentials
from dev.emulator_process import Emulator, running_emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Context = dict[str, Any]
Rule = dict[str, Any]
Start = "Callable[..., Emulator]"

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"

#: In a rule, the address of another host.
ELSEWHERE = "{elsewhere}"
HTML = "<html><h1>Bad gateway</h1></html>"
BARE = '"Something failed."'
LATER = {"Retry-After": "0"}
#: Seconds that a request may take in the rows about latency, and two times that an answer takes there.
TIMEOUT, SLOW, TOO_SLOW = 0.3, 0.1, 0.5


def status(number: int, body: str = "") -> list[Rule]:
    """Once without Retry-After; where it lasts, with it."""
    answer = {"status": number, "body": body}
    return [answer, answer | {"headers": LATER}]


def redirect(location: str, *numbers: int) -> list[Rule]:
    return [{"status": number, "headers": {"Location": location}} for number in numbers]


def body(text: str) -> list[Rule]:
    return [{"replace": {"body": text}}]


def headers(**values: str | None) -> list[Rule]:
    """Replace headers of the answer; an underscore is a hyphen."""
    return [{"replace": {"headers": {name.replace("_", "-"): value for name, value in values.items()}}}]


#: What any request may be answered. Of two rules, the second is that of a fault that lasts.
ANSWERS: dict[str, list[Rule]] = {
    "slow response": [{"delay": SLOW}],
    "no response within the connection's `timeout`": [{"delay": TOO_SLOW}],
    "connection closed before the request was processed": [{"close": "before"}],
    "400": status(400, BARE),
    "401": status(401),
    "403": status(403),
    "404": status(404),
    "408": status(408),
    "409": status(409),
    "412": status(412),
    "418, or another undocumented code": status(418),
    "422": status(422),
    "429": status(429),
    "500": status(500, BARE),
    "502": status(502, HTML),
    "503 without Retry-After": [{"status": 503}],
    "503 with Retry-After": [{"status": 503, "headers": LATER}],
    "504": status(504, HTML),
    "599, or another undocumented code": status(599),
    "redirect to another host": redirect(f"{ELSEWHERE}/api/publishers", 307, 302),
    "redirect to the same host": redirect("{host}/api/publishers", 308, 301),
    "HTML": body(HTML),
    "a JSON string instead of an object": body(BARE),
    "invalid JSON": body('{"status":'),
    "an empty body": body(""),
    "a JSON array of wrong items": body('["succeeded"]'),
    "a truncated response": [{"truncate": 1}],
    "200 with a proxy's page, request not processed": [{"status": 200, "body": HTML}],
}
#: The same for a lookup, without the timeouts: all requests share that code.
QUESTIONS = {name: rules for name, rules in ANSWERS.items() if not name.startswith("no response")}

#: Responses to a request that starts an operation, after the request had its effect.
AFTER_THE_EFFECT: dict[str, list[Rule]] = {
    "connection closed": [{"close": "after"}],
    "408": [{"replace": {"status": 408}}],
    "500": [{"replace": {"status": 500, "body": BARE}}],
    "502": [{"replace": {"status": 502, "body": HTML}}],
    "503 without Retry-After": [{"replace": {"status": 503}}],
    "503 with Retry-After": [{"replace": {"status": 503, "headers": LATER}}],
    "504": [{"replace": {"status": 504, "body": HTML}}],
    "redirect to another host": [
        {"replace": {"status": 302, "headers": {"Location": f"{ELSEWHERE}{{location}}"}}}
    ],
    "202 without Location": headers(Location=None),
    "`Operation-Location` instead, relative": headers(Operation_Location="{location}", Location=None),
    "`Operation-Location` instead, absolute": headers(Operation_Location="{host}{location}", Location=None),
    "`Operation-Location` instead, on another host": headers(
        Operation_Location=f"{ELSEWHERE}{{location}}", Location=None
    ),
    "absolute Location on the same host": headers(Location="{host}{location}"),
    "absolute Location on another host": headers(Location=f"{ELSEWHERE}{{location}}"),
    "a Location that is not an operation": headers(Location="/api/publishers"),
}

LIST, POLL, STATUS = "/submissions/", "/operations/", "/status$"
TOKEN, DISCOVERY = "/oauth2/v2.0/token$", "/openid-configuration$"
#: Instead of a path: the task's request (of a wait, the poll).
OWN = "OWN"


@dataclass(frozen=True)
class Trouble:
    """A fault that affects more than one kind of request.

    :param rules: with paths; a rule without a count applies three times, or lasts
    :param arguments: command-line arguments of the emulator
    :param revoke: whether the test revokes all tokens after a response with status 500
    :param refused: whether the host refuses connections
    :param fresh: whether the operation to cancel is a go-live that has only just started
    """

    rules: list[Rule] = field(default_factory=list)
    arguments: tuple[str, ...] = ()
    revoke: bool = False
    refused: bool = False
    fresh: bool = False


def token(path: str = TOKEN, **fault: Any) -> Trouble:
    return Trouble([{"path": path, **fault}])


LOST: Rule = {"path": OWN, "close": "after", "count": 1}


def late(path: str, *more: Rule, minutes: float = 3) -> Trouble:
    return Trouble([*more, {"path": path, "lag": 60 * minutes, "count": None}], fresh=True)


REFUSAL = json.dumps(
    {"error": "invalid_client", "error_description": "AADSTS7000222: The client secret expired."}
)
PAUSED = {"status": "paused", "submissionState": "paused"}
TROUBLES: dict[str, Trouble] = {
    "connection refused": Trouble(refused=True),
    "tokens are revoked": Trouble([{"path": f"{LIST}|{POLL}", "status": 500, "count": 1}], revoke=True),
    "tokens are refused before they expire": Trouble(
        [{"path": OWN, "delay": 0.6, "count": 1}], ("--token-valid", "0.5")
    ),
    "token lifetime of two seconds": Trouble(arguments=("--token-lifetime", "2")),
    "token endpoint: 503": token(status=503, headers=LATER),
    "token endpoint: 429": token(status=429, headers=LATER),
    "token endpoint: connection closed": token(close="before"),
    "token endpoint: HTML": token(replace={"body": HTML}),
    "token endpoint: 401, the secret is refused": token(status=401, body=REFUSAL),
    "discovery of the token endpoint: 503": token(DISCOVERY, status=503),
    "discovery of the token endpoint: 429": token(DISCOVERY, status=429),
    "the service's clock is two hours ahead, a response is lost": Trouble([LOST], ("--clock-offset", "7200")),
    "the service's clock is two hours behind, a response is lost": Trouble(
        [LOST], ("--clock-offset", "-7200")
    ),
    "an undocumented status in every response": Trouble(
        [{"path": f"{LIST}|{POLL}|{STATUS}", "replace": {"json": PAUSED}}]
    ),
    "the list is three minutes behind": late(LIST),
    "the list is three minutes behind, the response is lost": late(LIST, LOST),
    "the operation is missing for three minutes": late(POLL),
    "the operation is missing for three minutes, the response is lost": late(POLL, LOST),
    "list and operations are three minutes behind": late(f"{LIST}|{POLL}"),
    "list and operations are three minutes behind, the response is lost": late(f"{LIST}|{POLL}", LOST),
    "the list is hours behind, the response is lost": late(LIST, LOST, minutes=1_000_000),
}

REQUESTS, EFFECTS, ASKED, AROUND = (
    "Request or poll",
    "Response after the request had its effect",
    "Lookup before the request",
    "Authentication, clocks and stale data",
)
RULES: dict[str, dict[str, Any]] = {
    REQUESTS: ANSWERS,
    EFFECTS: AFTER_THE_EFFECT,
    ASKED: QUESTIONS,
    AROUND: TROUBLES,
}
VERBS = {"go live": "golive", "publish": "publish", "cancel": "cancel"}

# --- the tables ---


@dataclass(frozen=True)
class Cell:
    """The expected outcome of a fault that occurs once (in a wait or a lookup, three times) or that lasts."""

    section: str
    fault: str
    column: str
    lasts: bool
    outcome: str
    begun: bool

    def __str__(self) -> str:
        return f"{self.fault}, {'lasting' if self.lasts else 'once'}: {self.column}"


def tables() -> dict[str, list[tuple[str, dict[str, str]]]]:
    """The rows by section: the fault, and the cells by column."""
    found: dict[str, list[tuple[str, dict[str, str]]]] = {}
    section, columns = "", []
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            section, columns = line[3:], []
        elif section in RULES and line.startswith("|") and "---" not in line:
            first, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            if columns:
                row = dict(zip(columns, cells, strict=True))
                found.setdefault(section, []).extend((fault, row) for fault in first.split("; "))
            columns = columns or cells
    return found


def cells() -> Iterator[Cell]:
    for section, rows in tables().items():
        for fault, row in rows:
            for column, text in row.items():
                ends = [] if text == "—" else text.split(" / ")
                if ends == ["succeeds"] and can_last(RULES[section].get(fault, [])):
                    ends *= 2
                for lasts, end in zip((False, True), ends, strict=False):
                    named = re.fullmatch(r"`?(\w+)`?(, started)?", end)
                    assert named, f"{fault}, {column}: {end!r}"
                    yield Cell(
                        section, fault, column, lasts, named[1], named[1] == "succeeds" or bool(named[2])
                    )


def can_last(rules: list[Rule] | Trouble) -> bool:
    return isinstance(rules, list) or any("count" not in rule for rule in rules.rules)


def cases() -> Iterator[Any]:
    """Each cell with the kinds of offers and of waiting that it holds for."""
    for cell in cells():
        ways = ("deferred", "in a worker") if cell.column == "wait" else ("",)
        if "discovery" in cell.fault and ways[1:]:
            ways = ways[1:]  # in the triggerer, azure-identity doesn't ask for it
        kinds = ("", "-classic") if cell.section == EFFECTS or " behind" in cell.fault else ("",)
        # Lasting faults are the slower half of the table.
        marks = [pytest.mark.long] if cell.lasts else []
        for number, way in enumerate(ways):
            # For waits and lasting faults, half of the combinations are enough.
            half = kinds[number : number + 1] or kinds if len(ways) > 1 else kinds[: 1 if cell.lasts else 2]
            for kind in half:
                words = " ".join(filter(None, (str(cell), way, kind.strip("-"))))
                yield pytest.param(cell, way == "deferred", kind, marks=marks, id=words)


# --- the world ---


@pytest.fixture(autouse=True)
def shorter_delays(short_delays: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry after a hundredth of a second; disable azure-identity's own retries, which take seconds."""
    for module, name in ((lookup, "SHORT_DELAYS"), (lookup, "LONG_DELAYS"), (submission, "CANCELING_DELAYS")):
        quick = tuple(0.02 if seconds else 0.0 for seconds in getattr(module, name))
        monkeypatch.setattr(module, name, quick)
    monkeypatch.setattr(lookup, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(credentials, "_IDENTITY_RETRIES", 0)


@pytest.fixture(scope="module")
def start(seed_file: str, shared_emulator: Emulator) -> Iterator[Callable[..., Emulator]]:
    """Starts emulators, one for each list of arguments."""
    with ExitStack() as running:

        @cache
        def with_arguments(*arguments: str) -> Emulator:
            own = ("--seed", seed_file, "--time-scale", str(TIME_SCALE), *arguments)
            return running.enter_context(running_emulator(*own)) if arguments else shared_emulator

        yield with_arguments


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[socket.socket]:
    """Another host that accepts connections, to which no task may connect."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


def closed_port_url() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"https://localhost:{listener.getsockname()[1]}"


class Tried:
    """A task of a cell, and its effects at the service."""

    def __init__(self, cell: Cell, emulator: Emulator, context: Context, deferred: bool, kind: str) -> None:
        self._cell = cell
        self._emulator = emulator
        self._context = context
        self.verb = VERBS.get(cell.column, "golive")
        self._type = "publish" if cell.column == "publish" else "goLive"
        fresh = cell.section == AROUND and TROUBLES[cell.fault].fresh
        offers = {"publish": "next-slow", "cancel": "slow" if fresh else "going-live", "wait": "quick"}
        self.offer = offers.get(cell.column, "slow") + kind
        #: The task itself starts the operation that it waits for.
        self.is_one_task = cell.column != "wait" or cell.section == EFFECTS
        # If the cell expects a timeout, the wait must end soon.
        limit = 0.4 if cell.outcome == "AirflowSensorTimeout" else 20
        patience = {"poke_interval": 0.01, "max_wait": 0.05, "timeout": limit}
        named = {"task_id": "task", "offer_id": self.offer}
        if cell.column == "cancel":
            if fresh:
                CloudPartnerHook().go_live(self.offer)
            self._make = lambda: CancelOperator(**named, **patience)
        elif cell.column == "publish":
            self._make = lambda: PublishOperator(**named)
        elif self.is_one_task:
            wait = cell.column == "wait"
            self._make = lambda: GoLiveOperator(
                **named, **patience, wait_for_completion=wait, deferrable=deferred
            )
        else:
            location = CloudPartnerHook().go_live(self.offer)
            self._make = lambda: OperationSensor(
                task_id="task", operation_location=location, deferrable=deferred, **patience
            )

    @property
    def effects(self) -> int:
        """How many requests of the task had an effect, from the journal of the emulator."""
        posts = self._emulator.requests(method="POST", path=f"/{self.verb}$")
        return sum(post["effect"] for post in posts)

    def run(self) -> str:
        """Execute it to its end as Airflow does; return `succeeds`, or the name of the error."""
        try:
            result = finish(self._make(), self._context)
        except Exception as error:  # the table names the expected one
            return type(error).__name__
        (latest, *_) = operations(self._emulator, self.offer, self._type)
        if self._cell.column == "cancel":
            assert latest["submissionState"] == "canceled"
            return "succeeds"
        assert (result["location"] if isinstance(result, dict) else result) == latest["location"]
        if self._cell.column == "wait":
            assert state_of(self._emulator, self.offer) == "completed"
        return "succeeds"

    def inject(self, rule: Rule, elsewhere: str) -> None:
        """Inject a fault into the requests of the task."""
        where: Rule = {"method": "POST", "path": f"/{self.verb}$"}
        times = 1
        if not self.is_one_task:
            where, times = {"path": POLL}, 3
        if self._cell.section == ASKED:
            where, times = {"method": "GET", "path": "^/api/"}, 3
        if rule.get("path", OWN) != OWN:
            where, times = {"path": rule["path"]}, 3
        count = {"count": None if self._cell.lasts else times}
        fault = json.dumps({**count, **rule, **where}).replace(ELSEWHERE, elsewhere)
        self._emulator.inject(**json.loads(fault))


# --- the tests ---


def test_every_table_row_has_rules_and_every_rule_has_a_row() -> None:
    assert {section: sorted(fault for fault, _ in rows) for section, rows in tables().items()} == {
        section: sorted(rules) for section, rules in RULES.items()
    }


@pytest.mark.parametrize(("cell", "deferred", "kind"), list(cases()))
def test_fault_has_the_documented_outcome(
    start: Callable[..., Emulator],
    connect: Connect,
    context: Context,
    elsewhere: socket.socket,
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
    cell: Cell,
    deferred: bool,
    kind: str,
) -> None:
    rules = RULES[cell.section][cell.fault]
    trouble = rules if isinstance(rules, Trouble) else Trouble([rules[-1 if cell.lasts else 0]])
    emulator = start(*trouble.arguments)
    emulator.reset()
    connect(emulator)
    if cell.lasts:
        monkeypatch.setattr(polling, "NOT_FOUND_SECONDS", 0.3)
    task = Tried(cell, emulator, context, deferred, kind)
    for rule in trouble.rules:
        task.inject(rule, f"https://127.0.0.1:{elsewhere.getsockname()[1]}")
    delay = max((rule.get("delay", 0) for rule in trouble.rules), default=0)
    hurry = {"extra": {"timeout": TIMEOUT}} if delay and cell.section != AROUND else {}
    connect(emulator, **hurry, **({"host": closed_port_url()} if trouble.refused else {}))
    if trouble.revoke:
        log.react("was answered 500", emulator.revoke_tokens)

    outcome = task.run()
    time.sleep(delay)  # for a request that the service handles after the client's timeout

    begun = cell.begun or (cell.column == "wait" and not task.is_one_task)
    assert (outcome, task.effects) == (cell.outcome, int(begun))
    if trouble.rules:
        assert any(request["fault"] for request in emulator.requests()), "nothing met the fault"
    emulator.clear_faults()
    connect(emulator)
    assert (task.run(), task.effects) == ("succeeds", 1)
    with pytest.raises(BlockingIOError):
        elsewhere.accept()
