import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.augment import augment


def faces(n: int) -> torch.Tensor:
    return torch.rand((n, 1, 48, 48), generator=torch.Generator().manual_seed(1))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_each_face_depends_on_itself_alone(seed: int) -> None:
    inputs = faces(3)
    changed = inputs.clone()
    changed[1] = 0.0
    first = augment(inputs, torch.Generator().manual_seed(seed))
    second = augment(changed, torch.Generator().manual_seed(seed))
    assert torch.equal(first[[0, 2]], second[[0, 2]])
    assert not torch.equal(first[1], second[1])


def test_faces_are_warped_differently_and_moderately() -> None:
    same = faces(1).expand(64, -1, -1, -1)
    out = augment(same, torch.Generator().manual_seed(0))
    assert len({float(face.sum()) for face in out}) == 64
    assert float(out.min()) >= 0
    assert float(out.max()) <= 1


def test_about_half_of_the_faces_are_mirrored() -> None:
    ramp = torch.linspace(0, 1, 48).expand(400, 1, 48, 48)
    out = augment(ramp, torch.Generator().manual_seed(0))
    mirrored = (out[:, 0, 24, 5] > out[:, 0, 24, 42]).float().mean()
    assert 0.4 < float(mirrored) < 0.6


def test_an_empty_batch_stays_empty() -> None:
    assert augment(faces(0), torch.Generator()).shape == (0, 1, 48, 48)
