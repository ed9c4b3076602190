"""How long each kind of data is kept: the one place that says so."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Days = Annotated[int, Field(ge=1, le=36_500)]


class Retention(BaseModel):
    """Periods in days. A subject goes as a whole when nothing of it is left and its last word on
    consent is older than `subjects`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    behaviour: Days = 395  # events, and what features and a worker's facts remember of them
    decisions: Days = 395  # what was shown
    subjects: Days = 395
    exports: Days = 90  # Parquet files that were made for training
    audit: Days = 1_095  # lines of the audit log
