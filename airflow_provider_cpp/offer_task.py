"""Behavior that all operators and sensors of this provider share."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any

from airflow_provider_cpp.arguments import check_argument, check_literal, is_empty, is_reference
from airflow_provider_cpp.core.errors import AuthenticationError, CloudPartnerError
from airflow_provider_cpp.exceptions import PERMANENT_ERRORS, fail_at_once
from airflow_provider_cpp.version_compat import AIRFLOW_V_3_3_PLUS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    import jinja2
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

#: Name of the instances of a mapped task in the grid, unless the Dag sets `map_index_template`.
MAP_INDEX_TEMPLATE = "{{ task.subject }}"


class _Unset:
    """Marks an argument that a mapped task group passes to its tasks, but that the Dag did not give."""

    def __repr__(self) -> str:
        return "(default)"


UNSET = _Unset()


class OfferTask:
    """Mixin of the operators and sensors: argument checks, names, the hook, and errors without retries."""

    task_id: str
    template_fields: Collection[str]
    cloud_partner_conn_id: Any
    publisher_id: Any = None
    offer_id: Any

    # Messages on arguments that a template or another task set to None or to blank text.
    _empty_arguments: tuple[str, ...] = ()

    def __init__(self, **kwargs: Any) -> None:
        # Airflow passes the merged `default_args` to each constructor.
        self._dag_defaults: Mapping[str, Any] = kwargs.get("default_args") or {}
        super().__init__(**kwargs)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "execute" in vars(cls):
            cls.execute = _with_checks(cls.execute)  # type: ignore[attr-defined]

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Map over the arguments that `expand` gets; check the others now."""
        arguments = {name: check_literal(name, value) for name, value in kwargs.items()}
        if not AIRFLOW_V_3_3_PLUS:
            # Later versions read the default from the operator's signature.
            arguments.setdefault("map_index_template", MAP_INDEX_TEMPLATE)
        return super().partial(**arguments)  # type: ignore[misc]

    @cached_property
    def hook(self) -> CloudPartnerHook:
        """The hook for this task's connection."""
        # Not at the top: the Dag processor imports operators, but needs no HTTP library.
        from airflow_provider_cpp.hooks.cloud_partner import CloudPartnerHook

        return CloudPartnerHook(self.cloud_partner_conn_id)

    @property
    def subject(self) -> str:
        """The offer as `publisher/offer`, for the grid, the log and errors."""
        return "/".join(str(part) for part in (self.publisher_id, self.offer_id) if part)

    def pre_execute(self, context: Context) -> None:
        """Let `map_index_template` refer to this task."""
        # On Airflow 3.0 the context has the task before its templates were rendered.
        context["task"] = self  # type: ignore[typeddict-item]
        super().pre_execute(context)  # type: ignore[misc]

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Continue after the deferral; permanent errors fail the task at once."""
        with self._fail_permanent_errors_at_once():
            return super().resume_execution(next_method, next_kwargs, context)  # type: ignore[misc]

    def _do_render_template_fields(
        self,
        parent: Any,
        template_fields: Iterable[str],
        context: Context,
        jinja_env: jinja2.Environment,
        seen_oids: set[int],
    ) -> None:
        # Airflow calls this method for tasks and for the instances of mapped tasks alike.
        render = super()._do_render_template_fields  # type: ignore[misc]
        if parent is not self:
            render(parent, template_fields, context, jinja_env, seen_oids)
            return
        given = {name: getattr(self, name) for name in self.template_fields}
        literals = {name for name, value in given.items() if self._is_literal(name, value, context)}
        render(parent, template_fields, context, jinja_env, seen_oids)
        empty = []
        for name, template in given.items():
            value = getattr(self, name)
            # A mapped task group passes an argument on even if the Dag gives no value for it.
            if value is UNSET or (value is None and name in literals):
                template = self._default_of(name)
                value = self.render_template(template, context, jinja_env)
                setattr(self, name, value)
                if template is None:
                    continue
            # Jinja renders None as text.
            is_none_text = value == "None" and isinstance(template, str) and template != value
            if is_none_text or is_empty(value):
                empty.append(
                    f"{name} of {self.task_id} must not be empty, but a template or another task set it to "
                    f"{value!r}. No request was sent. Correct the source of the value, or omit {name} to use "
                    "its default."
                )
        self._empty_arguments = tuple(empty)
        if not empty:
            self._name_default_publisher()

    def _is_literal(self, name: str, value: Any, context: Context) -> bool:
        """Return whether a value of an argument is in the Dag file itself."""
        if is_reference(value):
            # In a mapped task group, the value is a reference to an argument of `expand`.
            expanded, name = getattr(value, "_input", None), getattr(value, "_key", name)
            return expanded is not None and not _is_from_task(expanded, name, context)
        if value is not None:
            return False
        # Airflow resolves the arguments of a mapped task before it creates the task.
        mapped = self.dag.task_dict.get(self.task_id) if self.has_dag() else None  # type: ignore[attr-defined]
        expanded = getattr(mapped, "expand_input", None)
        return expanded is None or not _is_from_task(expanded, name, context)

    def _default_of(self, name: str) -> Any:
        """Return the value of an argument that the Dag does not give."""
        if name in self._dag_defaults:
            return self._dag_defaults[name]
        default = inspect.signature(type(self)).parameters[name].default
        return None if default is inspect.Parameter.empty else default

    def _name_default_publisher(self) -> None:
        """Use the connection's publisher if the Dag names none, so that `subject` is complete early."""
        if self.publisher_id is not None or "publisher_id" not in self.template_fields:
            return
        from airflow.providers.common.compat.sdk import BaseHook

        from airflow_provider_cpp.transport.settings import Settings

        # `execute` reads the connection again and reports the error, if there is one.
        with suppress(Exception):
            connection = BaseHook.get_connection(self.cloud_partner_conn_id)
            self.publisher_id = Settings.from_connection(connection, connection.extra_dejson).publisher_id

    def _check_rendered_arguments(self) -> None:
        """Check the templated arguments before the first request.

        :raises ValueError: an argument is empty or not possible
        """
        if self._empty_arguments:
            raise fail_at_once(ValueError(" ".join(self._empty_arguments)))
        for name in self.template_fields:
            value = getattr(self, name)
            setattr(self, name, check_argument(name, self._default_of(name) if value is None else value))

    @contextmanager
    def _fail_permanent_errors_at_once(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, CloudPartnerError) as error:
            if not self._is_permanent(error):
                raise
            raise fail_at_once(error) from error.__cause__ or error.__context__

    def _is_permanent(self, error: Exception) -> bool:
        """Return whether only a change of the Dag, the offer or the connection can cure an error."""
        if isinstance(error, AuthenticationError) and error.unavailable:
            return False
        return isinstance(error, PERMANENT_ERRORS)


def _with_checks(execute: Callable[..., Any]) -> Callable[..., Any]:
    """Check the arguments before `execute`, and let permanent errors fail the task at once."""

    @wraps(execute)
    def checked(self: OfferTask, *args: Any, **kwargs: Any) -> Any:
        with self._fail_permanent_errors_at_once():
            self._check_rendered_arguments()
            return execute(self, *args, **kwargs)

    return checked


def _is_from_task(expanded: Any, name: str, context: Context) -> bool:
    """Return whether `expand` or `expand_kwargs` takes an argument from the result of another task."""
    values = expanded.value
    if isinstance(values, Mapping):
        return is_reference(values.get(name))
    # Airflow accepts a list of dicts, a task that returns one, and a list with tasks that return a dict.
    index = context["ti"].map_index or 0
    if is_reference(values):
        return name in values.resolve(context)[index]
    return is_reference(values[index]) and name in values[index].resolve(context)
