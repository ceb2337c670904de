"""The device's own rules. A server's request is a wish; what breaks a rule here is refused before anything is computed."""

from pydantic import Field

from common.config import PrivacyConfig, Settings


class Policy(Settings):
    """What the device's owner allows.

    Attributes:
        largest_epsilon: ceiling of the cumulative record-level epsilon, whatever a server asks.
        largest_delta: ceiling of delta; below 1 / n it must stay in any case.
        allow_non_private: take part in runs without any privacy.
        most_steps, largest_batch: of one round, so that a request cannot keep the device busy for ever.
    """

    largest_epsilon: float = Field(default=8.0, gt=0)
    largest_delta: float = Field(default=1e-5, gt=0, lt=1)
    allow_non_private: bool = False
    most_steps: int = Field(default=10_000, ge=1)
    largest_batch: int = Field(default=4096, ge=1)

    def too_much(self, steps: int, batch: float) -> str | None:
        """Why a round of `steps` steps with `batch` expected examples each is refused, or None."""
        if steps > self.most_steps or batch > self.largest_batch:
            return (
                f"The server asks for {steps} steps of about {batch:.0f} faces; this device allows {self.most_steps} of "
                f"{self.largest_batch}."
            )
        return None

    def objection(self, wish: PrivacyConfig, examples: int) -> str | None:
        """Why a request for data of `examples` faces is refused, as a sentence for the device's owner, or None."""
        if not wish.private:
            return (
                None if self.allow_non_private else "The server asks to train without privacy, which this device does not allow."
            )
        if wish.epsilon > self.largest_epsilon:
            return f"The server asks for epsilon {wish.epsilon:g}; this device allows {self.largest_epsilon:g}."
        if wish.delta > self.largest_delta or wish.delta >= 1 / examples:
            return f"The server asks for delta {wish.delta:g}; this device allows {min(self.largest_delta, 1 / examples):g}."
        return None
