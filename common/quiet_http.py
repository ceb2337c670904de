"""How every HTTP server of the project is set: it logs nothing, trusts no proxy's word and does not name itself."""

from typing import Any, Final

QUIET_HTTP: Final[dict[str, Any]] = {
    "ws": "none",
    "lifespan": "off",
    "log_config": None,
    "access_log": False,
    "proxy_headers": False,
    "server_header": False,
}
"""For `uvicorn.Config`."""
