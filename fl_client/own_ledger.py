"""Where a device's privacy ledger is, and what keeps it from being forgotten. Commands and `node_process` ask here."""

from pathlib import Path

from common.privacy.anchor import Anchor
from common.privacy.ledger import LedgerPlace
from fl_client.node_settings import LEDGER


def own_ledger(home: Path, data: Path, authority: str | None = None) -> LedgerPlace:
    """The ledger in `home` of the faces in `data`.

    Args:
        authority: fingerprint of the authority of the server that debits will be for.
    """
    return LedgerPlace(home / LEDGER, Anchor(data), authority)
