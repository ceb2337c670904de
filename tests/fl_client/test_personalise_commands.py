import json
import re
import stat
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from common.config import ModelConfig
from common.errors import ConfigError, DataError, ModelError
from common.parameters import read_parameters
from fl_client import personalise_commands as commands
from fl_client.capture.forget import forget
from fl_client.own_head import FITTED, OwnHead, personal_folder, read_head
from fl_client.own_home import remember_home
from fl_client.personal import Personalised, PersonalSettings, fit_head, mirrored, personalise, split_aside
from fl_client.personal_source import OWN, PersonalSource, own_fitted_head
from fl_client.personalise_commands import Start
from fl_client.webcam.choice import choose_model
from fl_client.webcam.model import LoopModel
from models.evaluate import evaluate
from models.export import export_onnx
from models.faces.faceset import FaceSet
from models.mobilenet import build_model
from models.onnx_session import cpu_session
from models.preprocess import Preprocessing
from models.prior import fitted_shift
from models.published import LATEST
from models.subset import HEAD
from simulation.drawn_folder import draw_folder
from tests.fl_client.versions import Versions

CONFIG = ModelConfig(name="mobilenet_v2_025", stem_stride=2)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(CONFIG).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faces") / "mine"
    draw_folder(path, 70, people=1, seed=0)
    return path


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Start:
    found = Start(CONFIG, read_parameters(network()), Preprocessing(), "a model")
    monkeypatch.setattr(commands, "_start", lambda *_: found)
    return found


