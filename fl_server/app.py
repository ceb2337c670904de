"""The ServerApp, the same in simulation and deployment: hands the grid to the run's rounds."""

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.arrays import Arrays
from fl_server.rounds import Rounds


def build_server_app(rounds: Rounds, weights: Arrays | None = None) -> ServerApp:
    """A ServerApp that executes `rounds`, from `weights` where there is no checkpoint yet."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        rounds.execute(grid, weights)

    return app
