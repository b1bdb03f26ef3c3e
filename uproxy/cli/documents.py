"""Output for scripts: JSON, YAML, names of Services, and kubectl's JSONPath templates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click
import msgspec
from click.shell_completion import CompletionItem

from uproxy.cli.output.services import services_of
from uproxy.core.report.status_format import Filter, StatusView

if TYPE_CHECKING:
    from uproxy.text.jsonpath import Template

_TABLES: Final = ("table", "wide")
_WORDS: Final = (*_TABLES, "json", "yaml", "name")
_JSONPATH: Final = "jsonpath="


class Output(NamedTuple):
    """What `-o` asks for."""

    kind: str
    """One of _WORDS, or "jsonpath"."""
    template: Template | None = None
    """Of "jsonpath"."""

    @property
    def is_table(self) -> bool:
        return self.kind in _TABLES

    @property
    def is_wide(self) -> bool:
        return self.kind == "wide"


class OutputType(click.ParamType[Output]):
    """The formats in which a status can be printed."""

    name = "format"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return f"[{'|'.join(_WORDS)}|jsonpath=TEMPLATE]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Output:
        if isinstance(value, Output):
            return value
        if value in _WORDS:
            return Output(value)
        if not value.startswith(_JSONPATH):
            self.fail(
                f'"{value}" is no output format; use {", ".join(_WORDS)} or jsonpath=TEMPLATE, '
                "as in -o jsonpath='{.frontends[*].service}'",
                param,
                ctx,
            )
        # The library takes 0.06 s to import, which other formats need not wait for.
        from uproxy.text.jsonpath import Template, TemplateError

        try:
            return Output("jsonpath", Template(value.removeprefix(_JSONPATH)))
        except TemplateError as error:
            self.fail(f"the template cannot be used: {error}", param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        return [CompletionItem(each) for each in _WORDS if each.startswith(incomplete)]


def document(
    output: Output, status: StatusView, body: bytes, wanted: Filter, *, one_line: bool = False
) -> str:
    """A status in a format for scripts, without a line end. `body` is its JSON. Raises
    click.UsageError if a template does not fit it."""
    if output.kind == "json":
        return msgspec.json.format(body, indent=-1 if one_line else 2).decode()
    if output.kind == "name":
        found = services_of(status)
        if wanted.state:
            found = {each.service for each in status.frontends}
        return "\n".join(sorted(found))
    content = msgspec.json.decode(body)
    if output.template is None:
        # PyYAML takes 0.05 s to import.
        from uproxy.text.yaml_output import write_yaml

        return ("---\n" if one_line else "") + write_yaml([content]).rstrip("\n")
    from uproxy.text.jsonpath import TemplateError

    try:
        return output.template.render(content)
    except TemplateError as error:
        raise click.UsageError(f"-o: the template cannot be used: {error}") from None
