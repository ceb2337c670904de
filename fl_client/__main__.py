"""`fl-client`, and `python -m fl_client`."""

from typing import NoReturn

from common.entry import enter


def main() -> NoReturn:
    """Entry point of `fl-client`."""
    enter("fl_client.cli")


if __name__ == "__main__":
    main()
