"""Render template fields without changing text: what operators and sensors share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import mask_secret

from airflow_provider_cpp.core.redaction import find_secrets

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import jinja2
    from airflow.providers.common.compat.sdk import Context


class TemplateMixin:
    """Keep text that is not a template, and text that is the value of a template; mask credentials.

    Jinja changes line breaks, even in text without a template. With `render_template_as_native_obj=True`,
    Airflow also evaluates each rendered text as a Python literal: the plan id `1.10` becomes the number 1.1.
    Here, text without a template does not change. If the value of a template is text that looks like a
    number, it stays text; if the value is a number, a list or an object, it keeps its type.

    Airflow stores and shows rendered fields. `mask_secret` makes it mask the credentials in these fields,
    such as the signature of a SAS URL.
    """

    def _do_render_template_fields(
        self,
        parent: Any,
        template_fields: Iterable[str],
        context: Context,
        jinja_env: jinja2.Environment,
        seen_oids: set[int],
    ) -> None:
        super()._do_render_template_fields(  # type: ignore[misc]
            parent, template_fields, context, jinja_env, seen_oids
        )
        for name in template_fields:
            for secret in find_secrets(getattr(parent, name, None)):
                mask_secret(secret)

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Render a template, and return text without a template unchanged. Nested values get here, too."""
        jinja_env = jinja_env or self.get_template_env()  # type: ignore[attr-defined]
        if isinstance(content, str) and not _is_template(content, jinja_env, self.template_ext):  # type: ignore[attr-defined]
            return content
        return super().render_template(content, context, jinja_env, seen_oids)  # type: ignore[misc]

    def _render(self, template: jinja2.Template, context: Context, dag: Any = None) -> Any:
        values: list[Any] = []
        render = template.root_render_func

        def recorded(jinja_context: Any) -> Iterator[Any]:
            for value in render(jinja_context):
                values.append(value)
                yield value

        template.root_render_func = recorded
        rendered = super()._render(template, context, dag=dag)  # type: ignore[misc]
        is_text = len(values) != 1 or isinstance(values[0], str)
        if is_text and not isinstance(rendered, str | bool | list | dict | None):
            return "".join(map(str, values))
        return rendered


def _is_template(text: str, env: jinja2.Environment, extensions: Any) -> bool:
    signs = (
        env.variable_start_string,
        env.block_start_string,
        env.comment_start_string,
        env.line_statement_prefix,
        env.line_comment_prefix,
    )
    return any(sign in text for sign in signs if sign) or text.endswith(tuple(extensions))
