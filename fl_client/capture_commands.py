"""`fl-client capture`: build the folder of faces that this device trains on. `fl_client.cli` mounts `capture`.

Nothing leaves the device; the browser form listens on the loopback address alone, while it runs.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from common.console import err, out
from common.emotions import EMOTIONS_8, canonical_emotion
from common.errors import ConfigError, DeviceError
from fl_client.capture import consent
from fl_client.capture.album import Album
from fl_client.capture.forget import WHY_THE_LEDGER_STAYS, forget, require_folder
from fl_client.capture.import_form import ImportForm
from fl_client.capture.importing import Search, media_below
from fl_client.capture.labels import Rule
from fl_client.capture.session import Rhythm
from fl_client.capture.studio import Studio, open_session
from fl_client.capture.terminal_form import TerminalForm, tally
from fl_client.capture.window_form import WindowForm
from fl_client.webcam.base_model import BaseSource
from fl_client.webcam.classifier import Classifier
from fl_client.webcam.looping import LoopingSource
from fl_client.webcam.model import ModelSource
from fl_client.webcam.quiet import native_stderr_silenced
from fl_client.webcam.registry import source_of
from fl_client.webcam.source import Source, open_source
from fl_client.webcam.window import HINT, Window, open_window
from models.detector.detectors import AUTO, Detector, detector_names, make_detector
from models.faces.folder import CONSENT, OWN_FOLDER
from models.faces.report import printable
from models.preprocess import Preprocessing

Option = typer.Option

COPIES = (
    "Copies elsewhere (backups, contact sheets, the originals of imports) are not touched, and deleted files can stay readable "
    "on a disk until they are overwritten: an encrypted disk prevents that."
)


def capture(
    data: Annotated[Path, Option(help="The folder of faces to build, as ./my_faces; made if it does not exist.")],
    source: Annotated[str, Option(help="A camera's index, or a video.")] = "0",
    emotion: Annotated[list[str] | None, Option(help="Ask for this emotion only; may be given several times.")] = None,
    count: Annotated[
        int | None, Option(min=1, max=100_000, help="Pictures wanted of each emotion. Default: 20, or as before.")
    ] = None,
    burst: Annotated[int, Option(min=1, max=100, help="Pictures at most per key press.")] = Rhythm().size,
    headless: Annotated[bool, Option("--headless", help="No window: prompts and a countdown on the terminal.")] = False,
    hands_free: Annotated[bool, Option("--hands-free", help="With --headless: go from prompt to prompt without a key.")] = False,
    countdown: Annotated[int, Option(min=0, max=60, help="With --headless: seconds before each burst.")] = 3,
    browser: Annotated[bool, Option("--browser", help="A page on this machine: its camera, photos and films.")] = False,
    port: Annotated[int, Option(min=0, max=65535, help="With --browser: the port on 127.0.0.1; 0 takes a free one.")] = 0,
    imports: Annotated[
        Path | None, Option("--import", help="A photo, a film or a folder of them: find faces, confirm labels.")
    ] = None,
    accept_above: Annotated[
        float | None, Option(min=0.0, max=1.0, help="With --import: take labels this sure without asking, and ask nothing.")
    ] = None,
    label: Annotated[str | None, Option(help="With --import: all faces show this emotion.")] = None,
    every: Annotated[float, Option(min=0.04, max=3600.0, help="Imports: seconds of a film between two looks.")] = 1.0,
    registry: Annotated[Path | None, Option(help="Its newest model proposes labels. Default: the base model that ships.")] = None,
    model: Annotated[Path | None, Option(help="One published version's folder that proposes labels.")] = None,
    trust: Annotated[str | None, Option(help="The publisher's key file or fingerprint.")] = None,
    detector: Annotated[str, Option(help=f"Which face detector: {', '.join(detector_names())}.")] = AUTO,
    detect_size: Annotated[int | None, Option(min=64, max=4096, help="Longest side in pixels for detection.")] = None,
    loop: Annotated[bool, Option("--loop", help="Play a video again and again, as if it were a camera.")] = False,
    people: Annotated[str | None, Option(help="Who is in the pictures, as in 'me'; else it is asked.")] = None,
    agree: Annotated[
        bool, Option("--agree", help="You, and whoever is in the pictures, read the text of docs/capture.md and agree.")
    ] = False,
    wipe: Annotated[bool, Option("--forget", help="Delete all pictures, the consent and what was derived from them.")] = False,
    yes: Annotated[bool, Option("--yes", help="With --forget: do not ask.")] = False,
) -> None:
    """Build this device's folder of faces: with a camera, in the browser, or from photos and films. Nothing leaves the device.

    Ctrl-C or q ends it; every picture is stored at once, and the next session goes on from there.
    """
    if browser and imports is not None:
        raise ConfigError("With --browser, photos and films are chosen in the page: leave --import out.")
    if sum((headless, browser, imports is not None, wipe)) > 1:
        raise ConfigError("Choose one of --headless, --browser, --import and --forget; without them a window opens.")
    folder = data.expanduser()
    if wipe:
        _forget(folder, yes)
        return
    wanted = tuple(_emotion(name) for name in emotion or ())
    all_show = _emotion(label) if label else None
    if hands_free and not headless:
        raise ConfigError("--hands-free goes with --headless.")
    if imports is None and (label or accept_above is not None):
        there = " In the page of --browser, 'They show' labels what is chosen next." if browser else ""
        raise ConfigError(f"--label and --accept-above go with --import.{there}")
    if imports is not None:
        media_below(imports.expanduser())  # a path that holds nothing is refused before anything is asked or made ready
    models = source_of(model, registry, trust) if model or registry else None
    finder = make_detector(detector, detect_size, _say)
    album = Album(folder)
    if album.tightened:
        _say(f"{album.tightened:,} files and folders in {folder} were open to others on this machine; now they are yours alone.")
    if not browser:
        _require_consent(folder, people, agree)
    with native_stderr_silenced(), ExitStack() as stack:
        if imports is not None:
            _import(imports.expanduser(), album, finder, models, all_show, every, Rule(accept_above, accept_above is None))
            return
        margin = models.newest().preprocessing.crop_margin if models else Preprocessing().crop_margin
        session = open_session(album, wanted, count, Rhythm(size=burst))
        studio = Studio(album, finder, session, margin)
        with _concluded(studio):
            if browser:
                from fl_client.capture.browser_form import serve
                from fl_client.capture.import_desk import ImportDesk

                desk = ImportDesk(album, lambda: _search(album, finder, models, None, every), every)
                serve(studio, desk, port, _say)
                return
            frames = stack.enter_context(closing(_opened(source, loop)))
            if headless:
                TerminalForm(studio, frames, out, _ask, hands_free, countdown).run()
            else:
                WindowForm(studio, frames, stack.enter_context(closing(_window()))).run()


def _opened(source: str, loop: bool) -> Source:
    def opened() -> Source:
        return open_source(source, _say)

    return LoopingSource(opened) if loop else opened()


def _window() -> Window:
    """A window, or a sentence that names the forms that need none."""
    try:
        return open_window("emofl capture")
    except DeviceError as error:
        raise DeviceError(str(error).replace(HINT, "use --browser or --headless.")) from error


def _require_consent(folder: Path, people: str | None, agree: bool) -> None:
    """Show the text once and write down the answer; nothing is captured without it.

    Raises:
        ConfigError: nobody agreed.
    """
    if consent.is_given(folder):
        return
    if agree:
        consent.record(folder, people or "me")
        return
    out.print(f"\n{escape(consent.as_paragraphs())}\n", soft_wrap=True)
    try:
        who = people or _ask("Who is in the pictures? (as in: me)")
        said = _ask("Does everybody in them agree? Type yes to go on")
    except EOFError:
        said = ""
    if said.strip().lower() not in ("yes", "y"):
        raise ConfigError("Nothing was captured: that takes the yes of everybody in the pictures (or --people and --agree).")
    consent.record(folder, who or "me")
    out.print(f"Written down in {escape(printable(str(folder / CONSENT)))}.", soft_wrap=True)


def _import(
    path: Path,
    album: Album,
    finder: Detector,
    models: ModelSource | None,
    label: str | None,
    every: float,
    rule: Rule,
) -> None:
    search = _search(album, finder, models, label, every)
    form = ImportForm(search, album, rule, out, _ask)
    try:
        form.run(search.faces(path))
    finally:
        out.print(escape(form.tally.sentence(search)), soft_wrap=True)
        if form.tally.taken:
            _where_to_look(album)


def _search(album: Album, finder: Detector, models: ModelSource | None, label: str | None, every: float) -> Search:
    """What looks for faces in photos and films; without a label for all of them, a model proposes one."""
    margin = models.newest().preprocessing.crop_margin if models else Preprocessing().crop_margin

    def proposing() -> Classifier:
        classifier = Classifier((models or BaseSource(say=_say)).newest())
        _say(f"Labels are proposed by: {classifier.model.version}. Its guesses are guesses; you know better.")
        return classifier

    return Search(finder, album, margin, None if label else proposing, label, every, _say)


def _forget(folder: Path, yes: bool) -> None:
    require_folder(folder)
    name = folder.resolve().name
    if not yes:
        out.print(
            f"All pictures in {escape(printable(str(folder)))}, the record of consent and what capture derived will be deleted.",
            soft_wrap=True,
        )
        try:
            typed = _ask(f"Type the folder's name, {printable(name)}, to delete them")
        except EOFError:
            typed = ""
        if typed.strip() not in (name, printable(name)):
            raise ConfigError("Nothing was deleted: the name typed is not the folder's (or use --yes).")
    done = forget(folder)
    out.print(f"Deleted: {done.pictures:,} picture{'s' * (done.pictures != 1)}, the consent, and what capture derived.")
    if done.left:
        out.print(f"Not of capture's making, and still there: {escape(', '.join(done.left))}.", soft_wrap=True)
    ledger = (
        f"The device's keys, policy and privacy ledger in {printable(str(folder / OWN_FOLDER))} stay. "
        if done.ledger
        else "A privacy ledger, if there is one, stays. "
    )
    out.print(escape(ledger + WHY_THE_LEDGER_STAYS), soft_wrap=True)
    out.print(COPIES, soft_wrap=True)


@contextmanager
def _concluded(studio: Studio) -> Iterator[None]:
    """Around a session: however it ends, say what there is now, if anything. Ctrl-C ends it like q."""
    try:
        yield
    except KeyboardInterrupt:
        out.print()
    finally:
        studio.recount()
        if any(count for _, count in studio.session.counts):
            out.print(tally(studio.session))
            _where_to_look(studio.album)


def _where_to_look(album: Album) -> None:
    out.print(f"Look at them: fl-client data check {escape(printable(str(album.folder)))} --sheet faces.png", soft_wrap=True)


def _emotion(name: str) -> str:
    found = canonical_emotion(name)
    if found is None:
        raise ConfigError(f"There is no emotion {name!r}: {', '.join(EMOTIONS_8)}.")
    return found


def _ask(line: str) -> str:
    """What the person types after the line.

    Raises:
        EOFError: nobody is there.
    """
    out.print(f"{escape(line)}: ", end="", soft_wrap=True)
    typed = sys.stdin.readline() if sys.stdin else ""
    if not typed:
        raise EOFError
    return typed.strip()


def _say(sentence: str) -> None:
    err.print(escape(sentence), soft_wrap=True)
