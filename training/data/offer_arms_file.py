"""The file that says what every arm of a log of offers takes off."""

from pathlib import Path

from pydantic import ValidationError

from contract.errors import UserError
from contract.manifest import OFFER_ARMS
from contract.offer_arms import OfferArms


def read_arms(folder: Path) -> OfferArms:
    """The arms of a simulated log or of a fitted network. UserError where they are not there."""
    path = folder / OFFER_ARMS
    try:
        return OfferArms.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: missing; it says what every arm takes off") from None
    except ValidationError as error:
        raise UserError(f"{path}: {error.errors()[0]['msg']}") from None
