"""A pytest plugin: the whole suite with every logger at DEBUG, and a search for every secret that it used.

    python -m pytest -p tests.security.leak_plugin

After each test, all that was logged at any level, written to standard output and standard error, raised, or
stored of a trigger is searched for the secrets, assertions and tokens that were sent meanwhile. A test that
leaks one fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.security.searching import Secrets

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Tests of what leaks elsewhere than in the provider; what they find is their own affair.
EXCEPT = ("tests/security/",)


class LeakSearch:
    """Records while tests run."""

    def __init__(self) -> None:
        from tests.security.recording import recording

        self._context = recording()
        self.recording = self._context.__enter__()
        self.secrets = self.texts = self.size = 0
        self.leaks: dict[str, list[str]] = {}

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        from tests.provider.harness import SIGNATURE

        self.recording.clear()
        self.recording.secrets = Secrets()
        self.recording.secrets.add("SAS signature", SIGNATURE)
        yield

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: Any) -> Iterator[None]:
        outcome: Any = yield
        report = outcome.get_result()
        if call.when != "teardown" or item.nodeid.startswith(EXCEPT):
            return
        places = self.recording.places() + [(f"{name} of pytest", text) for name, text in report.sections]
        self.secrets += len(self.recording.secrets.known)
        self.texts += len(places)
        self.size += sum(len(text) for _, text in places)
        if hits := self.recording.secrets.find_all(places):
            self.leaks[item.nodeid] = hits
            report.outcome, report.longrepr = "failed", "\n".join(hits)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.section("search for secrets")
        terminalreporter.line(
            f"{self.secrets} secrets, assertions and tokens, each in all its forms, were searched in "
            f"{self.texts} texts of {self.size / 1e6:.1f} MB: found in {len(self.leaks)} tests."
        )

    def pytest_unconfigure(self) -> None:
        self._context.__exit__(None, None, None)


def pytest_collection(session: pytest.Session) -> None:
    """Begin when Airflow's folder is set, as conftest does."""
    session.config.pluginmanager.register(LeakSearch(), "leak-search")
