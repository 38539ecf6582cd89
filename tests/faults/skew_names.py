"""Names of the programs in skew_program.py: who imports that has a schedule that ticks each minute."""

UNTIL, HASTY, TICK = "skew-until", "skew-hasty", "skew-tick"
