"""A study at a site uses the values of the site's own file."""

from pathlib import Path

import pytest

from cloister.client.policy_file import EXAMPLE, parse_policy
from cloister.client.site_file import SiteConfig, SiteFile
from cloister.deployment.site.opened_site import own_rank
from cloister.errors import RefusedError, UsageError
from cloister.recipe import parse_recipe

MIXED = parse_recipe(
    "",
    [
        "strategy.name=flexlora",
        "training.mode=local-steps",
        "lora.train=both",
        "lora.ranks=[1, 2, 2, 4]",
    ],
)


def site_file(rank: int | None) -> SiteFile:
    site = SiteConfig(name="a", data="a.jsonl", public_records=9, ledger="a.ledger", rank=rank)
    return SiteFile(Path("site.toml"), site, parse_policy(EXAMPLE))


def test_a_site_s_rank_is_its_own_where_the_study_has_it() -> None:
    assert own_rank(site_file(2), MIXED) == 2
    assert own_rank(site_file(None), MIXED) == 4
    assert own_rank(site_file(2), parse_recipe("")) is None
    with pytest.raises(RefusedError, match=r"site\.rank: 3 at this site; .* has 1, 2, 4"):
        own_rank(site_file(3), MIXED)
    with pytest.raises(UsageError, match="rank: 0 given"):
        site_file(0)
