"""`fl-client webcam`: see what the published model reads in faces, from a camera, a video or pictures.

`fl_client.cli` mounts `webcam`. Frames stay in this process; nothing is written unless asked for.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from common.console import err, out
from common.errors import ConfigError
from common.identity import grouped
from fl_client.webcam.classifier import Classifier
from fl_client.webcam.detector import make_detector
from fl_client.webcam.loop import CameraLoop, LoopSettings
from fl_client.webcam.looping import LoopingSource
from fl_client.webcam.model import LoopModel
from fl_client.webcam.quiet import native_stderr_silenced
from fl_client.webcam.recorder import Outputs, check_outputs, open_recorders
from fl_client.webcam.registry import source_of, wait_for_first
from fl_client.webcam.source import Source, open_source
from fl_client.webcam.watcher import ModelWatcher
from fl_client.webcam.window import open_window

INTERRUPTED = 130


def webcam(
    source: Annotated[str, typer.Option(help="A camera's index, or a video, a picture or a folder of pictures.")] = "0",
    registry: Annotated[
        Path | None, typer.Option(help="Registry folder: its newest model, and newer ones as they appear.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="One published version's folder, used throughout.")] = None,
    trust: Annotated[
        str | None, typer.Option(help="The publisher's key file or fingerprint. Default: the key met first.")
    ] = None,
    headless: Annotated[bool, typer.Option("--headless", help="Open no window.")] = False,
    output: Annotated[Path | None, typer.Option(help="Write what is shown: .mp4, or .png or .jpg of one picture.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write one line per face: frame, box, label, probabilities.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many frames.")] = None,
    loop: Annotated[
        bool, typer.Option("--loop", help="Play a video again and again, in its own time, as if it were a camera.")
    ] = False,
    mirror: Annotated[bool, typer.Option("--mirror", help="Show and record as in a mirror.")] = False,
    min_confidence: Annotated[float, typer.Option(min=0.0, max=1.0, help="Say 'unsure' below this probability.")] = 0.0,
    detector: Annotated[str, typer.Option(help="Which face detector: haar.")] = "haar",
    detect_size: Annotated[
        int, typer.Option(min=64, max=4096, help="Longest side in pixels for detection; more finds smaller faces, slower.")
    ] = 320,
    threads: Annotated[int, typer.Option(min=1, max=64, help="CPU threads for one classification.")] = 1,
) -> None:
    """Label the faces that a camera, a video or pictures show. No frame leaves this machine; q or Esc quits."""
    check_outputs(output, csv)
    models = source_of(model, registry, trust)
    finder = make_detector(detector, longest_side=detect_size)
    with native_stderr_silenced(), _sigterm_stops(), ExitStack() as stack:
        if registry is not None and not headless:
            wait_for_first(registry, _say)
        classifier = Classifier(models.newest(), threads)
        _introduce(classifier.model)

        def opened() -> Source:
            return open_source(source, lambda sentence: _say(sentence, warning=True))

        frames_from = stack.enter_context(closing(LoopingSource(opened) if loop else opened()))
        live = frames_from.facts.kind.live
        if headless and (live or loop) and frames is None and output is None and csv is None:
            raise ConfigError("This would show nothing and never end: add --output, --csv or --frames to --headless.")
        window = None if headless else stack.enter_context(closing(open_window("emofl")))
        outputs = Outputs(open_recorders(output, csv, frames_from.facts, classifier.model.classes), live)
        camera = CameraLoop(
            source=frames_from,
            detector=finder,
            classifier=classifier,
            outputs=outputs,
            settings=LoopSettings(frames, mirror, min_confidence),
            window=window,
            say=_say,
        )
        try:
            with outputs, _progress(frames_from, frames, shown=headless) as camera.tick:
                if registry is None:
                    camera.run()
                else:
                    with ModelWatcher(models, classifier, lambda newer: Classifier(newer, threads)) as camera.watcher:
                        camera.run()
        except KeyboardInterrupt:
            if headless and not live:
                raise typer.Exit(INTERRUPTED) from None
        finally:
            _conclude(camera, outputs)


def _introduce(model: LoopModel) -> None:
    _say(f"Model: {model.version}, signed by {grouped(model.signer)}.")
    _say(model.promise, warning=not model.private)


def _conclude(loop: CameraLoop, outputs: Outputs) -> None:
    out.print(escape(loop.tally.summary(loop.source.dropped)), soft_wrap=True)
    for path in outputs.kept:
        out.print(f"Written: {escape(str(path))}", soft_wrap=True)


def _say(sentence: str, warning: bool = False) -> None:
    err.print(("[bold yellow]warning:[/] " if warning else "") + escape(sentence), soft_wrap=True)


@contextmanager
def _progress(source: Source, limit: int | None, shown: bool) -> Iterator[Callable[[], None]]:
    """A bar for a file, on a terminal; yields what to call after each frame."""
    total = source.facts.total
    if limit is not None:
        total = limit if total is None else min(limit, total)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = not shown or source.facts.kind.live or not err.is_terminal
    with Progress(*columns, console=err, transient=True, disable=hidden) as bar:
        task = bar.add_task(escape(source.facts.name), total=total)
        yield lambda: bar.advance(task)


@contextmanager
def _sigterm_stops() -> Iterator[None]:
    """Until the block ends, SIGTERM stops the loop as Ctrl-C does, so that a service manager loses no recording."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
