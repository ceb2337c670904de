"""`fl-client`: what a device's owner can do. Each command lives in a module of its own and is mounted here."""

from common.console import command_line, run_command_line
from fl_client.capture_commands import capture
from fl_client.data_commands import data
from fl_client.personalise_commands import personalise
from fl_client.policy_commands import policy
from fl_client.privacy_commands import privacy
from fl_client.take_part import take_part
from fl_client.webcam_commands import webcam

app = command_line("Train on this device's own faces under differential privacy, and use the published model.")
app.callback(invoke_without_command=True)(take_part)
app.command()(privacy)
app.command()(policy)
app.command()(webcam)
app.command()(capture)
app.command()(personalise)
app.add_typer(data, name="data")


def main() -> None:
    """Entry point of `fl-client`."""
    run_command_line(app)
