"""Names of mapped task instances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

#: The default `map_index_template`.
NAME = "{{ task.subject }}"


class NameMixin:
    """Name the mapped instances of a task in the grid by their offers."""

    publisher_id: str | None
    offer_id: str

    @property
    def subject(self) -> str:
        """The offer as `publisher/offer`."""
        return "/".join(str(part) for part in (self.publisher_id, self.offer_id) if part)

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Map the operator, as `partial` of every operator does.

        Before 3.3, Airflow does not read the default of `map_index_template` from the operator's signature.
        """
        return super().partial(**{"map_index_template": NAME} | kwargs)  # type: ignore[misc]

    def pre_execute(self, context: Context) -> None:
        """Make the rendered task available to `map_index_template`."""
        # Airflow 3.0 puts the task there before it renders the templates.
        context["task"] = self  # type: ignore[typeddict-item]
        super().pre_execute(context)  # type: ignore[misc]
