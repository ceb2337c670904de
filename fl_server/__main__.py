"""`fl-server`, and `python -m fl_server`."""

from typing import NoReturn

from common.entry import enter


def main() -> NoReturn:
    """Entry point of `fl-server`."""
    enter("fl_server.cli")


if __name__ == "__main__":
    main()
