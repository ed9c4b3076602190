"""The file that says what every arm of a log of offers takes off."""

from pathlib import Path

from contract.manifest import OFFER_ARMS
from contract.offer_arms import OfferArms
from training.data.model_file import read_model


def read_arms(folder: Path) -> OfferArms:
    """The arms of a simulated log or of a fitted network. UserError where they are not there."""
    return read_model(folder / OFFER_ARMS, OfferArms, "it says what every arm takes off")
