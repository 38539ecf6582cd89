"""When cron lines fire, against a count of all minutes."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from polos.cron import CronSchedule, cron_schedule, last_tick, next_tick

pytestmark = pytest.mark.timeout(120)

DAYS = ["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"]
# A zone, and the day before its clock is changed.
CHANGES = [
    ("Europe/Berlin", "2026-03-28"),
    ("Europe/Berlin", "2026-10-24"),
    ("America/New_York", "2026-03-07"),
    ("America/New_York", "2026-10-31"),
    ("Australia/Lord_Howe", "2026-04-04"),  # by half an hour
    ("Australia/Lord_Howe", "2026-10-03"),
    ("America/Havana", "2026-03-07"),  # at midnight
    ("America/Havana", "2026-10-31"),
    ("Asia/Beirut", "2026-03-28"),
    ("Asia/Beirut", "2026-10-24"),
    ("Africa/Cairo", "2026-04-23"),
    ("Pacific/Apia", "2011-12-29"),  # a day that never was
    ("Asia/Kathmandu", "2026-05-01"),
    ("UTC", "2026-02-28"),
]


def seconds(text: str) -> float:
    """Return a time with its offset, in seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()


def shown(tick: float | None, zone: str) -> str | None:
    return (
        None if tick is None else datetime.fromtimestamp(tick, ZoneInfo(zone)).isoformat(timespec="minutes")
    )


class Oracle:
    """All ticks of a line in a few days, from its definition: a look at every minute there is."""

    def __init__(self, minutes: set[int], hours: set[int] | None, weekdays: set[int] | None) -> None:
        self.minutes, self.hours, self.weekdays = minutes, hours, weekdays

    @property
    def cron(self) -> str:
        def listed(values: set[int] | None) -> str:
            return "*" if values is None else ",".join(map(str, sorted(values)))

        return f"{listed(self.minutes)} {listed(self.hours)} * * {listed(self.weekdays)}"

    def fits(self, local: datetime) -> bool:
        return (
            local.minute in self.minutes
            and (self.hours is None or local.hour in self.hours)
            and (self.weekdays is None or local.isoweekday() % 7 in self.weekdays)
        )

    def ticks(self, zone: ZoneInfo, start: datetime, *, days: int) -> list[float]:
        """Go through every minute that passes."""
        found, latest = [], None
        for minute in range(days * 24 * 60):
            moment = start + timedelta(minutes=minute)
            local = moment.astimezone(zone).replace(tzinfo=None)
            if self.hours is None or latest is None:
                passed = [local]
            else:  # all that the clock on the wall passed for the first time, those it jumped over too
                passed = [
                    latest + timedelta(minutes=n)
                    for n in range(1, (local - latest) // timedelta(minutes=1) + 1)
                ]
            latest = local if latest is None else max(latest, local)
            if any(self.fits(one) for one in passed):
                found.append(moment.timestamp())
        return found


def some_line(chance: random.Random) -> Oracle:
    minutes = set(chance.sample(range(60), chance.choice([1, 2, 4])))
    hours = None if chance.random() < 0.4 else set(chance.sample(range(24), chance.choice([2, 6, 20])))
    weekdays = None if chance.random() < 0.6 else set(chance.sample(range(7), 4))
    return Oracle(minutes, hours, weekdays)


@pytest.mark.parametrize(("zone", "day"), CHANGES)
def test_ticks_around_a_change_of_the_clock_are_those_a_count_of_all_minutes_gives(
    zone: str, day: str
) -> None:
    chance = random.Random(f"{zone}{day}")
    start = datetime.fromisoformat(f"{day}T00:00+00:00") - timedelta(hours=14)
    for _ in range(8):
        line = some_line(chance)
        expected = line.ticks(ZoneInfo(zone), start, days=3)
        found, tick = [], start.timestamp() - 1
        while (tick := next_tick(line.cron, zone, tick) or 0) < start.timestamp() + 3 * 86400:
            found.append(tick)
        # A time of wall clock that began before the first minute looked at may differ.
        edge = start.timestamp() + 3600
        assert [t for t in found if t > edge] == [t for t in expected if t > edge], line.cron


def test_asking_between_ticks_gives_the_same_ticks() -> None:
    chance = random.Random(5)
    start = seconds("2026-10-24T20:00+00:00")
    for cron in ("*/20 * * * *", "30 2 * * *", "15,45 1-3 * * *"):
        ticks = []
        tick = start
        for _ in range(12):
            tick = next_tick(cron, "Europe/Berlin", tick) or 0
            ticks.append(tick)
        for _ in range(100):
            moment = chance.uniform(start, ticks[-1] - 1)
            expected = min(t for t in ticks if t > moment)
            assert next_tick(cron, "Europe/Berlin", moment) == expected


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        ("30 2 * * *", "2026-03-28T12:00+01:00", "2026-03-29T03:00+02:00"),  # skipped: the next there is
        ("30 2 * * *", "2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"),  # and only once
        ("30 2 * * *", "2026-10-24T12:00+02:00", "2026-10-25T02:30+02:00"),  # repeated: the first
        ("30 2 * * *", "2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"),  # and only once
        ("30 * * * *", "2026-10-25T02:30+02:00", "2026-10-25T02:30+01:00"),  # each hour that passes
        ("30 * * * *", "2026-03-29T01:30+01:00", "2026-03-29T03:30+02:00"),
    ],
)
def test_a_changed_clock_neither_loses_a_tick_nor_doubles_it(cron: str, after: str, expected: str) -> None:
    assert shown(next_tick(cron, "Europe/Berlin", seconds(after)), "Europe/Berlin") == expected


