"""The endpoint of a language model, on loopback: what it is asked, what its failures do, and that its key is in no message."""

import json
import socket

import pytest
from PIL import Image

from tests.fixtures.endpoints import picture_of, prompt_of
from tests.fixtures.vision import encoded
from tgq.images.decode import ImageLimits
from tgq.refinement.generators.endpoint import BROKEN, Endpoint, EndpointOptions, read_reply
from tgq.refinement.generators.generator import TOKEN_LIMIT, Chat
from tgq.refinement.picture import shown

NOISE = shown(encoded(Image.effect_noise((500, 500), 90)), ImageLimits())
CHATS = [Chat("be brief", f"question {n}") for n in range(6)]


def generator(url, **options):
    return Endpoint(EndpointOptions(url, "tiny", **{"allowed_hosts": ("127.0.0.1",), "retries": 0, "timeout_s": 5.0} | options))


def echo(body):
    return "answer to " + body["messages"][-1]["content"]


def test_answers_come_in_the_order_of_the_questions(serve):
    with serve(echo) as endpoint:
        replies = generator(endpoint.url, parallel=3).answers(CHATS, json=True)
    assert [reply.text for reply in replies] == [f"answer to question {n}" for n in range(6)]
    assert {reply.tokens for reply in replies} == {100} and all(reply.reason is None for reply in replies)
    headers, body = endpoint.requests[0]
    assert body["model"] == "tiny" and body["temperature"] == 0 and body["response_format"] == {"type": "json_object"}
    assert body["messages"][0] == {"role": "system", "content": "be brief"} and "Authorization" not in headers


@pytest.mark.parametrize("json_mode, wanted", [(True, False), (False, True)])
def test_json_is_demanded_only_where_it_is_wanted_and_known(serve, json_mode, wanted):
    with serve(echo) as endpoint:
        generator(endpoint.url, json_mode=json_mode).answers(CHATS[:1], json=wanted)
    assert "response_format" not in endpoint.requests[0][1]


def test_a_picture_is_sent_before_the_text_and_its_bytes_are_no_tokens(serve):
    uncounted = json.dumps({"choices": [{"message": {"content": "12345678"}}]}).encode()
    with serve(lambda body: (200, {}, uncounted)) as endpoint:
        large, none = generator(endpoint.url, parallel=1).answers([Chat("be brief", "what is it?", NOISE), Chat("be brief", "what is it?")], json=False)
    (_, seen), (_, unseen) = endpoint.requests
    assert [part["type"] for part in seen["messages"][1]["content"]] == ["image_url", "text"] and prompt_of(seen) == "what is it?"
    assert picture_of(seen).size == (448, 448) and len(NOISE) > 50_000
    assert unseen["messages"][1]["content"] == "what is it?"
    assert 0 < large.tokens - none.tokens < 600


def test_the_key_is_sent_and_stands_in_no_message(serve, monkeypatch):
    monkeypatch.setenv("SHOP_LLM", "sk-not-to-be-seen")

    def quoting(body):
        return 400, {}, b'{"error": "Bearer sk-not-to-be-seen is wrong"}'

    with serve(quoting) as endpoint:
        model = generator(endpoint.url, key_variable="SHOP_LLM")
        [reply] = model.answers(CHATS[:1], json=False)
    assert endpoint.requests[0][0]["Authorization"] == "Bearer sk-not-to-be-seen"
    assert reply.reason == "refused" and "HTTP 400" in reply.detail
    assert "sk-not" not in f"{reply} {model.options} {vars(model)}"


@pytest.mark.parametrize("value", [None, "", "two words", "line\nbreak", "schlüssel"])
def test_without_a_usable_key_nothing_is_asked(serve, monkeypatch, value):
    monkeypatch.delenv("SHOP_LLM", raising=False)
    if value is not None:
        monkeypatch.setenv("SHOP_LLM", value)
    with serve(echo) as endpoint:
        [reply] = generator(endpoint.url, key_variable="SHOP_LLM").answers(CHATS[:1], json=False)
    assert reply.reason == "no_key" and "SHOP_LLM" in reply.detail and not endpoint.requests
    assert not value or value not in reply.detail


