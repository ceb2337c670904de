import numpy as np
import pytest
import torch
from scipy import stats

from common.errors import ConfigError
from common.privacy.mechanisms import DRAWS, PoissonSampling, SecureRandom

KEY = bytes(range(32))


def test_the_keystream_is_aes_256_in_counter_mode() -> None:
    """The key stream of NIST SP 800-38A's AES-256 key from a zero counter is AES of 0, 1, ...: checked block by block."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    block = Cipher(algorithms.AES256(KEY), modes.ECB()).encryptor()
    expected = b"".join(block.update(counter.to_bytes(16, "big")) for counter in range(4))
    assert SecureRandom(KEY).uint32(16).tobytes() == expected


def test_fresh_streams_differ_and_ignore_every_seed() -> None:
    torch.manual_seed(0)
    first = SecureRandom().normal(100, 1.0)
    torch.manual_seed(0)
    assert not torch.equal(first, SecureRandom().normal(100, 1.0))


def test_noise_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    SecureRandom().normal(1000, 1.0)
    assert torch.equal(before, torch.get_rng_state())


def test_noise_is_gaussian_with_the_asked_deviation() -> None:
    sample = SecureRandom(KEY).normal(200_000, 2.5).numpy()
    assert stats.kstest(sample / 2.5, "norm").pvalue > 1e-3
    halves = sample[:100_000], sample[100_000:]
    assert abs(np.corrcoef(*halves)[0, 1]) < 0.02
    assert abs(np.corrcoef(halves[0] ** 2, halves[1] ** 2)[0, 1]) < 0.02


def test_every_value_of_noise_depends_on_several_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """One Box-Muller draw takes only so many values, and which ones are possible tells what was added to it (Mironov 2012)."""

    class Stream:
        """Keystream bytes of all ones, but for one block."""

        def __init__(self, changed: int) -> None:
            self.calls, self.changed = 0, changed

        def update_into(self, given: bytes, into: bytearray) -> int:
            into[: len(given)] = bytes([0x15 if self.calls == self.changed else 0x27]) * len(given)
            self.calls += 1
            return len(given)

    def values(changed: int) -> tuple[float, ...]:
        random, stream = SecureRandom(KEY), Stream(changed)
        monkeypatch.setattr(random, "_stream", stream)
        found = tuple(random.normal(2, 1.0).tolist())
        assert stream.calls == DRAWS >= 4
        return found

    base = values(-1)
    for draw in range(DRAWS):
        assert all(one != other for one, other in zip(values(draw), base, strict=True))


def test_noise_is_finite_and_reaches_the_tails() -> None:
    sample = SecureRandom(KEY).normal(2_000_000, 1.0)
    assert bool(sample.isfinite().all())
    assert 4.5 < float(sample.abs().max()) < 7


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_any_number_of_values_can_be_drawn(count: int) -> None:
    assert SecureRandom().normal(count, 1.0).shape == (count,)


def test_consecutive_draws_of_one_stream_are_not_alike() -> None:
    stream = SecureRandom(KEY)
    first, second = stream.normal(50_000, 1.0), stream.normal(50_000, 1.0)
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.02


def test_poisson_batches_hold_each_example_independently_at_the_rate() -> None:
    sampling = PoissonSampling(200, 0.1, 1.0)
    batches = list(sampling.batches(3000, SecureRandom(KEY)))
    counts = np.bincount(np.concatenate(batches), minlength=200)
    sizes = np.array([len(batch) for batch in batches])
    assert abs(counts.mean() / 3000 - 0.1) < 0.003
    assert stats.chisquare(counts).pvalue > 1e-4
    assert abs(sizes.var() - 200 * 0.1 * 0.9) < 2


def test_poisson_batches_are_not_of_one_size() -> None:
    sizes = {len(batch) for batch in PoissonSampling(100, 0.3, 1.0).batches(50, SecureRandom(KEY))}
    assert len(sizes) > 5


def test_a_small_rate_gives_empty_batches_too() -> None:
    assert any(len(batch) == 0 for batch in PoissonSampling(10, 0.05, 1.0).batches(50, SecureRandom(KEY)))


def test_rate_one_takes_everybody_each_time() -> None:
    assert all(len(batch) == 30 for batch in PoissonSampling(30, 1.0, 1.0).batches(5, SecureRandom()))


@pytest.mark.parametrize(("examples", "rate"), [(0, 0.5), (10, 0.0), (10, 1.5)])
def test_impossible_sampling_is_refused(examples: int, rate: float) -> None:
    with pytest.raises(ConfigError):
        PoissonSampling(examples, rate, 1.0)
