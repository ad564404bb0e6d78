"""Is the same harm done for the same seed, within its time?"""

from tests.chaos.adversary import harms


def test_a_seed_says_it_all() -> None:
    assert list(harms(7, 600)) == list(harms(7, 600))
    assert list(harms(7, 600)) != list(harms(8, 600))


def test_nothing_begins_too_late_to_be_over() -> None:
    done = list(harms(3, 300))
    assert done
    assert sum(harm.after_s + harm.lasts_s for harm in done) <= 300


def test_everything_is_harmed_in_the_long_run() -> None:
    done = list(harms(1, 7200))
    assert {harm.target for harm in done} == {
        "api", "scheduler", "runner", "redis", "mysql", "sandbox",
    }  # fmt: skip
    assert {harm.deed for harm in done} == {"kill", "restart", "freeze", "cut"}


def test_hosts_that_are_played_are_harmed_besides() -> None:
    before, done = list(harms(1, 7200)), list(harms(1, 7200, hosts=1))
    of_hosts = {(harm.deed, harm.target) for harm in done if harm.target in {"engine", "host"}}
    assert of_hosts == {("kill", "engine"), ("restart", "engine"), ("partition", "host")}
    assert {harm.target for harm in before} == {harm.target for harm in done} - {"engine", "host"}