def test_a_busy_endpoint_is_asked_again(serve):
    calls = []

    def busy(body):
        calls.append(1)
        return (429, {"Retry-After": "0"}, b"") if len(calls) < 3 else echo(body)

    with serve(busy) as endpoint:
        [reply] = generator(endpoint.url, retries=2).answers(CHATS[:1], json=False)
    assert reply.text == "answer to question 0" and len(calls) == 3


def test_a_broken_endpoint_is_not_asked_for_every_item(serve):
    with serve(lambda body: (500, {}, b"")) as endpoint:
        model = generator(endpoint.url, parallel=1)
        replies = model.answers(CHATS, json=False)
        assert {reply.reason for reply in model.answers(CHATS, json=False)} == {"unreachable"}
    assert {reply.reason for reply in replies} == {"unreachable"} and len(endpoint.requests) == BROKEN


def test_one_failure_does_not_stop_the_others(serve):
    def answer(body):
        return (400, {}, b"") if body["messages"][-1]["content"] == "question 1" else echo(body)

    with serve(answer) as endpoint:
        replies = generator(endpoint.url).answers(CHATS, json=False)
    assert [reply.reason for reply in replies] == [None, "refused", None, None, None, None]


def test_an_endpoint_that_is_down_is_unreachable():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    [reply] = generator(f"http://127.0.0.1:{port}/v1").answers(CHATS[:1], json=False)
    assert reply.reason == "unreachable" and str(port) in reply.detail


def test_no_other_host_is_asked(serve):
    with serve(echo) as other, serve(lambda body: (302, {"Location": other.url}, b"")) as endpoint:
        [reply] = generator(endpoint.url, allowed_hosts=("127.0.0.1",)).answers(CHATS[:1], json=False)
        assert reply.reason is not None and not other.requests, "a redirect is not followed"
        for hosts in ((), ("llm.shop.com",)):
            [reply] = generator(endpoint.url, allowed_hosts=hosts).answers(CHATS[:1], json=False)
            assert reply.reason == "refused" and "not one of the allowed hosts" in reply.detail
    assert len(endpoint.requests) == 1


def test_a_private_address_needs_to_be_allowed(serve):
    with serve(echo) as endpoint:
        local = endpoint.url.replace("127.0.0.1", "127.0.0.1.nip.test")
        model = generator(local, allowed_hosts=("127.0.0.1.nip.test",))
        model._web._resolve = lambda host, port: ["127.0.0.1"]
        [reply] = model.answers(CHATS[:1], json=False)
        assert reply.reason == "refused" and "enrich.text.endpoint.private_networks" in reply.detail and not endpoint.requests


def test_a_run_spends_no_more_than_its_limit_and_what_was_under_way(serve):
    with serve(echo) as endpoint:
        model = generator(endpoint.url, parallel=1, tokens=250)
        replies = model.answers(CHATS, json=False)
    assert [reply.reason for reply in replies] == [None, None, None] + [TOKEN_LIMIT] * 3
    assert model.spent == 300 and len(endpoint.requests) == 3


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"choices": []}', b'{"choices": [{"message": {"content": null}}]}', b'{"choices": "no"}', b"null"])
def test_a_response_without_a_text_is_no_answer(data):
    assert read_reply(data, 40).reason == "no_answer"


@pytest.mark.parametrize("usage", [None, {}, {"total_tokens": "many"}, {"total_tokens": -1}, {"total_tokens": True}])
def test_tokens_that_are_not_counted_are_estimated(usage):
    data = json.dumps({"choices": [{"message": {"content": "12345678"}}], "usage": usage}).encode()
    assert read_reply(data, 40).tokens == 12
