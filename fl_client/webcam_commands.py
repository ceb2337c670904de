"""`fl-client webcam`: see what the published model reads in faces, from a camera, a video or pictures.

`fl_client.cli` mounts `webcam`. Frames stay in this process; nothing is written unless asked for.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from common.console import err, out
from common.errors import ConfigError
from common.identity import grouped
from common.sigterm import sigterm_stops
from fl_client.even_source import EvenSource
from fl_client.personal_source import PersonalSource, own_fitted_head
from fl_client.webcam.choice import choose_model
from fl_client.webcam.classifier import Classifier
from fl_client.webcam.fetch_blaze import fetch_blaze
from fl_client.webcam.keys import View
from fl_client.webcam.loop import CameraLoop, LoopSettings
from fl_client.webcam.looping import LoopingSource
from fl_client.webcam.model import LoopModel
from fl_client.webcam.quiet import native_stderr_silenced
from fl_client.webcam.quotes import Quotes, read_quotes
from fl_client.webcam.recorder import Files, Outputs, open_recorders, open_recording
from fl_client.webcam.registry import wait_for_first
from fl_client.webcam.screen import MarkedWindow, Screen
from fl_client.webcam.seen import Seen
from fl_client.webcam.smoothing import SmoothingSettings
from fl_client.webcam.source import Source
from fl_client.webcam.stream import check_source, open_any
from fl_client.webcam.timings import Timings
from fl_client.webcam.watcher import ModelWatcher
from fl_client.webcam.window import open_window
from models.detector.detectors import AUTO, detector_names, make_detector
from models.faces.report import printable

ModelOption = partial(typer.Option, rich_help_panel="Which model")
ScreenOption = partial(typer.Option, rich_help_panel="On the screen")
FilesOption = partial(typer.Option, rich_help_panel="What is written")
FacesOption = partial(typer.Option, rich_help_panel="Finding and reading faces")
PageOption = partial(typer.Option, rich_help_panel="In the browser")

INTERRUPTED = 130
UNSURE_BELOW = 0.45
"""Below it the base model is more often wrong than right (`python -m benchmarks.webcam_screen`)."""


def webcam(
    source: Annotated[
        str, typer.Option(help="A camera's index, an rtsp:// address, or a video, a picture or a folder of pictures.")
    ] = "0",
    registry: Annotated[
        Path | None,
        ModelOption(help="Registry folder: its newest model, and newer ones as they appear. Default: the one used last."),
    ] = None,
    model: Annotated[
        Path | None,
        ModelOption(help="One published version's folder, used throughout; or `base`, the one that ships with emofl."),
    ] = None,
    trust: Annotated[str | None, ModelOption(help="The publisher's key file or fingerprint. Default: the key met first.")] = None,
    personal: Annotated[
        Path | None,
        ModelOption(help="Your faces' folder: use the head that `fl-client personalise` fitted to them; not with --serve."),
    ] = None,
    headless: Annotated[bool, ScreenOption("--headless", help="Open no window.")] = False,
    output: Annotated[Path | None, FilesOption(help="Write what is shown: .mp4, or .png or .jpg of one picture.")] = None,
    csv: Annotated[Path | None, FilesOption(help="Write one line per face: frame, box, label, probabilities.")] = None,
    parquet: Annotated[Path | None, FilesOption(help="The same as a .parquet table.")] = None,
    record: Annotated[bool, FilesOption("--record", help="Begin recording at once, as with the key r.")] = False,
    snapshots: Annotated[Path, FilesOption(help="Folder for the snapshots and recordings of the keys s and r.")] = Path(),
    frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many frames.")] = None,
    loop: Annotated[
        bool, typer.Option("--loop", help="Play a video again and again, in its own time, as if it were a camera.")
    ] = False,
    mirror: Annotated[bool, ScreenOption("--mirror", help="Show and record as in a mirror.")] = False,
    heatmap: Annotated[bool, ScreenOption("--heatmap", help="Show where in a face the model finds what it says.")] = False,
    quotes: Annotated[bool, ScreenOption("--quotes", help="Show a line of text for the emotion of the largest face.")] = False,
    quotes_from: Annotated[Path | None, ScreenOption(help="Your own lines: a file of `emotion: text`.")] = None,
    min_confidence: Annotated[float, ScreenOption(min=0.0, max=1.0, help="Say 'unsure' below this probability.")] = UNSURE_BELOW,
    detector: Annotated[str, FacesOption(help=f"Which face detector: {', '.join(detector_names())}.")] = AUTO,
    detect_size: Annotated[
        int | None,
        FacesOption(min=64, max=4096, help="Longest side in pixels for detection; more finds smaller faces, slower."),
    ] = None,
    get_detector: Annotated[
        bool, FacesOption("--get-detector", help="Download a better face detector with pip (35 MB, once), and end.")
    ] = False,
    even_classes: Annotated[
        float,
        FacesOption(min=0.0, max=1.0, help="Answer as if emotions had been more evenly frequent in training, at 1 equally."),
    ] = 0.0,
    threads: Annotated[int, FacesOption(min=1, max=64, help="CPU threads for one classification.")] = 1,
    benchmark: Annotated[bool, FacesOption("--benchmark", help="Print at the end how many milliseconds each step took.")] = False,
    serve: Annotated[
        bool, PageOption("--serve", help="Show it as a page for this machine's browsers, whose camera it uses.")
    ] = False,
    port: Annotated[int, PageOption(min=0, max=65535, help="Where --serve listens, on 127.0.0.1.")] = 8460,
) -> None:
    """Label the faces that a camera, a video or pictures show. No frame leaves this machine; ? shows the keys, q quits."""
    if serve and personal is not None:
        raise ConfigError("--personal is for the window: a page that others could open never gets your own head.")
    if even_classes and (serve or personal is not None):
        raise ConfigError("--even-classes is for the window and for published heads: leave out --serve and --personal.")
    if serve:
        from fl_client.webcam.serving import serve_page

        with sigterm_stops():
            serve_page(model, registry, trust, port, _say)
        return
    if get_detector:
        fetch_blaze(_say)
        return
    files = Files(output, csv, parquet)
    files.check()
    check_source(source)
    choice = choose_model(model, registry, trust, _say)
    if personal is not None:
        choice = replace(choice, source=PersonalSource(choice.source, own_fitted_head(personal), _say))
    if even_classes:
        choice = replace(choice, source=EvenSource(choice.source, even_classes))
    lines = read_quotes(quotes_from) if quotes_from else Quotes()
    view = View(heatmap=heatmap, mirror=mirror, quotes=quotes or quotes_from is not None)
    with native_stderr_silenced(), sigterm_stops(), ExitStack() as stack:
        finder = make_detector(detector, detect_size, _say)
        if choice.follow is not None and not headless:
            wait_for_first(choice.follow, _say)
        classifier = Classifier(choice.source.newest(), threads)
        _introduce(classifier.model)

        def opened() -> Source:
            return open_any(source, lambda sentence: _say(sentence, warning=True))

        frames_from = stack.enter_context(closing(LoopingSource(opened) if loop else opened()))
        facts, classes = frames_from.facts, classifier.model.classes
        live = facts.kind.live
        if headless and (live or loop) and frames is None and not record and not any(files):
            raise ConfigError("This would show nothing and never end: add --output, --csv, --record or --frames to --headless.")
        window = None if headless else stack.enter_context(closing(open_window("emofl")))
        recorders = open_recorders(files, facts, classes)
        folder = snapshots.expanduser()
        outputs = Outputs(recorders, live, lambda: open_recording(folder, facts, classes))
        screen = Screen(outputs, folder, view, lines, facts.kind.stills, _say)
        camera = CameraLoop(
            source=frames_from,
            detector=finder,
            classifier=classifier,
            outputs=outputs,
            settings=LoopSettings(frames, smoothing=SmoothingSettings(least=min_confidence)),
            window=None if window is None else MarkedWindow(window, screen),
            say=_say,
            painter=screen.paint,
            heatmaps=heatmap or window is not None,
        )

        def obey(key: str, seen: Seen) -> bool:
            again = screen.pressed(key, seen)
            camera.paused = screen.paused
            return again

        camera.on_key = obey
        screen.remind("? shows the keys")
        try:
            with outputs, _progress(frames_from, frames, shown=headless) as camera.tick:
                if record:
                    outputs.start()
                if choice.follow is None:
                    camera.run()
                else:
                    choice.keep_in_mind(headless)
                    with ModelWatcher(choice.source, classifier, lambda newer: Classifier(newer, threads)) as camera.watcher:
                        camera.run()
        except KeyboardInterrupt:
            if headless and not live:
                raise typer.Exit(INTERRUPTED) from None
        finally:
            _conclude(camera, outputs, benchmark)


def _introduce(model: LoopModel) -> None:
    _say(f"Model: {model.version}, signed by {grouped(model.signer)}.")
    _say(model.promise, warning=not model.private)
    if model.shift is not None:
        _say("Answers are evened (--even-classes): emotions that were rare in training are named more often, frequent ones less.")


def _conclude(loop: CameraLoop, outputs: Outputs, benchmark: bool) -> None:
    out.print(escape(loop.tally.summary(loop.source.dropped)), soft_wrap=True)
    for path in outputs.kept:
        out.print(f"Written: {escape(printable(str(path)))}", soft_wrap=True)
    if benchmark and loop.tally.frames:
        out.print(_breakdown(loop.tally.timings))


def _breakdown(timings: Timings) -> Table:
    """What `--benchmark` prints: waiting for the camera and for the person is no part of it."""
    table = Table("step", *(f"{name} ms" for name in ("mean", "median", "p95", "most")), "share")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in timings.rows():
        figures = (f"{value:.2f}" for value in (row.mean, row.median, row.p95, row.most))
        table.add_row(row.stage, *figures, f"{row.share:.0%}")
    return table


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
