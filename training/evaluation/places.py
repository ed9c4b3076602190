"""What drawn places say: how often what a policy would show there is bought, for the policy that
always shows the usual item and the one that shows anything of the pool alike."""

from collections.abc import Mapping

import numpy as np

from contract import off_policy as ope
from contract.figures import Figures
from contract.off_policy import Logged
from training.data.drawn_places import DrawnPlaces


def place_logs(drawn: DrawnPlaces) -> Mapping[str, Logged]:
    """For each policy the drawn places as a log: nothing that either does had no chance."""
    none = np.zeros(len(drawn))

    def log(target: np.ndarray) -> Logged:
        return Logged(drawn.bought, drawn.propensity, target, drawn.person, none, none)

    return {"usual": log(drawn.usual.astype(np.float64)), "any of the pool": log(1.0 / drawn.pool)}


def place_figures(drawn: DrawnPlaces) -> Figures:
    """A row a policy and estimate, and their overlap."""
    figures = Figures("evaluate-policy")
    logs = place_logs(drawn)
    for name, log in logs.items():
        for estimator, one in (("IPS", ope.ips(log)), ("SNIPS", ope.snips(log))):
            row = {"bought": [one.value], "low": [one.low], "high": [one.high]}
            figures.add(f"{name}/{estimator}", row)
        seen = ope.overlap(log)
        told = {"places": [float(seen.decisions)], "effective": [seen.effective]}
        figures.add(f"{name}/overlap", told | {"mean weight": [seen.mean_weight]})
        figures.notes += [f"{name}: {text}" for text in seen.warnings]
        if seen.refused is not None:
            figures.notes.append(f"{name}: {seen.refused}")
    apart = ope.snips(logs["usual"]).less(ope.snips(logs["any of the pool"]))
    row = {"bought": [apart.value], "low": [apart.low], "high": [apart.high]}
    figures.add("usual less any/SNIPS", row)
    figures.notes.append("bought: of the item shown at a drawn place, 95 % intervals over people")
    return figures
