"""`fl-sim`, and `python -m simulation`."""

from typing import NoReturn

from common.entry import enter


def main() -> NoReturn:
    """Entry point of `fl-sim`."""
    enter("simulation.cli")


if __name__ == "__main__":
    main()
