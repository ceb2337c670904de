import os
import subprocess
import sys

from fl_client.webcam.quiet import native_stderr_silenced

PROGRAM = """
import os, sys
from common.console import err
from fl_client.webcam.quiet import native_stderr_silenced
with native_stderr_silenced():
    os.write(2, b"noise of a library\\n")
    err.print("our sentence")
    print("and another", file=sys.stderr)
os.write(2, b"heard again\\n")
"""


def test_libraries_are_silenced_and_our_sentences_are_not() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stderr == "our sentence\nand another\nheard again\n"


def test_descriptors_do_not_leak() -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(5):
        with native_stderr_silenced():
            pass
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert before == after
