"""Schedules: workflows that start by the clock, in any time zone, each tick exactly once."""

import asyncio

from polos import Polos, SchedulePayload, WorkflowContext, schedules, workflow


@workflow(schedule="0 3 * * *")
async def clean_up(ctx: WorkflowContext, tick: SchedulePayload) -> dict:
    removed = await ctx.step.run("remove", lambda: 25)
    print(f"cleaned up for {tick.key}")
    return {"removed": removed}


@workflow(schedule={"cron": "0 8 * * 1-5", "timezone": "Europe/Berlin"})
async def morning_report(ctx: WorkflowContext, tick: SchedulePayload) -> None:
    await ctx.step.run("write", print, f"the report of {tick.timestamp:%A}")


@workflow(schedule=True)
async def remind(ctx: WorkflowContext, tick: SchedulePayload) -> None:
    await ctx.step.run("remind", print, f"reminder for {tick.key}")


async def main() -> None:
    async with Polos(log_file="polos.log") as polos:
        for person, zone in {"ada": "Europe/London", "grace": "America/New_York"}.items():
            schedule = await schedules.create(
                client=polos, workflow="remind", cron="0 9 * * *", timezone=zone, key=person
            )
            print(f"schedule {schedule}")
        for schedule in await schedules.list(polos):
            print(schedule.workflow_id, schedule.key, schedule.cron, schedule.timezone, schedule.status)
        tick = SchedulePayload.model_validate(
            {
                "timestamp": "2030-01-01T03:00:00Z",
                "last_timestamp": None,
                "timezone": "UTC",
                "schedule_id": "by hand",
                "key": "by hand",
                "upcoming": "2030-01-02T03:00:00Z",
            }
        )
        print(await clean_up.run(polos, tick))


if __name__ == "__main__":
    asyncio.run(main())
