"""How a head of one's own is fitted, with every default. Free of torch; `fl_client.personal` fits with it."""

from pydantic import Field

from common.config import Settings


class PersonalSettings(Settings):
    """How a head is fitted.

    Attributes:
        pull: how strongly it is held near the model's own head with its class priors shifted, which keeps few faces from bending
            it: half of this is about what it costs, beside the mean cross-entropy, to move a logit of a typical face by one.
        steps: of L-BFGS, over all faces at once, each also seen in a mirror.
        aside: part of the faces that are not fitted, and by which the head is judged.
    """

    pull: float = Field(default=0.3, gt=0, le=1e6)
    steps: int = Field(default=30, ge=1, le=10_000)
    aside: float = Field(default=0.2, gt=0, lt=1)
