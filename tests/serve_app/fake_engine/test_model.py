"""The fault server's model gives mistakes away, and its shapes are vLLM's."""

import json
from typing import Any

import openai
import pytest

from tests.fakes.engine.faults import End, Fault
from tests.fakes.engine.handle import Engine
from tests.serve_app.fake_engine.client import MESSAGES, chat, complete, partial_chat, post


@pytest.mark.parametrize("after", [1, 2, 7, 60])
def test_the_tokens_of_a_cut_stream_continue_elsewhere_to_the_undisturbed_text(
    engine: Engine, engines: tuple[Engine, Engine], after: int
) -> None:
    whole = chat(engine, stream=True, return_token_ids=True)
    engine.plan(Fault(end=End.CUT, after=after))
    first = partial_chat(engine, return_token_ids=True)
    assert first.tokens == whole.tokens[:after]
    prompt = [*first.events[0]["prompt_token_ids"], *first.tokens]
    rest = complete(engines[1], prompt, max_tokens=200 - after, stream=True, return_token_ids=True)
    assert first.tokens + rest.tokens == whole.tokens
    assert "�" not in whole.text


def test_a_lost_a_repeated_and_a_retokenised_token_show(engine: Engine) -> None:
    whole = chat(engine, stream=True, return_token_ids=True)
    prompt, said = whole.events[0]["prompt_token_ids"], whole.tokens
    text = chat(engine).json["choices"][0]["message"]["content"]
    retokenised = post(engine, "/models/chat/tokenize", model="chat", prompt=text).json["tokens"]
    for wrong in (said[:-1], [*said, said[-1]], retokenised):
        assert complete(engine, prompt + wrong).json["choices"] != complete(engine, prompt + said).json["choices"]


def test_a_canonical_model_continues_its_text_too(engine: Engine) -> None:
    engine.behave(canonical=True)
    whole = chat(engine, stream=True, return_token_ids=True)
    engine.plan(Fault(end=End.CUT, after=60))
    first = partial_chat(engine, return_token_ids=True)
    assert len(first.tokens) == 60
    open_answer = [*MESSAGES, {"role": "assistant", "content": first.text}]
    count = post(engine, "/models/chat/tokenize", prompt=first.text).json["count"]
    rest = chat(
        engine,
        messages=open_answer,
        continue_final_message=True,
        add_generation_prompt=False,
        max_tokens=200 - count,
        stream=True,
    )
    assert first.text + rest.text == whole.text


def test_as_vllm_a_prompt_that_ends_within_a_character_comes_back_whole(engine: Engine) -> None:
    half = post(engine, "/models/chat/tokenize", prompt="the sea 日").json["tokens"][:-1]
    assert complete(engine, half, max_tokens=1).json["choices"][0]["text"] == "the sea 日"


def test_chat_and_completions_say_the_same_after_the_same_tokens(engine: Engine) -> None:
    prompt = post(engine, "/models/chat/tokenize", messages=MESSAGES).json["tokens"]
    answer = chat(engine).json
    assert answer["choices"][0]["message"]["content"] == complete(engine, prompt).json["choices"][0]["text"]
    assert answer["usage"]["prompt_tokens"] == len(prompt)


def test_speculative_decoding_says_the_same_in_fewer_events(engine: Engine) -> None:
    one_by_one = chat(engine, stream=True, return_token_ids=True)
    engine.behave(tokens_per_event=4)
    together = chat(engine, stream=True, return_token_ids=True)
    assert (together.text, together.tokens) == (one_by_one.text, one_by_one.tokens)
    assert len(together.events) == 51


def test_a_seed_repeats_a_sample_and_no_seed_does_not(engine: Engine) -> None:
    def sample(**fields: Any) -> str:
        return chat(engine, temperature=1, stream=True, **fields).text

    assert sample(seed=1) == sample(seed=1) != sample(seed=2)
    assert sample() != sample()


