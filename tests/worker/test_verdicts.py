"""Who is dead: silence proves it, a free lock only shortens the wait, an outage condemns nobody."""

from polos.journal.workers import SeenWorker
from polos.worker.verdicts import SUSPICION_SECONDS, Coroner

UP = float("inf")
LIMIT = 10.0


def worker(*, beat_at: float, now: float, id: str = "w") -> SeenWorker:
    return SeenWorker(id=id, hostname=id, routes="polos", lock_key=1, beat_at=beat_at, now=now)


class Sweeps:
    """Runs a coroner through one look after another."""

    def __init__(self) -> None:
        self.coroner = Coroner(silence_limit_seconds=LIMIT)

    def at(self, now: float, *, beat_at: float, free: bool, up: float = UP) -> bool:
        seen = worker(beat_at=beat_at, now=now)
        found = self.coroner.dead([seen], {"w"} if free else set(), now=now, server_up_seconds=up)
        return found == [seen]

    def each_second(self, start: int, end: int, *, beat_at: float, free: bool, up: float = UP) -> list[int]:
        """Return the seconds at which the worker was found dead."""
        return [now for now in range(start, end) if self.at(float(now), beat_at=beat_at, free=free, up=up)]


def test_a_worker_whose_lock_became_free_while_it_was_beating_is_dead_after_the_suspicion():
    sweeps = Sweeps()
    assert not sweeps.at(100.0, beat_at=99.5, free=True)
    assert not sweeps.at(100.0 + SUSPICION_SECONDS - 0.1, beat_at=99.5, free=True)
    assert sweeps.at(100.0 + SUSPICION_SECONDS, beat_at=99.5, free=True)


def test_a_worker_that_beats_although_its_lock_is_free_lives():
    sweeps = Sweeps()
    looks = [sweeps.at(100.0 + second, beat_at=99.9 + second, free=True) for second in range(60)]
    assert not any(looks)


def test_a_silent_worker_that_holds_its_lock_is_dead_after_the_silence_limit_only():
    sweeps = Sweeps()
    assert sweeps.each_second(100, 130, beat_at=100.0, free=False)[0] == 110


def test_a_new_sweeper_judges_nobody_by_silence_before_it_has_watched_for_the_whole_limit():
    """After an outage every beat is overdue; everyone gets the time to beat again."""
    sweeps = Sweeps()
    assert sweeps.each_second(1000, 1030, beat_at=900.0, free=False)[0] == 1010


def test_a_new_sweeper_does_not_trust_free_locks_of_workers_that_were_silent_before():
    """A cut network drops all locks and delays all beats alike."""
    sweeps = Sweeps()
    assert sweeps.each_second(1000, 1030, beat_at=990.0, free=True)[0] == 1010


def test_nobody_is_judged_while_the_database_server_is_younger_than_the_limit():
    """A restart frees every lock at once."""
    sweeps = Sweeps()
    for second in range(20):
        up = float(second)
        dead = sweeps.at(100.0 + second, beat_at=99.5, free=True, up=up)
        assert dead == (up >= LIMIT)


def test_losing_the_database_starts_the_watch_anew():
    sweeps = Sweeps()
    sweeps.each_second(100, 105, beat_at=100.0, free=False)
    sweeps.coroner.lost_contact()
    assert sweeps.each_second(105, 140, beat_at=100.0, free=False)[0] == 115


def test_a_sweeper_that_stood_still_itself_starts_the_watch_anew():
    """A suspended machine or a starved thread sees everyone overdue when it wakes up."""
    sweeps = Sweeps()
    sweeps.each_second(100, 103, beat_at=102.0, free=False)
    assert sweeps.each_second(160, 190, beat_at=102.0, free=False)[0] == 170


def test_suspicion_makes_the_next_look_come_sooner():
    sweeps = Sweeps()
    sweeps.at(100.0, beat_at=99.5, free=True)
    assert sweeps.coroner.suspects
    sweeps.at(101.0, beat_at=100.5, free=False)
    assert not sweeps.coroner.suspects
