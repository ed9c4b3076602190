"""`tillwise-train uplift`: from simulated checkouts to a network on disk."""

from pathlib import Path

import pytest

from contract.manifest import OFFER_ARMS
from tests.training.data.test_simulate import run
from training.__main__ import main
from training.data.offer_arms_file import read_arms
from training.uplift.run_folder import read_uplift


def test_a_simulated_log_becomes_a_network(
    catalogue_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output = run(catalogue_file, tmp_path / "shop", num_shoppers=600), tmp_path / "offers"
    asked = ["uplift", "--data", str(data), "--output", str(output)]
    assert main(asked) == 0
    assert "free_shipping" in capsys.readouterr().out
    _, arms = read_uplift(output)
    assert arms == read_arms(data).of_this_version()
    assert [arm.name for arm in arms.arms][-1] == "free_shipping"
    (data / OFFER_ARMS).unlink()
    assert main(asked) == 2
    assert "says what every arm takes off" in capsys.readouterr().err
