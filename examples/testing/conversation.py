"""A conversation with an agent without a model: what it is asked, and what it answers, as a script says."""

from refunds import support_agent

from polos.testing import ScriptedModel, runtime, tool_call


def main() -> None:
    model = ScriptedModel([tool_call("give_back", order="A-17", amount=20), "You have 20 euros back."])
    with runtime(model) as client:
        response = support_agent.run_sync(client, "My cup was broken.")
    for number, call in enumerate(model.calls, start=1):
        print(f"call {number}: {call.messages[-1]}")
    print(response.result)


if __name__ == "__main__":
    main()
