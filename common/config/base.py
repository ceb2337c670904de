"""What every configuration object is: frozen, and strict about names and numbers. The modules beside it derive from it."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Base of every configuration object."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
