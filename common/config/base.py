"""What every configuration object is: frozen, and strict about names and numbers. The modules beside it derive from it.

What a configuration and a message to devices both name has one type, so that no run starts whose messages cannot be made.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

RoundCount = Annotated[int, Field(ge=1, le=1_000_000)]


class Settings(BaseModel):
    """Base of every configuration object."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
