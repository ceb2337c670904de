"""Flower's own web application, set up so that it trusts nobody without a token. `fl_server.superlink` serves it.

flwr 1.41.0 is pinned; `tests/fl_server/test_superlink.py` holds it to what is relied on here.
"""

import hmac
import secrets
from collections.abc import Sequence

from flwr.common.constant import ACCESS_TOKEN_KEY, NOOP_ACCOUNT_NAME, NOOP_FLWR_AID, TRANSPORT_TYPE_GRPC_RERE
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.auth.typing import AccountInfo
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.main import create_app
from starlette.types import ASGIApp


def build_app(factory: LinkStateFactory, admin_token: str) -> ASGIApp:
    """The application over a state of ours; `admin_token` opens its Control API."""
    app = create_app(_settings(admin_token), _NothingBeside)
    # create_app made a state of its own, with one place for messages and what they carry; ours takes its place.
    app.state.linkstate_factory = app.state.runtime_state_factory = factory
    return app


class _AdminOnly(NoOpControlAuthnPlugin):
    """Flower's stock plugin lets everybody use the Control API."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self._token = token.encode()

    def validate_tokens_in_metadata(self, metadata: Sequence[tuple[str, str | bytes]]) -> tuple[bool, AccountInfo | None]:
        given = dict(metadata).get(ACCESS_TOKEN_KEY, "")
        given = given if isinstance(given, bytes) else given.encode()
        if not hmac.compare_digest(given, self._token):
            return False, None
        return True, AccountInfo(flwr_aid=NOOP_FLWR_AID, account_name=NOOP_ACCOUNT_NAME)


class _NothingBeside(SuperLinkLifespan):
    """Flower would start gRPC servers, a SuperExec and a health server beside the app, if the environment says so."""

    def startup(self) -> None:
        pass

    def shutdown(self) -> None:
        pass


def _settings(admin_token: str) -> SuperLinkLifespanConfig:
    return SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host="127.0.0.1",
        port=0,
        insecure=False,
        certificates=None,
        superexec_auth_secret=secrets.token_bytes(32),
        authn_plugin=_AdminOnly(admin_token),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        database=FLWR_IN_MEMORY_DB_NAME,
        isolation="process",
        runtime_dependency_install=False,
    )
