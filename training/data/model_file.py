"""A file of JSON that holds one model."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from contract.errors import UserError

M = TypeVar("M", bound=BaseModel)


def read_model(path: Path, kind: type[M], missing: str) -> M:
    """The model in `path`. UserError where it is malformed, or not there, which says `missing`."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: missing; {missing}") from None
    except ValidationError as error:
        raise UserError(f"{path}: {error.errors()[0]['msg']}") from None
