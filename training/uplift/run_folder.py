"""A fitted uplift network on disk: its weights, its shape, the arms it tells apart, and what speaks
for it."""

import json
from dataclasses import asdict
from pathlib import Path

import torch

from contract.errors import UserError
from contract.manifest import OFFER_ARMS
from contract.offer_arms import OfferArms
from training.data.offer_arms_file import read_arms
from training.data.storage import make_folder
from training.models.offer_uplift import Members, OfferUplift
from training.uplift.evidence import Evidence, write_evidence
from training.uplift.fit import UpliftRecipe

WEIGHTS, RECIPE = "offer_uplift.pt", "offer_uplift.json"


def write_uplift(
    folder: Path, model: Members, arms: OfferArms, recipe: UpliftRecipe, evidence: Evidence
) -> None:
    """Weights, recipe, arms and evidence into `folder`."""
    make_folder(folder)
    torch.save(model.state_dict(), folder / WEIGHTS)
    (folder / RECIPE).write_text(json.dumps(asdict(recipe), indent=1) + "\n", encoding="utf-8")
    told = arms.of_this_version().model_dump_json(indent=1)
    (folder / OFFER_ARMS).write_text(told + "\n", encoding="utf-8")
    write_evidence(folder, evidence)


def read_uplift(folder: Path) -> tuple[Members, OfferArms]:
    """What `write_uplift` wrote. UserError where it is not there, or is of another version."""
    arms = read_arms(folder)
    if arms.problem is not None:
        raise UserError(f"{folder / OFFER_ARMS}: {arms.problem}")
    try:
        recipe = UpliftRecipe(**json.loads((folder / RECIPE).read_text(encoding="utf-8")))
        state = torch.load(folder / WEIGHTS, weights_only=True)
        networks = [
            OfferUplift(len(arms.features), 1 + len(arms.arms), recipe.hidden, recipe.dropout)
            for _ in range(recipe.members)
        ]
        model = Members(networks)
        model.load_state_dict(state)
    except FileNotFoundError as error:
        raise UserError(
            f"{error.filename}: missing; make it with `tillwise-train uplift`"
        ) from None
    except (TypeError, ValueError, RuntimeError, KeyError, EOFError) as error:
        raise UserError(f"{folder}: not a fitted uplift network ({error})") from None
    return model.eval(), arms