@pytest.mark.parametrize("sunday", ["0", "7", "SUN", "sun"])
def test_sunday_is_0_and_7(sunday: str) -> None:
    tick = next_tick(f"0 9 * * {sunday}", "UTC", seconds("2026-11-23T00:00+00:00"))
    assert shown(tick, "UTC") == "2026-11-29T09:00+00:00"


@pytest.mark.parametrize("days", ["1-5", "MON-FRI"])
def test_1_to_5_are_monday_to_friday(days: str) -> None:
    tick, found = seconds("2026-11-23T00:00+00:00"), []
    for _ in range(7):
        tick = next_tick(f"0 9 * * {days}", "UTC", tick) or 0
        found.append(DAYS[datetime.fromtimestamp(tick, UTC).weekday()])
    assert found == ["MON", "TUE", "WED", "THU", "FRI", "MON", "TUE"]


def test_a_tick_is_after_the_time_asked_for_never_at_it() -> None:
    eight = seconds("2026-11-23T08:00+00:00")
    assert next_tick("0 8 * * *", "UTC", eight) == eight + 86400
    assert next_tick("0 8 * * *", "UTC", eight - 0.5) == eight
    assert next_tick("0 8 * * *", "UTC", eight + 0.5) == eight + 86400


@pytest.mark.parametrize("cron", ["* * * * *", "0 8 * * *", "0 0 29 2 *"])
def test_the_last_tick_of_a_long_time_is_the_one_before_the_next(cron: str) -> None:
    since, until = seconds("2015-01-01T00:00+00:00"), seconds("2026-11-23T08:00+00:00")
    last = last_tick(cron, "UTC", since, until)
    assert last is not None
    assert last <= until < (next_tick(cron, "UTC", last) or 0)


def test_both_ends_count_when_the_last_tick_is_looked_for() -> None:
    eight = seconds("2026-11-23T08:00+00:00")
    assert last_tick("0 8 * * *", "UTC", eight, eight) == eight
    assert last_tick("0 8 * * *", "UTC", eight + 1, eight + 60) is None


@pytest.mark.parametrize("cron", ["0 0 31 2 *", "0 0 30 2 *", "0 0 31 4,6 *", "0 0 */31 2 5#5"])
def test_a_line_that_never_fires_is_refused(cron: str) -> None:
    with pytest.raises(ValueError, match="cron expression"):
        CronSchedule(cron)


@pytest.mark.parametrize(
    "cron",
    ["", "@daily", "* * * *", "0 0 8 * * *", "60 * * * *", "0 24 * * *", "* * * * 8", "a b c d e", 5, "FRI"],
)
def test_what_is_no_line_of_five_fields_is_refused_by_name(cron: object) -> None:
    with pytest.raises(ValueError, match=r"cron expression .* cannot be used"):
        CronSchedule(cron)  # type: ignore[arg-type]


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "Europe", "../../etc/passwd", 5, None])
def test_a_zone_that_does_not_exist_is_refused(zone: object) -> None:
    with pytest.raises(ValueError, match=r"time zone .* is unknown"):
        cron_schedule({"cron": "0 8 * * *", "timezone": zone})
