"""The page's server over real HTTP on loopback: our own page gets everything, anybody else nothing."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from common.errors import ModelError, RunError
from fl_client.capture import browser_form, consent, import_desk, standing
from fl_client.capture.album import Album
from fl_client.capture.booth import FILES, Booth
from fl_client.capture.browser_form import HOST
from fl_client.capture.forget import forget
from fl_client.capture.gate import KEY_HEADER, MOST_BYTES, PROOF_HEADER, Secrets
from fl_client.capture.importing import Search

from .conftest import BOX, desk_of, face, frame_of, serve

pytestmark = pytest.mark.network


@dataclass
class Page:
    """A browser on the page: it sends what browsers send."""

    host: str
    keys: Secrets
    booth: Booth
    client: httpx.Client
    key: str = ""

    @property
    def own(self) -> dict[str, str]:
        return {"origin": f"http://{self.host}", KEY_HEADER: self.key, "sec-fetch-site": "same-origin"}

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.client.get(f"http://{self.host}{path}", headers=self.own | headers)

    def post(self, path: str, wish: Any, **headers: str) -> httpx.Response:
        content = wish if isinstance(wish, bytes) else json.dumps(wish).encode()
        kind = {"content-type": "application/json"} if not isinstance(wish, bytes) else {}
        return self.client.post(f"http://{self.host}{path}", content=content, headers=self.own | kind | headers)

    def frame(self, *seeds: int, kind: str = "png") -> httpx.Response:
        content = cv2.imencode(f".{kind}", frame_of(*seeds))[1].tobytes()
        return self.post("/api/frame", content, **{"content-type": f"image/{kind}"})


@pytest.fixture
def page(make_studio) -> Iterator[Page]:
    """An opened page whose owner has agreed."""
    studio = make_studio({"fear": 3}, gap=0.0)
    keys = Secrets()
    booth = Booth(studio, keys, desk_of(studio))
    served = serve(booth)
    with httpx.Client(trust_env=False, timeout=20) as client:
        opened = Page(served.host, keys, booth, client)
        opened.key = opened.post("/api/open", {"token": keys.new_token()}).json()["key"]
        yield opened
    served.end()


def test_a_link_opens_one_page_once(page: Page) -> None:
    token = page.keys.new_token()
    assert page.post("/api/open", {"token": token}).status_code == 200
    again = page.post("/api/open", {"token": token})
    assert (again.status_code, "was used" in again.json()["error"]) == (401, True)
    older = page.keys.new_token()
    page.keys.new_token()
    assert page.post("/api/open", {"token": older}).status_code == 401
    assert page.post("/api/open", {"token": ["a"]}).status_code == 401


@pytest.mark.parametrize(
    ("path", "wish"), [("/api/open", {"token": "\ud800"}), ("/api/consent", {"agree": True, "people": "\ud800"})]
)
def test_text_that_is_none_is_refused_and_tears_nothing_down(page: Page, path: str, wish: dict[str, object]) -> None:
    assert page.post(path, wish).status_code == 400
    assert page.get("/api/state").status_code == 200


def test_without_the_key_nothing_is_told_or_done(page: Page) -> None:
    page.booth.studio.album.save("fear", face(1))
    [offer] = import_photo(page, 2).json()["offers"]
    page.key = "x" * 43
    for path in (
        "/api/state",
        "/api/pictures",
        "/api/picture?name=fear/00001.png",
        "/api/offers",
        f"/api/offer?id={offer['id']}",
    ):
        assert page.get(path).status_code == 401
    for path in ("/api/consent", "/api/frame", "/api/act", "/api/edit", "/api/done"):
        assert page.post(path, {"name": "fear/00001.png"}).status_code == 401
    assert page.post("/api/decide", {"id": offer["id"], "emotion": "fear"}).status_code == 401
    assert import_photo(page, 3).status_code == 401
    assert [one.number for one in page.booth.desk.offers()] == [offer["id"]]
    assert page.booth.studio.album.counts()["fear"] == 1
    assert not page.booth.done.is_set()


def test_only_a_page_with_its_key_is_told_the_proof_that_an_answer_is_ours(page: Page) -> None:
    given = page.post("/api/open", {"token": page.keys.new_token()}).json()
    page.key = given["key"]
    for answer in (page.get("/api/state"), page.post("/api/act", {"do": "nothing"}), page.get("/nothing")):
        assert answer.headers[PROOF_HEADER] == given["proof"]
    page.key = "x" * 43
    assert PROOF_HEADER not in page.get("/api/state").headers
    assert PROOF_HEADER not in page.get("/").headers


@pytest.mark.parametrize("host", ["localhost", "evil.example", "127.0.0.1", "127.0.0.1:1", "[::1]", ""])
def test_another_host_name_is_refused_so_that_dns_rebinding_gets_nothing(page: Page, host: str) -> None:
    port = page.host.split(":")[1]
    for name in {host, f"{host}:{port}"} - {page.host}:
        assert page.get("/", host=name).status_code in (400, 421)
        assert page.get("/api/state", host=name).status_code in (400, 421)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:1", "https://127.0.0.1"])
def test_another_sites_page_is_refused_even_with_the_key(page: Page, origin: str) -> None:
    assert page.post("/api/act", {"do": "take"}, origin=origin).status_code == 403
    assert page.get("/api/state", origin=origin).status_code == 403
    assert page.booth.studio.session.burst is None


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_a_browser_calls_cross_site_is_refused(page: Page, site: str) -> None:
    assert page.get("/api/state", **{"sec-fetch-site": site}).status_code == 403


def test_a_change_without_an_origin_is_refused_and_no_site_gets_leave_to_send_one(page: Page) -> None:
    bare = page.client.post(f"http://{page.host}/api/act", json={"do": "take"}, headers={KEY_HEADER: page.key})
    assert bare.status_code == 403
    asked = page.client.request("OPTIONS", f"http://{page.host}/api/act", headers=page.own)
    assert asked.status_code == 405
    assert not [name for name in asked.headers if name.startswith("access-control")]


def test_every_answer_carries_the_strict_headers(page: Page) -> None:
    for answer in (
        page.get("/"),
        page.get("/capture.js"),
        page.get("/api/state"),
        page.get("/nothing"),
        page.get("/", host="evil"),
    ):
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in policy
        assert "http" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "camera=(self)" in answer.headers["permissions-policy"]
        assert "server" not in answer.headers


def test_the_page_names_no_other_host_and_runs_no_script_of_its_own_text(page: Page) -> None:
    assert {"/capture.js", "/photos.js", "/program.js"} < set(FILES)
    for path in FILES:
        if path == "/icon.svg":
            continue
        text = page.get(path).text
        assert text.isascii()
        assert "https://" not in text
        assert "http://" not in text
    html = page.get("/").text
    assert "onclick" not in html
    assert "style=" not in html
    assert html.count("<script") == 1


def test_it_listens_on_loopback_alone(page: Page) -> None:
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", int(page.host.split(":")[1])), timeout=2)


def test_a_burst_from_the_page_lands_in_the_folder(page: Page) -> None:
    assert page.frame(1).json()["sight"]["stored"] is None
    assert page.post("/api/act", {"do": "take"}).json()["burst"]["emotion"] == "fear"
    first = page.frame(1).json()
    assert first["sight"]["stored"] == "fear/00001.png"
    assert (first["sight"]["chosen"], first["sight"]["faces"]) == (0, [[100, 60, 120, 120]])
    assert page.frame(1).json()["sight"]["fault"] == "same"
    assert page.frame(2, kind="jpeg").json()["burst"]["taken"] == 2
    done = page.frame(3).json()
    assert (done["burst"], done["prompted"], done["prompt"]) == (None, None, "all targets are reached")
    listed = page.get("/api/pictures").json()["pictures"]
    assert [picture["name"] for picture in listed] == ["fear/00001.png", "fear/00002.png", "fear/00003.png"]
    stored = page.booth.studio.album.find("fear/00001.png")
    np.testing.assert_array_equal(cv2.imread(str(stored.path), cv2.IMREAD_GRAYSCALE), face(1))
    assert page.post("/api/act", {"do": "undo"}).json()["said"] == "3 pictures deleted"
    assert page.booth.studio.album.counts()["fear"] == 0


def test_pictures_are_shown_small_relabelled_and_deleted(page: Page) -> None:
    album = page.booth.studio.album
    album.save("fear", face(1, side=240))
    shown = page.get("/api/picture?name=fear/00001.png")
    assert shown.headers["content-type"] == "image/png"
    assert cv2.imdecode(np.frombuffer(shown.content, np.uint8), cv2.IMREAD_UNCHANGED).shape == (112, 112)
    moved = page.post("/api/edit", {"name": "fear/00001.png", "emotion": "anger"}).json()
    assert moved["name"] == "anger/00001.png"
    assert page.post("/api/edit", {"name": "anger/00001.png"}).status_code == 200
    assert album.pictures() == []
    gone = page.post("/api/edit", {"name": "anger/00001.png"})
    assert (gone.status_code, gone.json()["error"]) == (400, "There is no such picture any more.")


@pytest.mark.parametrize(
    "name", ["../consent.json", "consent.json", "fear/../consent.json", "/etc/passwd", ".capture/lock", "fear/%2e%2e"]
)
def test_nothing_but_listed_pictures_is_shown_or_deleted(page: Page, name: str) -> None:
    page.booth.studio.album.save("fear", face(1))
    assert page.client.get(f"http://{page.host}/api/picture", params={"name": name}, headers=page.own).status_code == 400
    assert page.post("/api/edit", {"name": name}).status_code == 400
    assert consent.is_given(page.booth.studio.album.folder)


def test_before_anybody_agreed_no_frame_is_looked_at(page: Page, faces: Path) -> None:
    (faces / "consent.json").unlink()
    assert page.get("/api/state").json()["consent"]["needed"]
    assert page.frame(1).status_code == 400
    assert page.post("/api/act", {"do": "take"}).status_code == 400
    version = consent.TEXT_VERSION
    for wish in ({}, {"agree": True, "version": 0, "people": "me"}, {"agree": "true", "version": version, "people": "me"},
                 {"agree": True, "version": version, "people": " "}):  # fmt: skip
        assert page.post("/api/consent", wish).status_code == 400
    assert not page.post("/api/consent", {"agree": True, "version": version, "people": "Ada"}).json()["consent"]["needed"]
    assert consent.given(faces)[-1].people == "Ada"
    assert page.frame(1).status_code == 200


def bomb() -> bytes:
    """A PNG whose header claims 60,000 x 60,000 pixels."""
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    size = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(50), bomb()])
def test_a_bad_frame_is_one_sentence_and_the_session_goes_on(page: Page, content: bytes) -> None:
    page.post("/api/act", {"do": "take"})
    answer = page.post("/api/frame", content, **{"content-type": "image/png"})
    assert (answer.status_code, "cannot be used" in answer.json()["error"]) == (400, True)
    assert page.frame(1).json()["sight"]["stored"]


def test_other_kinds_of_bodies_are_refused(page: Page) -> None:
    assert page.post("/api/frame", b"<svg/>", **{"content-type": "image/svg+xml"}).status_code == 415
    for wish in (b"[]", b"{", b'"take"', b"\xff", b"[" * 3000):
        assert page.post("/api/act", wish, **{"content-type": "application/json"}).status_code == 400
    assert page.post("/api/act", b'{"do":"take"}', **{"content-type": "text/plain"}).status_code == 400
    assert page.post("/api/act", {"do": "take", "emotion": "bored"}).status_code == 400
    assert page.post("/api/act", {"do": "format the disk"}).status_code == 400
    assert page.post("/api/act", {"do": "take", "more": "x" * 5000}).status_code == 400


def test_an_oversized_body_is_refused_before_it_is_read(page: Page) -> None:
    host, port = page.host.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        head = [f"POST /api/frame HTTP/1.1\r\nHost: {page.host}", f"content-length: {MOST_BYTES + 1}", "content-type: image/png"]
        line.sendall("\r\n".join([*head, *(f"{name}: {value}" for name, value in page.own.items()), "", ""]).encode())
        assert b" 413 " in line.recv(4096).split(b"\r\n")[0]

    def endless() -> Iterator[bytes]:
        yield b"x"

    chunked = page.client.post(f"http://{page.host}/api/frame", content=endless(), headers=page.own)
    assert chunked.status_code == 411


def test_other_accounts_silent_connections_do_not_end_the_owners_session(page: Page) -> None:
    host, port = page.host.split(":")
    with ExitStack() as held:
        for _ in range(200):
            held.enter_context(socket.create_connection((host, int(port)), timeout=10))
        with httpx.Client(trust_env=False, timeout=20) as another:
            page.client = another
            answer = page.get("/api/state")
        assert answer.status_code == 200
        assert PROOF_HEADER in answer.headers


def raising(error: Exception) -> Callable[..., Any]:
    """Does nothing but fail."""

    def fail(*_: object) -> Any:
        raise error

    return fail


def import_photo(page: Page, *seeds: int, name: str = "a.png", film: int = 0, label: str = "") -> httpx.Response:
    content = cv2.imencode(".png", frame_of(*seeds))[1].tobytes()
    asked = str(httpx.QueryParams({"name": name, "film": str(film), "label": label}))
    return page.post(f"/api/import?{asked}", content, **{"content-type": "image/png"})


def test_a_photo_is_offered_with_a_label_and_stored_only_when_its_owner_says_so(page: Page, faces: Path) -> None:
    said = import_photo(page, 1, name="trip/a.png").json()
    [offer] = said["offers"]
    assert (offer["emotion"], offer["by"], offer["alone"]) == ("anger", "the model", True)
    assert offer["sure"] == pytest.approx(0.6)
    assert not list(faces.glob("*/*.png"))
    shown = cv2.imdecode(np.frombuffer(page.get(f"/api/offer?id={offer['id']}").content, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert shown.shape == (112, 112)
    done = page.post("/api/decide", {"id": offer["id"], "emotion": "surprise"}).json()
    assert done["stored"] == "surprise/00001.png"
    assert {one["name"]: one["count"] for one in done["emotions"]}["surprise"] == 1
    stored = cv2.imread(str(faces / done["stored"]), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(stored, face(1))
    assert page.get("/api/offers").json() == {"offers": []}
    assert page.post("/api/decide", {"id": offer["id"], "emotion": "surprise"}).status_code == 404


def test_a_face_that_could_not_be_written_still_waits(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    [offer] = import_photo(page, 1).json()["offers"]
    wish = {"id": offer["id"], "emotion": "fear"}
    with monkeypatch.context() as full:
        full.setattr(page.booth.studio.album, "save", raising(OSError(28, "No space left on device")))
        assert page.post("/api/decide", wish).status_code == 500
    assert [one["id"] for one in page.get("/api/offers").json()["offers"]] == [offer["id"]]
    assert page.post("/api/decide", wish).json()["stored"] == "fear/00001.png"


def test_after_forgetting_on_another_terminal_no_proposed_face_is_shown_or_stored(page: Page, faces: Path) -> None:
    page.booth.studio.album.save("fear", face(9))
    [offer] = import_photo(page, 1).json()["offers"]
    forget(faces)
    for answer in (
        page.get("/api/offers"),
        page.get(f"/api/offer?id={offer['id']}"),
        page.post("/api/decide", {"id": offer["id"], "emotion": "fear"}),
    ):
        assert (answer.status_code, answer.json()["consent_needed"]) == (400, True)
    assert page.get("/api/pictures").json() == {"pictures": []}
    assert {one["count"] for one in page.get("/api/state").json()["emotions"]} == {0}
    assert not faces.exists()
    agreed = {"agree": True, "version": consent.TEXT_VERSION, "people": "me"}
    assert page.post("/api/consent", agreed).status_code == 200
    assert page.get("/api/offers").json() == {"offers": []}
    [again] = import_photo(page, 9).json()["offers"]
    assert page.post("/api/decide", {"id": again["id"], "emotion": "fear"}).json()["stored"] == "fear/00001.png"


def test_an_answer_that_says_the_consent_is_gone_has_emptied_the_desk(page: Page, faces: Path) -> None:
    import_photo(page, 1)
    forget(faces)
    assert page.get("/api/state").json()["consent"]["needed"] is True
    assert page.booth.desk.offers() == []


def test_faces_of_a_consent_that_was_taken_back_do_not_outlive_it_under_a_new_one(page: Page, faces: Path) -> None:
    [offer] = import_photo(page, 1).json()["offers"]
    forget(faces)
    Album(faces)
    consent.record(faces, "somebody else")
    assert page.get("/api/offers").json() == {"offers": []}
    assert page.post("/api/decide", {"id": offer["id"], "emotion": "fear"}).status_code == 404


def test_after_a_new_yes_on_another_terminal_the_page_stores_what_it_sees_from_then_on(page: Page, faces: Path) -> None:
    import_photo(page, 1)
    forget(faces)
    Album(faces)
    consent.record(faces, "me")
    assert page.get("/api/state").json()["consent"]["needed"] is False
    [offer] = import_photo(page, 2).json()["offers"]
    assert page.post("/api/decide", {"id": offer["id"], "emotion": "fear"}).json()["stored"] == "fear/00001.png"


def test_an_undo_in_the_page_counts_what_was_still_there(page: Page) -> None:
    page.post("/api/act", {"do": "take", "emotion": "fear"})
    names = [page.frame(seed).json()["sight"]["stored"] for seed in (1, 2, 3)]
    page.post("/api/edit", {"name": names[0], "emotion": None})
    page.post("/api/edit", {"name": names[1], "emotion": "anger"})
    assert page.post("/api/act", {"do": "undo"}).json()["said"] == "2 pictures deleted"
    assert page.get("/api/pictures").json() == {"pictures": []}


def test_a_consent_that_is_taken_back_is_noticed_while_no_page_asks(
    page: Page, faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_photo(page, 1)
    monkeypatch.setattr(standing, "BETWEEN_LOOKS", 0.01)
    forget(faces)
    end = time.monotonic() + 20
    while page.booth.desk.offers() and time.monotonic() < end:
        time.sleep(0.01)
    assert page.booth.desk.offers() == []


def test_faces_found_while_the_consent_was_taken_back_are_not_offered(
    page: Page, faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = page.booth.desk.look

    def slowly(*asked: Any) -> Any:
        found = look(*asked)
        forget(faces)
        return found

    monkeypatch.setattr(page.booth.desk, "look", slowly)
    answer = import_photo(page, 1)
    assert (answer.status_code, answer.json()["consent_needed"]) == (400, True)
    assert page.booth.desk.offers() == []


def test_a_bad_frame_of_a_film_hides_no_good_one_and_a_face_left_out_is_found_again(page: Page) -> None:
    dark, good = frame_of(5) // 8, frame_of(5)
    assert page.booth.desk.look(dark, "f", None, film=True).left == ("too dark",)
    [offer] = page.booth.desk.look(good, "f", None, film=True).offers
    assert page.booth.desk.look(good, "f", None, film=True).repeated == 1
    page.booth.desk.decide(offer.number, None)
    assert len(page.booth.desk.look(good, "f", None, film=True).offers) == 1


def test_without_a_model_photos_are_offered_without_a_label_and_it_is_said_once(page: Page) -> None:
    said: list[str] = []
    studio = page.booth.studio
    search = Search(studio.detector, studio.album, make_classifier=raising(ModelError("no model")), say=said.append)
    page.booth.desk.make_search = lambda: search
    assert import_photo(page, 1, label="fear").json()["offers"][0]["emotion"] == "fear"
    assert said == []
    assert [import_photo(page, seed).json()["offers"][0]["emotion"] for seed in (2, 3)] == [None, None]
    assert said == ["No labels are proposed: no model"]


def test_a_photo_that_is_too_large_is_refused_as_such_so_that_the_page_shrinks_it(page: Page) -> None:
    assert page.post("/api/import?name=a.png", bomb(), **{"content-type": "image/png"}).status_code == 413


def test_a_label_comes_from_the_owner_else_from_the_nearest_folder_else_from_the_model(page: Page) -> None:
    offers = [
        import_photo(page, 1, name="trip/happy/a.png", label="fear").json()["offers"][0],
        import_photo(page, 2, name="sad/happy/a.png").json()["offers"][0],
        import_photo(page, 3, name="a.png").json()["offers"][0],
    ]
    assert [(one["emotion"], one["by"]) for one in offers] == [
        ("fear", "you"),
        ("happiness", "its folder"),
        ("anger", "the model"),
    ]
    assert [one["id"] for one in page.get("/api/offers").json()["offers"]] == [one["id"] for one in offers]


def test_what_is_left_out_of_photos_is_said_and_nothing_is_stored_of_it(page: Page, faces: Path) -> None:
    first = import_photo(page, 1, label="fear").json()["offers"][0]
    page.post("/api/decide", {"id": first["id"], "emotion": "fear"})
    assert import_photo(page, 1, label="fear").json()["left"] == ["as before"]
    second = import_photo(page, 2, label="fear").json()["offers"][0]
    assert page.post("/api/decide", {"id": second["id"], "emotion": None}).json()["stored"] is None
    third = import_photo(page, 1, label="").json()["offers"]
    assert third == []
    assert import_photo(page, 5, name="f.webm", film=1).json()["repeated"] == 0
    assert import_photo(page, 5, name="f.webm", film=1).json() == {"faces": 1, "offers": [], "left": [], "repeated": 1}
    assert [path.name for path in faces.glob("*/*.png")] == ["00001.png"]


def test_who_is_not_alone_in_a_picture_is_offered_with_that_word(page: Page) -> None:
    page.booth.studio.detector.boxes = (BOX, (10, 10, 90, 90))  # type: ignore[attr-defined]
    offers = import_photo(page, 1, 2).json()["offers"]
    assert [one["alone"] for one in offers] == [False, False]
    assert [one["name"] for one in offers] == ["a.png, face 1", "a.png, face 2"]


def test_two_equal_faces_that_wait_are_not_both_stored(page: Page) -> None:
    ids = [import_photo(page, 1, name=f"{at}.png").json()["offers"][0]["id"] for at in range(2)]
    answers = [page.post("/api/decide", {"id": number, "emotion": "fear"}).json() for number in ids]
    assert answers[0]["stored"] == "fear/00001.png"
    assert answers[1]["stored"] is None
    assert answers[1]["fault"].startswith("as before")


def test_only_so_many_faces_wait(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_desk, "MOST", 2)
    assert [import_photo(page, at).status_code for at in range(3)] == [200, 200, 400]


@pytest.mark.parametrize("query", ["", "name=", "name=a.png&label=bored", f"name={'a' * 2000}"])
def test_an_import_without_a_name_or_with_no_emotion_is_refused(page: Page, query: str) -> None:
    content = cv2.imencode(".png", frame_of(1))[1].tobytes()
    assert page.post(f"/api/import?{query}", content, **{"content-type": "image/png"}).status_code == 400


@pytest.mark.parametrize("number", ["7", "x", "1e3", "-1", "", "9" * 30])
def test_no_other_face_than_an_offered_one_is_shown_or_decided_on(page: Page, number: str) -> None:
    import_photo(page, 1)
    assert page.get(f"/api/offer?id={number}").status_code == 404
    assert page.post("/api/decide", {"id": number, "emotion": "fear"}).status_code == 404


def test_a_broken_photo_is_one_sentence(page: Page) -> None:
    answer = page.post("/api/import?name=a.png", b"broken", **{"content-type": "image/png"})
    assert (answer.status_code, answer.json()) == (400, {"error": "broken or cut short"})


def test_before_anybody_agreed_no_photo_is_looked_at(page: Page, faces: Path) -> None:
    (faces / "consent.json").unlink()
    assert import_photo(page, 1).status_code == 400
    assert page.booth.desk.offers() == []


def test_finishing_in_the_page_ends_the_session(page: Page) -> None:
    assert page.post("/api/done", {}).status_code == 200
    assert page.booth.done.is_set()


def test_the_command_says_the_link_serves_and_ends(make_studio, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    told = threading.Event()

    def say(sentence: str) -> None:
        said.append(sentence)
        told.set()

    def finish() -> None:
        told.wait(20)
        host, token = said[0].split("http://")[1].strip().split("/#")
        own = {"origin": f"http://{host}"}
        with httpx.Client(trust_env=False, base_url=f"http://{host}", headers=own) as client:
            key = client.post("/api/open", json={"token": token}).json()["key"]
            client.post("/api/done", json={}, headers={KEY_HEADER: key})

    owner = threading.Thread(target=finish)
    owner.start()
    studio = make_studio()
    browser_form.serve(studio, desk_of(studio), 0, say)
    owner.join(10)
    assert "it works once" in said[0]


def test_a_port_that_is_taken_is_one_sentence(make_studio) -> None:
    studio = make_studio()
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        with pytest.raises(RunError, match="Choose another --port"):
            browser_form.serve(studio, desk_of(studio), other.getsockname()[1], print)
