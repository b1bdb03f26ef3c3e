"""Prints the JSON schema of the configuration file: python -m uproxy.cli.config_schema"""

from __future__ import annotations

import json

import click

from uproxy.cli.flags import config_options
from uproxy.config.fields import FIELDS
from uproxy.config.schema import config_schema


def main() -> None:
    """Write what docs/uproxy-config.schema.json has to be."""
    click.echo(schema_text(), nl=False)


def schema_text() -> str:
    """The schema, with the help texts of the flags."""
    command = click.command("run")(config_options(lambda **_: None))
    texts = {
        each.name: each.help or ""
        for each in command.params
        if isinstance(each, click.Option) and each.name in FIELDS
    }
    return json.dumps(config_schema(texts), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
