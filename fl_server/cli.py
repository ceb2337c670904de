"""The operator's command line, `fl-server`. Each group of commands has a module of its own."""

from typing import NoReturn

from common.console import command_line, run_command_line
from fl_server.device_commands import devices, invite, revoke
from fl_server.export_commands import export
from fl_server.model_commands import models
from fl_server.start_commands import resume, start
from fl_server.status_commands import status, stop

app = command_line("Run federated learning rounds over devices, and publish signed models.")
for command in (start, status, stop, resume, invite, devices, revoke, export):
    app.command()(command)
app.add_typer(models, name="models")


def main() -> NoReturn:
    """Entry point of `fl-server`."""
    run_command_line(app)