def test_what_may_become_a_stop_string_is_held_back(engine: Engine) -> None:
    free = chat(engine, stream=True).text
    stop = free[60:72]
    stopped = chat(engine, stream=True, stop=[stop])
    assert stopped.text == free[: free.index(stop)]
    last = stopped.events[-1]["choices"][0]
    assert (last["finish_reason"], last["stop_reason"]) == ("stop", stop)
    shown = ""
    for event in stopped.events[:-1]:
        shown += event["choices"][0]["delta"]["content"]
        assert free.startswith(shown)
        assert len(shown) <= 60


# The shapes


def test_events_are_written_as_vllms_classes_write_them(engine: Engine) -> None:
    fields = {"max_tokens": 1, "ignore_eos": True, "stream": True}
    head = '"id":"chatcmpl-east-1","object":"chat.completion.chunk","created":1700000000,"model":"chat"'
    text = chat(engine).json["choices"][0]["message"]["content"][:50].split(" ")[1]
    engine.forget()
    first, last, done, _ = chat(engine, **fields).body.decode().split("\n\n")
    assert first == (
        f'data: {{{head},"choices":[{{"index":0,"delta":{{"role":"assistant","content":""}},"logprobs":null,'
        '"finish_reason":null}],"prompt_token_ids":null,"prompt_text":null}'
    )
    assert last == (
        f'data: {{{head},"choices":[{{"index":0,"delta":{{"content":" {text}"}},"logprobs":null,'
        '"finish_reason":"length","stop_reason":null,"token_ids":null}],"system_fingerprint":"vllm-0.29.0-east"}'
    )
    assert done == "data: [DONE]"
    usage = chat(engine, **fields, stream_options={"include_usage": True}).events[-1]
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 1


def test_openais_client_reads_tools_schemas_and_responses(engine: Engine) -> None:
    with openai.OpenAI(base_url=f"{engine.endpoint}/models/chat/v1", api_key="site-token", max_retries=0) as client:
        parameters = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
        messages: Any = MESSAGES
        tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
        stream = client.chat.completions.create(
            model="chat", messages=messages, tools=tools, tool_choice="required", stream=True
        )
        choices = [chunk.choices[0] for chunk in stream]
        calls = [call for choice in choices for call in choice.delta.tool_calls or ()]
        assert [call.function.name for call in calls if call.function and call.function.name] == ["weather"]
        arguments = "".join(call.function.arguments or "" for call in calls if call.function)
        assert json.loads(arguments) == {"city": "Zürich 日", "days": 7}
        assert choices[-1].finish_reason == "tool_calls"
        form: Any = {"type": "json_schema", "json_schema": {"name": "trip", "schema": parameters}}
        content = client.chat.completions.create(model="chat", messages=messages, response_format=form)
        assert json.loads(content.choices[0].message.content or "") == {"city": "Zürich 日", "days": 7}
        told = client.responses.create(model="chat", input="the sea", temperature=0, max_output_tokens=20)
        with client.responses.stream(model="chat", input="the sea", temperature=0, max_output_tokens=20) as events:
            assert events.until_done().get_final_response().output_text == told.output_text
        heard = client.audio.transcriptions.create(model="chat", file=("a.wav", b"\r\n\x00sound"))
        assert heard.text.startswith("8 bytes")


def test_too_long_a_prompt_is_refused_in_vllms_words(engine: Engine) -> None:
    engine.behave(max_model_len=100)
    answer = complete(engine, "x" * 90, max_tokens=20)
    assert answer.status == 400
    assert answer.json["error"]["message"].startswith("This model's maximum context length is 100 tokens. However, you")


def test_prefill_may_be_refused(engine: Engine) -> None:
    engine.behave(refuses_continuation=True)
    assert complete(engine, [300, 301]).status == 400
    assert chat(engine, continue_final_message=True, add_generation_prompt=False).status == 400
    assert chat(engine).status == complete(engine, "the sea").status == 200
