import pytest

from common.errors import ConfigError, IntegrityError
from fl_client.mirror import KEPT, Mirror
from models import published as reading
from models.manifest import ONNX, SAFETENSORS
from models.published import TooLarge, open_published, version_names
from tests.publishing import KEY, OTHER_KEY, onnx_of_round, publish


@pytest.fixture
def mirror(tmp_path):
    return Mirror(tmp_path / "mirror", KEY.public)


def announced(mirror, published):
    folder = published.folder
    return mirror.verify(published.name, (folder / "manifest.json").read_bytes(), (folder / "manifest.sig").read_bytes())


def chunks(content, offset=0, size=7):
    for place in range(offset, len(content), size):
        yield place, content[place : place + size]


def copy(mirror, published):
    notice = announced(mirror, published)
    for download in mirror.missing(notice):
        content = (published.folder / download.name).read_bytes()
        download.write(chunks(content, download.offset))
    mirror.accept(notice)


def test_a_mirrored_version_opens_like_the_published_one(mirror, tmp_path):
    published = publish(tmp_path / "registry", 1)
    copy(mirror, published)
    model = open_published(mirror.folder, KEY.public)
    assert model.onnx_bytes() == onnx_of_round(1)
    assert model.manifest == published.manifest
    assert mirror.newest() == (1, published.manifest_sha256)
    assert not list((mirror.folder / ".partial").iterdir())


def test_versions_may_be_left_out_and_old_ones_go(mirror, tmp_path):
    for number in range(1, 9):
        published = publish(tmp_path / "registry", number)
        if number != 3:
            copy(mirror, published)
    assert [name[:6] for name in version_names(mirror.folder)] == ["000006", "000007", "000008"]
    assert KEPT == 3


def test_a_notice_of_what_is_here_or_older_is_no_news(mirror, tmp_path):
    first, second = publish(tmp_path / "registry", 1), publish(tmp_path / "registry", 2)
    copy(mirror, second)
    assert announced(mirror, second) is None
    assert announced(mirror, first) is None


def test_a_notice_that_the_publisher_did_not_sign_is_refused(mirror, tmp_path):
    with pytest.raises(IntegrityError, match="signature"):
        announced(mirror, publish(tmp_path / "registry", 1, key=OTHER_KEY))


def test_a_notice_under_a_wrong_name_is_refused(mirror, tmp_path):
    published = publish(tmp_path / "registry", 1)
    content, signature = ((published.folder / name).read_bytes() for name in ("manifest.json", "manifest.sig"))
    with pytest.raises(IntegrityError, match="by the name"):
        mirror.verify("../../x", content, signature)


def test_a_second_history_of_the_same_publisher_is_refused(mirror, tmp_path):
    copy(mirror, publish(tmp_path / "registry", 1))
    publish(tmp_path / "fork", 5)
    with pytest.raises(IntegrityError, match="two histories"):
        announced(mirror, publish(tmp_path / "fork", 6))


def test_a_broken_download_goes_on_where_it_stopped(mirror, tmp_path):
    published = publish(tmp_path / "registry", 1)
    notice = announced(mirror, published)
    first = next(mirror.missing(notice))
    content = (published.folder / first.name).read_bytes()

    def breaking():
        yield from chunks(content[:21])
        raise ConnectionError

    with pytest.raises(ConnectionError):
        first.write(breaking())
    again = next(Mirror(mirror.folder, KEY.public).missing(announced(mirror, published)))
    assert (again.name, again.offset) == (first.name, 21)
    again.write(chunks(content, 21))
    assert again.whole()


@pytest.mark.parametrize("place", [0, 30])
def test_a_file_that_arrives_altered_is_thrown_away(mirror, tmp_path, place):
    published = publish(tmp_path / "registry", 1)
    download = next(mirror.missing(announced(mirror, published)))
    content = bytearray((published.folder / download.name).read_bytes())
    content[place] ^= 1
    with pytest.raises(IntegrityError, match="altered"):
        download.write(chunks(bytes(content)))
    assert download.offset == 0


@pytest.mark.parametrize("bad", [[(3, b"abc")], [(0, b"abc"), (2, b"x")], [(0, b"x" * 10_000_000)]])
def test_chunks_that_do_not_join_up_or_are_too_many_are_refused(mirror, tmp_path, bad):
    download = next(mirror.missing(announced(mirror, publish(tmp_path / "registry", 1))))
    with pytest.raises(IntegrityError, match="other bytes"):
        download.write(iter(bad))
    assert download.offset <= download.entry.bytes


def test_a_version_that_is_not_whole_never_becomes_the_latest(mirror, tmp_path):
    published = publish(tmp_path / "registry", 1)
    notice = announced(mirror, published)
    for download in mirror.missing(notice):
        if download.name == SAFETENSORS:
            download.write(chunks((published.folder / SAFETENSORS).read_bytes()))
    with pytest.raises(IntegrityError, match=ONNX):
        mirror.accept(notice)
    assert mirror.newest() == (0, "")
    assert not (mirror.folder / "LATEST").exists()


def test_a_version_that_does_not_fit_into_memory_is_thrown_away_and_not_fetched_again(mirror, tmp_path, monkeypatch):
    def full(path, limit):
        if path.name in (ONNX, SAFETENSORS):
            raise MemoryError
        return whole(path, limit)

    whole = reading.read_plain
    monkeypatch.setattr(reading, "read_plain", full)
    published = publish(tmp_path / "registry", 1)
    with pytest.raises(TooLarge, match="is refused: this machine has too little free memory"):
        copy(mirror, published)
    assert not list((mirror.folder / ".partial").iterdir())
    assert announced(mirror, published) is None
    monkeypatch.undo()
    following = publish(tmp_path / "registry", 2)
    copy(mirror, following)
    assert mirror.newest() == (2, following.manifest_sha256)


def test_parts_of_an_older_version_are_cleared_away(mirror, tmp_path):
    first = publish(tmp_path / "registry", 1)
    next(mirror.missing(announced(mirror, first))).write(iter([(0, b"abc")]))
    copy(mirror, publish(tmp_path / "registry", 2))
    assert not list((mirror.folder / ".partial").iterdir())


def test_a_version_damaged_on_this_disk_is_fetched_anew(mirror, tmp_path):
    published = publish(tmp_path / "registry", 1)
    copy(mirror, published)
    (mirror.folder / "versions" / published.name / "manifest.json").write_bytes(b"damaged")
    assert mirror.newest() == (0, "")
    copy(mirror, published)
    assert open_published(mirror.folder, KEY.public).onnx_bytes() == onnx_of_round(1)


def test_a_folder_of_another_publisher_is_left_alone(tmp_path):
    publish(tmp_path / "registry", 1, key=OTHER_KEY)
    with pytest.raises(ConfigError, match="another publisher"):
        Mirror(tmp_path / "registry", KEY.public)
