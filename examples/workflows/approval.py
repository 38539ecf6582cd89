"""Approval by a link: the run waits until somebody answers on a page, or with one HTTP request."""

import asyncio

from pydantic import BaseModel

from polos import Polos, WorkflowContext, events, workflow


class Deployment(BaseModel):
    service: str
    version: str


class Outcome(BaseModel):
    status: str
    approved_by: str | None = None


@workflow(id="deploy")
async def deploy(ctx: WorkflowContext, payload: Deployment) -> Outcome:
    form = {
        "title": f"Deploy {payload.service} {payload.version}?",
        "description": "The run waits for you.",
        "fields": [
            {"name": "approved", "type": "boolean", "label": "Deploy it", "required": True},
            {"name": "approver", "type": "text", "label": "Your name"},
        ],
        "context": {"service": payload.service, "version": payload.version},
    }
    answer = await ctx.step.suspend("approve_deploy", data={"_form": form}, timeout=86400)
    if not answer["data"].get("approved"):
        return Outcome(status="rejected", approved_by=answer["data"].get("approver"))
    await ctx.step.run("deploy", print, f"deploying {payload.service} {payload.version}")
    return Outcome(status="deployed", approved_by=answer["data"].get("approver"))


async def main() -> None:
    async with Polos(log_file="polos.log") as polos:
        handle = await deploy.invoke(polos, {"service": "shop", "version": "1.4"})
        async for event in events.stream_workflow(polos, handle.root_workflow_id, handle.id):
            if event.event_type == "suspend_approve_deploy":
                print(f"Answer at {event.data['_approval_url']}", flush=True)
            elif event.event_type == "workflow_finish":
                print(f"Status: {event.data['result']['status']}")


if __name__ == "__main__":
    asyncio.run(main())
