"""What others wrote, made fit for a terminal: no escape sequence of a server reaches the owner's screen.

`fl_client.enrolment` calls it for a server's sentences, the commands and `node_process` for whatever they print.
"""

import logging

LONGEST = 500


def plain(text: str, longest: int = LONGEST) -> str:
    """`text` on one line, cut to `longest` characters; control and other unprintable characters become U+FFFD."""
    shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(text[: 4 * longest].split()))
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


class PlainFormatter(logging.Formatter):
    """As the formatter it stands for, but of unprintable characters line ends alone pass, for tracebacks of our own."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's text."""
        text = super().format(record)
        return "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in text)