def striped(n: int = 80) -> FaceSet:
    """Stripes up or across, of as many faces each: two classes."""
    random = np.random.default_rng(0)
    labels = np.arange(n) % 2
    stripes = 80 * (np.arange(48) // 4 % 2)
    across = np.broadcast_to(stripes[:, None], (48, 48))
    images = random.integers(0, 100, (n, 48, 48)) + np.where(labels[:, None, None], across, across.T)
    return FaceSet(images.astype(np.uint8), np.eye(7, dtype=np.float32)[3 * labels], CONFIG.classes)


def clusters(n: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (N, 16) far from zero, whose first value tells two classes apart, and their labels."""
    features = torch.randn((n, 16), generator=torch.Generator().manual_seed(0)) + 2
    right = features[:, 0] > 2
    return features, torch.nn.functional.one_hot(torch.where(right, 3, 5), 7).float()


def fitted(pull: float, size: float = 1.0) -> tuple[torch.nn.Linear, torch.nn.Linear]:
    """A head before and after."""
    torch.manual_seed(0)
    head = torch.nn.Linear(16, 7)
    begun = deepcopy(head)
    with torch.no_grad():
        head.weight.div_(size)
        begun.weight.div_(size)
    features, targets = clusters()
    fit_head(head, size * features, targets, PersonalSettings(pull=pull))
    return begun, head


def test_a_fitted_head_learns_what_no_shift_of_priors_can() -> None:
    features, targets = clusters()
    begun, head = fitted(1e-4)
    shifted = begun(features).detach().numpy() + fitted_shift(begun(features).detach().numpy(), targets.numpy())
    right = targets.argmax(1)
    assert (head(features).argmax(1) == right).float().mean() > 0.9
    assert (torch.from_numpy(shifted).argmax(1) == right).float().mean() < 0.75


def test_a_strong_pull_keeps_the_head_where_it_was_for_features_of_any_size() -> None:
    for size in (0.1, 1.0, 10.0):
        moved = {}
        for pull in (1e-4, 1e3):
            begun, head = fitted(pull, size)
            moved[pull] = float(size * (head.weight - begun.weight).detach().norm())
        assert moved[1e3] < 0.05 * moved[1e-4]


def test_the_head_alone_moves_and_is_judged_by_faces_it_has_not_seen() -> None:
    model, faces = network(), striped()
    weights = read_parameters(model)
    own, aside = split_aside(faces, 0.25, seed=0)
    before = evaluate(model, aside, Preprocessing())
    found = personalise(model, weights, own, aside, Preprocessing(), PersonalSettings())
    assert {name for name in weights if name.startswith(HEAD)} == set(found.head)
    after = read_parameters(model)
    assert all(np.array_equal(after[name], (weights | found.head)[name]) for name in weights)
    for given, expected in ((found.before, before), (found.after, evaluate(model, aside, Preprocessing()))):
        assert np.array_equal(given.confusion, expected.confusion)
        assert given.loss == pytest.approx(expected.loss, rel=1e-4)
    assert found.after.loss < found.before.loss


def test_each_emotion_is_set_aside_in_the_same_part_and_nothing_is_lost() -> None:
    faces = striped(40)
    own, aside = split_aside(faces, 0.2, seed=0)
    assert (len(own), len(aside)) == (32, 8)
    assert sorted(aside.labels) == [0] * 4 + [3] * 4
    assert not {image.tobytes() for image in own.images} & {image.tobytes() for image in aside.images}
    with pytest.raises(DataError, match="too few"):
        split_aside(faces.take([0, 1]), 0.2, seed=0)


def test_a_mirrored_face_keeps_its_label() -> None:
    faces = striped(6)
    both = mirrored(faces)
    assert np.array_equal(both.images[8], faces.images[2, :, ::-1])
    assert np.array_equal(both.targets[8], faces.targets[2])


def test_the_head_lies_with_the_faces_for_their_owner_alone_and_is_forgotten_with_them(
    folder: Path, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.personalise(folder, keep_anyway=True)
    said = capsys.readouterr().out
    assert "your own head" in said
    assert "webcam --personal" in said
    path = personal_folder(folder) / FITTED
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    head = read_head(path)
    assert head is not None
    assert head.facts["model"] == "a model"
    commands.personalise(folder, wipe=True)
    assert not path.exists()


def test_a_head_that_is_worse_is_not_kept(
    folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fl_client import personal as module

    fit = module.personalise

    def worse(*given: object, **more: object) -> object:
        found = fit(*given, **more)  # type: ignore[arg-type]
        right = found.before.confusion.sum()
        return replace(found, before=replace(found.before, confusion=np.eye(7, dtype=np.int64) * right))

    monkeypatch.setattr(module, "personalise", worse)
    commands.personalise(folder, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["kept"] is False
    assert told["before"]["accuracy"] == 1.0
    assert not (personal_folder(folder) / FITTED).exists()
    with pytest.raises(ConfigError, match="fl-client personalise"):
        own_fitted_head(folder)


def test_a_fit_that_is_not_finite_is_one_sentence_and_not_kept_anyway(
    folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fl_client import personal as module

    fit = module.personalise

    def diverged(*given: object, **more: object) -> Personalised:
        found = fit(*given, **more)  # type: ignore[arg-type]
        return replace(found, head={name: value * np.float32(np.nan) for name, value in found.head.items()})

    monkeypatch.setattr(module, "personalise", diverged)
    with pytest.raises(ModelError, match="not made of finite numbers"):
        commands.personalise(folder, keep_anyway=True)
    assert not (personal_folder(folder) / FITTED).exists()


@pytest.mark.parametrize("model", [Path("base"), None])
def test_whom_to_trust_is_refused_for_the_base_model_as_the_camera_loop_refuses_it(
    tmp_path: Path, model: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fl_client.webcam.remembered.remembered", lambda: None)
    with pytest.raises(ConfigError) as loops:
        choose_model(Path("base"), None, "somebody", lambda sentence: None)
    with pytest.raises(ConfigError, match=f"^{re.escape(str(loops.value))}$"):
        commands.personalise(tmp_path, model=model, trust="somebody")


def test_the_model_is_of_the_server_that_the_device_takes_part_with_in_a_home_elsewhere_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces, home, opened = tmp_path / "faces", tmp_path / "home", []

    def opening(path: Path, *_: object, **__: object) -> None:
        opened.append(path)
        raise ModelError("enough")

    monkeypatch.setattr("models.published.open_published", opening)
    for folder in (faces / ".emofl", home):
        (folder / "registry").mkdir(parents=True)
        (folder / "registry" / LATEST).symlink_to("nowhere")
    remember_home(faces, home)
    with pytest.raises(ModelError, match="enough"):
        commands.personalise(faces)
    assert opened == [home / "registry"]


def test_forgetting_all_faces_forgets_the_head(tmp_path: Path, start: Start) -> None:
    faces = tmp_path / "mine"
    draw_folder(faces, 42, people=1, seed=0)
    commands.personalise(faces, keep_anyway=True)
    assert forget(faces).gone
    assert not faces.exists()


def test_forgetting_as_json_is_json_alone(tmp_path: Path, start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    faces = tmp_path / "mine"
    draw_folder(faces, 42, people=1, seed=0)
    commands.personalise(faces, keep_anyway=True)
    for there in (True, False):
        capsys.readouterr()
        commands.personalise(faces, wipe=True, as_json=True)
        assert json.loads(capsys.readouterr().out) == {"forgotten": there}


def published(content: bytes, version: str) -> LoopModel:
    return LoopModel(CONFIG.classes, Preprocessing(), content, version, "NON-PRIVATE", False)


def with_another_trunk(content: bytes) -> bytes:
    graph = onnx.load_from_string(content)
    tensor = next(one for one in graph.graph.initializer if one.name == "features.0.0.weight")
    tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), tensor.name))
    return bytes(graph.SerializeToString())


def answers(content: bytes) -> np.ndarray:
    faces = np.random.default_rng(0).normal(size=(2, 1, 48, 48)).astype(np.float32)
    return np.asarray(cpu_session(content).run(["logits"], {"faces": faces})[0])


def test_the_camera_loop_gets_the_own_head_with_its_trunk_and_says_so_on_the_badge_and_no_head_with_another() -> None:
    from models.graft import trunk_digest

    weights = read_parameters(network())
    head = {name: value + 0.1 for name, value in weights.items() if name.startswith(HEAD)}
    own = OwnHead(head, {"trunk": trunk_digest(weights), "classes": ",".join(CONFIG.classes), "model": "v1"})
    content, said = export_onnx(network(), 48), list[str]()
    source = PersonalSource(Versions(published(content, "v1"), published(with_another_trunk(content), "v2")), own, said.append)
    first = source.newest()
    assert first.seal.promises[-1] == OWN
    assert said == []
    assert np.abs(answers(first.onnx) - answers(content)).min() > 0.05
    second = source.newer()
    assert second is not None
    assert OWN not in second.seal.promises
    assert second.onnx == with_another_trunk(content)
    assert said == ["v2 is used without your own head, which was fitted to v1."]
    assert source.newer() is None
