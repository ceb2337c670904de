"""`fl-client policy`: the owner's rules for this device, shown and changed. `fl_client.cli` mounts it."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from common.console import err, out, print_json
from common.errors import ConfigError
from fl_client.node_settings import POLICY
from fl_client.own_home import own_home
from fl_client.policy import Policy
from fl_client.policy_file import change_policy, read_policy
from fl_client.privacy_commands import AsJson, Data, Home, existing_folder


def policy(
    data: Data,
    home: Home = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="A rule and its new value, as largest_epsilon=4; may be given several times."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show this device's own rules, and change them. A device that takes part obeys them from its next message on."""
    where = own_home(existing_folder(data), home)
    rules = change_policy(where.path, dict(_pair(text) for text in changes)) if changes else read_policy(where.path)
    if where.elsewhere:
        told = f"{'Changed' if changes else 'The rules are in'}: {where.path / POLICY}"
        err.print(escape(f"{told}. {where.objection}" if where.objection else told), soft_wrap=True)
    if as_json:
        print_json(rules.model_dump(mode="json"))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("Rule", "Value", "Meaning"):
        table.add_column(title, no_wrap=title == "Rule", overflow="fold")
    for name, field in Policy.model_fields.items():
        own = name in rules.model_fields_set
        table.add_row(name, _shown(getattr(rules, name)), escape(field.description or ""), style="bold" if own else "")
    out.print(table)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set takes a rule and its value, as largest_epsilon=4, not {text!r}.")
    return name.strip(), value


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return escape(", ".join(map(str, value))) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
