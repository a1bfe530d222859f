"""Secure aggregation between real processes: an agent is killed, and comes back with new keys."""

from pathlib import Path

from cloister.client.site_file import read_site
from cloister.deployment.coordinator.journal import RunStatus, read_run
from cloister.ledger.ledger import key_file
from cloister.ledger.signing import load_key, public_hex
from cloister.server.run_directory import RunDirectory
from tests.support.federation import Federation, check_history, federation

SITES = ("east", "north", "west")
SHARED = [
    "privacy.noise=shared",
    "privacy.missing_sites=1",
    "privacy.colluding_sites=0",
    "training.mode=gradient-rounds",
    "training.local_steps=1",
    "federation.absent_timeout=5.0",
]


def know_each_other(made: Federation) -> None:
    """Each institution lists the others' keys, as these told it."""
    keys = {name: public_hex(load_key(key_file(site.ledger))) for name, site in made.sites.items()}
    for name, site in made.sites.items():
        partners = [key for other, key in keys.items() if other != name]
        text = site.path.read_text().replace(
            "max_rounds = 1000",
            f"max_rounds = 1000\nnoise_partners = {partners}\nmin_colluding = 0",
            1,  # of [accept]; the standing approval's comes later
        )
        site.path.write_text(text.replace("shared_noise = false", "shared_noise = true"))
        made.sites[name] = read_site(site.path)


def test_rounds_go_on_in_a_new_epoch_after_an_agent_was_killed(tmp_path: Path) -> None:
    with federation(tmp_path, SITES, epsilon="20.0", noise=0.6) as made:
        know_each_other(made)
        for who in ("server", *made.sites):
            made.start(who)
        place = made.submit("shared", 4, *SHARED)
        made.wait_closed("shared", 1)
        assert made.kill("west", "agent")
        assert made.wait_ended("shared") is RunStatus.FINISHED, read_run(place).error
        rows = RunDirectory(place).metrics()
        assert [row["round"] for row in rows] == [1, 2, 3, 4]
        assert all(len(row["received"]) >= 2 for row in rows)
        assert all(row["update_norm"] > 0 for row in rows)
        check_history(made, "shared")
        # Nothing of one site's update is anywhere at the coordinator, but each site's certificate.
        kept = {
            file.name
            for file in place.rglob("*")
            if file.is_file() and file.parent.name != "certificates"
        }
        assert not any(name in file for file in kept for name in SITES)
