"""Tests of refunds.py: no key, no server, and a week takes no time."""

from datetime import timedelta

from refunds import Case, handle_complaint, support_agent

from polos.testing import answer, answer_question, approve, call_every_tool, error, reject, runtime, tool_call


async def test_small_sums_are_given_back_at_once(polos_client, scripted_model):
    scripted_model.add(tool_call("give_back", order="A-17", amount=20), "Done, 20 euros.")

    response = await support_agent.run(polos_client, "My cup was broken.")

    assert response.result == "Done, 20 euros."
    assert response.tool_results[0].result == "20.00 given back for A-17"
    assert "gpt-4o" in scripted_model.calls[0].model
    assert "20.00 given back" in scripted_model.last_call.messages[-1]["output"]


async def test_somebody_approves_large_sums(polos_client, scripted_model):
    scripted_model.add(tool_call("give_back", order="A-18", amount=400), "Done, 400 euros.")
    run = await polos_client.invoke("support-agent", {"input": "The sofa never came."})

    question = await approve(polos_client, run)

    assert question.data["_form"]["context"]["input"] == {"order": "A-18", "amount": 400.0}
    assert (await polos_client.wait(run.id))["result"]["result"] == "Done, 400 euros."


async def test_the_model_reads_why_a_sum_was_refused(polos_client, scripted_model):
    scripted_model.add(tool_call("give_back", order="A-18", amount=400), "We are sorry.")
    run = await polos_client.invoke("support-agent", {"input": "The sofa never came."})

    await reject(polos_client, run, "It was delivered on Monday.")

    await polos_client.wait(run.id)
    assert "It was delivered on Monday." in scripted_model.last_call.messages[-1]["output"]


async def test_the_customer_is_asked_a_day_later(polos_client, scripted_model, polos_clock):
    scripted_model.add("We are sorry.")
    run = await handle_complaint.invoke(polos_client, Case(customer="Ada", complaint="It is late."))

    await polos_clock.advance(days=1)
    asked = await answer_question(polos_client, run, {"text": "Yes, thanks."})

    assert asked.data["customer"] == "Ada"
    assert (await polos_client.wait(run.id))["result"] == {"answer": "We are sorry.", "reply": "Yes, thanks."}


async def test_nobody_waits_for_ever(polos_client, scripted_model, polos_clock):
    scripted_model.add("We are sorry.")
    run = await handle_complaint.invoke(polos_client, Case(customer="Ada", complaint="It is late."))

    await polos_clock.advance(days=9)

    record = await polos_client.get_execution(run.id)
    assert record["status"] == "failed"
    assert "timed out" in record["error"]


async def test_a_busy_provider_is_asked_again(polos_client, scripted_model, polos_clock):
    scripted_model.add(error(429, retry_after_seconds=30), error(503), "Here I am.")
    run = await polos_client.invoke("support-agent", {"input": "Hello?"})
    began = polos_clock.now()

    await polos_clock.advance(minutes=2)

    assert (await polos_client.wait(run.id))["result"]["result"] == "Here I am."
    assert polos_clock.now() - began >= timedelta(minutes=2)


async def test_the_answer_is_streamed(polos_client, scripted_model):
    scripted_model.add(answer(chunks=["We are ", "sorry."]))

    stream = await support_agent.stream(polos_client, "It is late.")

    assert [piece async for piece in stream.text_chunks] == ["We are ", "sorry."]


def test_a_test_need_not_be_async(polos_client, scripted_model):
    scripted_model.add(lambda request: f"I was told: {request.messages[-1]['content']}")

    assert support_agent.run_sync(polos_client, "Hello").result == "I was told: Hello"


async def test_every_tool_takes_what_its_schema_says():
    """A runtime of its own, and a model that calls each tool once with data made from its schema."""
    async with runtime(model=call_every_tool("Done.")) as client:
        assert (await support_agent.run(client, "Hello")).result == "Done."
