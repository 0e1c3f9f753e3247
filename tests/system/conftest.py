"""A real Airflow and the emulator, for the tests of whole Dags."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook
from dev.emulator_process import Emulator, running_emulator
from dev.local_airflow import AIRFLOW, LocalAirflow
from dev.local_airflow_2 import LocalAirflow2
from dev.services import PostgreSQL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Page, StorageState

    Keep = Callable[[str], None]

    RunOf = dict[str, tuple[str, str]]

ROOT = Path(__file__).parents[2]
TIME_SCALE = 20
GO_LIVE_SECONDS = 15 * TIME_SCALE
TOKEN_SECONDS = 3

BROWSER_OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    "--disable-sync",
)
#: Milliseconds that a page may take on a busy machine.
PATIENCE = 60_000

PUBLISH_STEPS = ("displaydummycertify", "displaycertify", "displayprovision", "displaypackage")


def _offer(offer_id: str, **more: Any) -> dict[str, Any]:
    return {"id": offer_id, "state": "preview", "stepSeconds": {"live": GO_LIVE_SECONDS}, **more}


def _releasable(offer_id: str, **more: Any) -> dict[str, Any]:
    """An offer that is to be published, and whose steps take a second each."""
    seconds = dict.fromkeys((*PUBLISH_STEPS, "live"), TIME_SCALE)
    return {"id": offer_id, "state": "never-published", "stepSeconds": seconds, **more}


def _failing(step: str, text: str, **more: Any) -> dict[str, Any]:
    return {"fail": {"step": step, "messages": [text], **more}}


MANY = [f"many-{number}" for number in range(4)]
MANY_FAILING = MANY[2]
FIFTY = [f"fifty-{number:02}" for number in range(50)]
#: The offers of `FIFTY` that fail: the step, the service's message as HTML, and its plain text.
FIFTY_FAILING = {
    "fifty-07": ("displaydummycertify", "<p>The <b>logo</b> is missing.</p>", "The logo is missing."),
    "fifty-22": ("displaycertify", "<p>The image <i>has no</i> SSH key.</p>", "The image has no SSH key."),
    "fifty-49": ("displayprovision", "<p>No <u>room</u> in West&nbsp;US.</p>", "No room in West US."),
}

#: The Airflow that a Dag file needs, if it isn't the oldest.
NEEDED = {
    "announce.py": (3, 0),
    "release_calendar.py": (3, 0),
    "approvals.py": (3, 1),
    "release_offer.py": (3, 1),
}

OFFERS = [
    *(_offer(f"contoso-{name}") for name in ("linux", "database")),
    _offer("contoso-classic", migrated=False),
    *(_offer(f"offer-{number}", migrated=number % 2 == 0) for number in range(12)),
    _offer(
        "offer-failing",
        fail={"step": "live", "messages": ["<p>The image <b>has no</b> SSH key.</p>"]},
    ),
    *(_offer(f"offer-{name}", stepSeconds={"live": 3600 * TIME_SCALE}) for name in ("lasting", "watched")),
    # For tests of user actions on a deferred task. The first two groups complete, but only after the action.
    _offer("user-failed-sensor", stepSeconds={"live": 90 * TIME_SCALE}),
    *(
        _offer(f"user-{name}", stepSeconds={"live": 60 * TIME_SCALE})
        for name in (
            *("failed", "succeeded", "succeeded-canceling", "cleared", "cleared-canceling"),
            *("deleted", "paused", "limited", "restarted", "retried"),
        )
    ),
    *(
        _offer(f"user-{name}", stepSeconds={"live": 3600 * TIME_SCALE})
        for name in ("failed-canceling", "failed-canceling-slow", "limited-canceling", "impatient", "stalled")
    ),
    *(_offer(f"killed-{name}") for name in ("before-xcom", "in-request")),
    # Of the example Dags.
    _releasable("contoso-web", state="live", version=3),
    _releasable("contoso-mail"),
    _releasable(
        "contoso-shop", state="live", **_failing("displaycertify", "<p>Not <b>today</b>.</p>", times=1)
    ),
    _releasable("contoso-wiki", state="live", migrated=False),
    # Of the Dags of these tests.
    _releasable("unchanged", state="live"),
    _releasable("unchanged-classic", state="live", migrated=False),
    _releasable("refused", state="live", invalid="No logo."),
    _releasable("uncertified", **_failing("displaycertify", "<p>No <b>logo</b>.</p>")),
    _releasable("contoso-blog", state="live", version=3),
    _releasable("outdated", state="live", version=6),
    _releasable("lane-rejected"),
    _releasable("lane-approved", migrated=False),
    *(
        _releasable(
            offer_id,
            migrated=number % 2 == 0,
            **(
                _failing("displaycertify", "<p>The image <b>has no</b> SSH key.</p>", times=1)
                if offer_id == MANY_FAILING
                else {}
            ),
        )
        for number, offer_id in enumerate(MANY)
    ),
    *(
        _releasable(
            offer_id,
            migrated=number % 3 != 0,
            **(_failing(*FIFTY_FAILING[offer_id][:2]) if offer_id in FIFTY_FAILING else {}),
        )
        for number, offer_id in enumerate(FIFTY)
    ),
]


#: A principal that no publisher has registered.
STRANGER = {
    "tenantId": "11111111-2222-3333-4444-555555555555",
    "clientId": "66666666-7777-8888-9999-000000000001",
    "secret": "the-secret-of-the-stranger",
    "publishers": [],
}


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator whose go-lives take seconds, and whose tokens live for seconds only."""
    seed = tmp_path_factory.mktemp("emulator") / "seed.json"
    principal = {
        "tenantId": "11111111-2222-3333-4444-555555555555",
        "clientId": "66666666-7777-8888-9999-000000000000",
        "secret": "the-secret-of-the-principal",
        "publishers": ["contoso"],
    }
    publisher = {"id": "contoso", "offers": OFFERS}
    seed.write_text(json.dumps({"publishers": [publisher], "principals": [principal, STRANGER]}))
    options = ["--time-scale", str(TIME_SCALE), "--token-lifetime", str(TOKEN_SECONDS)]
    with running_emulator("--seed", str(seed), *options) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def airflow(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    """A real Airflow with the example Dags and the Dags of these tests."""
    home = tmp_path_factory.mktemp("airflow")
    dags = home / "dags"
    dags.mkdir()
    for folder in (ROOT / "example_dags", Path(__file__).parent / "dags"):
        for file in folder.glob("*.py"):
            if NEEDED.get(file.name, AIRFLOW) <= AIRFLOW:
                shutil.copy(file, dags)
    environment = {
        "AIRFLOW_CONN_CLOUD_PARTNER_DEFAULT": json.dumps(emulator.connection),
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        # Seconds. The default of 5 minutes would make failing tasks take a quarter of an hour.
        "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "1",
        "PYTHONPATH": str(ROOT),
    }
    kind = LocalAirflow if AIRFLOW >= (3, 0) else LocalAirflow2
    with _database() as database, kind(home, dags, environment | database) as airflow:
        # Of the example Dag `release_many`.
        airflow.api("POST", "/pools", {"name": "marketplace", "slots": 8})
        yield airflow


@contextmanager
def _database() -> Iterator[dict[str, str]]:
    """Return what leads Airflow to a PostgreSQL of ours; without one on this machine, to its own SQLite.

    With SQLite, what so many tasks write at once is slow, and locked now and then.
    """
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    folder.chmod(0o755)  # PostgreSQL runs as a user of its own
    try:
        server = PostgreSQL(folder / "server")
    except RuntimeError:
        yield {}
        return
    try:
        server.start()
        server.make_database()
        yield {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": server.url}
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium; without one there is no such test, except in CI."""
    found = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    if path := next(found, None):
        return path
    missing = "There is no Chromium for the tests of what people see: `make browser` installs it."
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def signed_in() -> StorageState:
    """The browser state after sign-in; empty until the first page signs in."""
    return {}


@pytest.fixture
def page(chromium: str, airflow: LocalAirflow, signed_in: StorageState) -> Iterator[Page]:
    """An unused, signed-in browser page."""
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=BROWSER_OPTIONS)
        page = browser.new_page(
            locale="en-US", viewport={"width": 1400, "height": 1200}, storage_state=signed_in or None
        )
        page.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        if not signed_in:
            # Before Airflow 3.2, sign-in does not redirect to the requested page.
            page.goto(airflow.url)
            page.get_by_role("link", name="Dags").first.wait_for()
            signed_in.update(page.context.storage_state())
        yield page
        browser.close()


@pytest.fixture
def keep(page: Page, request: pytest.FixtureRequest) -> Keep:
    """Save a screenshot of the page for the documentation if `--screenshots` is set."""
    folder = request.config.getoption("--screenshots")

    def keep(name: str) -> None:
        if folder:
            page.screenshot(path=Path(folder, f"{name}.png"), animations="disabled")

    return keep


@pytest.fixture
def hook(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> CloudPartnerHook:
    """A hook for another user who works on the same offers."""
    monkeypatch.setenv("AIRFLOW_CONN_CLOUD_PARTNER_DEFAULT", json.dumps(emulator.connection))
    return CloudPartnerHook()


#: The description in the draft of `contoso-web`, with markup that the approver must see as plain text.
DESCRIPTION = (
    '<b id="injected">bold</b> <img src="nowhere" onerror="document.title=1"> <script>alert()</script>'
    " [a link](https://injected.example/) ``` ~~~~ <h1>heading</h1>"
)

#: Dag and conf of the runs.
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "example": ("go_live", {}),
    "deferred": ("go_live_then_wait", {"offer": "offer-0"}),
    "deferred, not migrated": ("go_live_then_wait", {"offer": "offer-1"}),
    "in a worker": ("wait_in_a_worker", {"offer": "offer-2"}),
    "in a worker, not migrated": ("wait_in_a_worker", {"offer": "offer-3"}),
    "in the same task": ("wait_in_the_same_task", {"offer": "offer-4"}),
    "in the same task, not migrated": ("wait_in_the_same_task", {"offer": "offer-5"}),
    "mapped": ("mapped", {"offers": ["offer-6", "offer-7"]}),
    "failing": ("go_live_then_wait", {"offer": "offer-failing"}),
    "lasting": ("go_live_then_wait", {"offer": "offer-lasting"}),
    "many": ("release_many", {"offers": MANY}),
    "many, refused": ("release_many", {"offers": ["refused", "unchanged"]}),
    "uncertified": ("release", {"offer": "uncertified"}),
    "unchanged": ("release", {"offer": "unchanged"}),
    "unchanged, not migrated": ("release", {"offer": "unchanged-classic"}),
}
if AIRFLOW >= (3, 1):
    RUNS |= {
        "release": (
            "release_offer",
            {"version": "1.7.0", "url": "https://contoso.blob.core.windows.net/images/web-1.7.0.vhd"},
        ),
        "rejected": ("release_with_approval", {"offer": "contoso-blog"}),
        "outdated": ("release_with_approval", {"offer": "outdated"}),
        "lanes": ("release_many_with_approval", {"offers": ["lane-rejected", "lane-approved"]}),
    }


@pytest.fixture(scope="session")
def runs(airflow: LocalAirflow, emulator: Emulator) -> RunOf:
    """Start all runs of `RUNS` and a backfill in parallel; return Dag id and run id by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_CLOUD_PARTNER_DEFAULT", json.dumps(emulator.connection))
        hook = CloudPartnerHook()
        edit(hook, "contoso-web", description=DESCRIPTION)
        edit(hook, "contoso-blog", description="Your blog, now with comments")
        edit(hook, "outdated", description="First thought")
        edit(hook, "refused", description="Refused by the service")
    started = {name: (dag_id, airflow.trigger(dag_id, conf)) for name, (dag_id, conf) in RUNS.items()}
    if AIRFLOW >= (3, 0):  # before, a backfill is a process that runs tasks by itself
        airflow.backfill("release_calendar", "2026-03-01", "2026-03-03")
    return started


def edit(hook: CloudPartnerHook, offer_id: str, **fields: Any) -> None:
    """Change an offer's draft."""
    offer = hook.get_offer(offer_id)
    changed = {**offer.raw, "definition": {**offer.definition, **fields}}
    hook.put_offer(offer_id, changed, if_match=offer.etag or "*")
