"""A pytest plugin: run the test suite with every logger at DEBUG, and search for the secrets that it used.

    python -m pytest -p tests.security.leak_plugin

After each test, the plugin searches all log records, standard output, standard error, exceptions and stored
triggers for the secrets, assertions and tokens that the test sent, and for the SAS signature of the seed. A
test that leaks one of them fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.security.searching import Secrets

if TYPE_CHECKING:
    from collections.abc import Iterator

#: These tests leak secrets on purpose, outside the provider, and check their findings themselves.
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
    """Start after conftest has set the folder of Airflow."""
    session.config.pluginmanager.register(LeakSearch(), "leak-search")
