"""Links from a task instance to the pages of its offer; a task shows each from when it leads somewhere.

Airflow 3 takes a link's address from an XCom, and Airflow 2 asks `get_link` in its web server, which knows
nothing that the task found out. So whichever it is, the task that learns of a page stores its address.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperatorLink

from airflow_provider_cpp.core.text import normalize_status
from airflow_provider_cpp.portal.locations import live_url, offer_in_location, preview_url

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from airflow.providers.common.compat.sdk import BaseOperator, Context

log = logging.getLogger(__name__)

#: Partner Center's page of an offer is named by an id that the API doesn't tell.
PARTNER_CENTER_URL = "https://partner.microsoft.com/dashboard/commercial-marketplace/overview"


class OfferLink(BaseOperatorLink):
    """A page of an offer."""

    @property
    def xcom_key(self) -> str:
        """Where the address is stored; Airflow 3 has it for every link, Airflow 2 for none."""
        return f"_link_{type(self).__name__}"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Return the address that the task stored; an empty text, which shows no link, if it stored none."""
        from airflow.providers.common.compat.sdk import XCom

        return XCom.get_value(ti_key=ti_key, key=self.xcom_key) or ""

    @staticmethod
    def url(publisher_id: str, offer_id: str) -> str:
        """Return the address.

        :raises ValueError: an id can't be part of one
        """
        raise NotImplementedError


class PreviewLink(OfferLink):
    """The listing that only those see who are to judge an offer before it goes live."""

    name = "Preview listing"
    url = staticmethod(preview_url)


class LiveLink(OfferLink):
    """The listing that customers see."""

    name = "Live listing"
    url = staticmethod(live_url)


class PartnerCenterLink(OfferLink):
    """Partner Center, where the publisher's people look after their offers."""

    name = "Partner Center"

    @staticmethod
    def url(publisher_id: str = "", offer_id: str = "") -> str:
        """Return the address of the overview page."""
        return PARTNER_CENTER_URL


PREVIEW, LIVE, PARTNER_CENTER = PreviewLink(), LiveLink(), PartnerCenterLink()


def pages_of(summary: Mapping[str, Any]) -> list[OfferLink]:
    """Return the pages that an offer has by the steps of a wait's summary; what they don't say, it has not.

    :param summary: what `airflow_provider_cpp.core.polling.summarize` returned
    """
    states = {
        normalize_status(word): step["status"]
        for step in summary["steps"]
        for word in (step["id"], step["name"])
    }
    signoff, live = states.get("publishersignoff"), states.get("live", "notStarted")
    # Nothing goes live that was not in preview; a publish that is canceled takes its version out again.
    has_preview = signoff in ("waitingForPublisherReview", "complete") or live != "notStarted"
    return [PREVIEW] * has_preview + [LIVE] * (live == "complete")


class LinksMixin:
    """Show links, for an operator or a sensor."""

    operator_extra_links: Collection[BaseOperatorLink] = (PARTNER_CENTER,)
    # The running task's instance; None where there is no Airflow that could show anything.
    _ti: Any = None

    def pre_execute(self, context: Context) -> None:
        """Show the link that leads somewhere from the start."""
        super().pre_execute(context)  # type: ignore[misc]
        # Airflow 3 would store each when the task ends, those too that lead nowhere.
        self.operator_extra_links = [
            link for link in self.operator_extra_links if not isinstance(link, OfferLink)
        ]
        self._ti = context["ti"]
        self._shown: set[str] = set()
        self._show([PARTNER_CENTER])

    def _show(self, links: Collection[OfferLink], publisher_id: str = "", offer_id: str = "") -> None:
        """Show links to pages of an offer from now on."""
        with self._never_failing():
            for link in links:
                if self._ti is not None and link.xcom_key not in self._shown:
                    self._ti.xcom_push(key=link.xcom_key, value=link.url(publisher_id, offer_id))
                    self._shown.add(link.xcom_key)

    def _show_pages(self, summary: Mapping[str, Any]) -> None:
        """Show links to the pages that there are by a wait's summary."""
        with self._never_failing():
            location = summary.get("location")
            ids = offer_in_location(location) if location else (summary["publisher_id"], summary["offer_id"])
            self._show(pages_of(summary), *ids)

    @contextmanager
    def _never_failing(self) -> Iterator[None]:
        # Whatever keeps a link from being shown, a release doesn't fail for want of it.
        try:
            yield
        except Exception as error:
            log.warning("A link can't be shown: %s: %s", type(error).__name__, error)
