"""A language model behind an endpoint that speaks OpenAI's protocol for chats, as vLLM, SGLang and llama.cpp do.

The host must be listed, as those of pictures are (`tgq.images.web`): names are resolved once and their addresses checked, redirects are not
followed, and no proxy is used. The key is read from the environment for each request and stands in no message.
"""

from __future__ import annotations

import base64
import json
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tgq.images.decode import ImageError
from tgq.images.permitted import FetchOptions
from tgq.images.retries import with_retries
from tgq.images.web import WebServers
from tgq.refinement.generators.generator import TOKEN_LIMIT, Chat, Reply

ANSWER_BYTES = 2**20  # of a response
BROKEN = 3  # requests in a row that found no endpoint, each with its retries, after which no more are made
UNREACHABLE = "unreachable"  # no connection, no answer in time, or an error of the server
REFUSED = "refused"  # the endpoint does not take the request: its key, model or size
NO_KEY = "no_key"
NO_ANSWER = "no_answer"  # a response without a text
PICTURE_TOKENS = 500  # of a picture, where a response does not count its tokens


@dataclass(frozen=True)
class EndpointOptions:
    """Where the endpoint is, and this task's share of the run's limits."""

    url: str  # up to and with the version, as in http://localhost:8000/v1
    model: str
    allowed_hosts: tuple[str, ...] = ()
    private_networks: tuple[str, ...] = ()
    key_variable: str | None = None  # variable of the environment that holds the key; None: no key
    timeout_s: float = 60.0
    retries: int = 3
    parallel: int = 4  # requests at a time
    requests_per_minute: float | None = None
    tokens: int | None = None  # that may be spent; requests that are under way may exceed it
    answer_tokens: int = 128
    json_mode: bool = True  # demand JSON of the endpoint where an answer is to be JSON


class Endpoint:
    """A generator for one task."""

    def __init__(self, options: EndpointOptions):
        self.options, self.spent = options, 0
        limits = FetchOptions(
            options.allowed_hosts, timeout_s=options.timeout_s, retries=options.retries, max_bytes=ANSWER_BYTES,
            private_networks=options.private_networks, section="enrich.text.endpoint",
        )  # fmt: skip
        self._web, self._lock = WebServers(limits), threading.Lock()
        self._next, self._broken = 0.0, 0  # earliest time of the next request; requests in a row that found no endpoint

    @property
    def version(self) -> str:
        """The model's name: where it runs does not matter."""
        return f"{self.options.model} {self.options.answer_tokens} {self.options.json_mode}"

    def need_listed(self) -> None:
        """Check that the endpoint's host is listed. Nothing is asked.

        Raises:
            ImageError: it is not.
        """
        self._web.need_listed(self.options.url)

    def answers(self, chats: Sequence[Chat], json: bool) -> list[Reply]:
        """As `Generator`."""
        with ThreadPoolExecutor(self.options.parallel, "endpoint") as pool:
            return list(pool.map(lambda chat: self._answer(chat, json), chats))

    def _answer(self, chat: Chat, wants_json: bool) -> Reply:
        options = self.options
        with self._lock:
            if self._broken >= BROKEN:
                return Reply(reason=UNREACHABLE, detail="the endpoint did not answer before, so it was not asked again")
            if options.tokens is not None and self.spent >= options.tokens:
                return Reply(reason=TOKEN_LIMIT, detail="the run's limit of tokens is reached")
        messages, encoded = chat.messages, base64.b64encode(chat.picture or b"").decode()
        if chat.picture is not None:
            picture = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{encoded}"}}
            messages[-1]["content"] = [picture, {"type": "text", "text": chat.user}]
        request: dict[str, Any] = {"model": options.model, "messages": messages, "temperature": 0, "max_tokens": options.answer_tokens, "stream": False}
        if wants_json and options.json_mode:
            request["response_format"] = {"type": "json_object"}
        try:
            headers = {"Content-Type": "application/json", "Accept": "application/json", **authorisation(options.key_variable)}
        except KeyError as missing:
            return Reply(reason=NO_KEY, detail=str(missing.args[0]))
        body = json.dumps(request).encode()
        try:
            data = with_retries(lambda: self._post(body, headers), options.retries)
        except ImageError as error:
            # no answer to this request; what the server says is not repeated, because it may quote the request
            lost = error.reason in ("timeout", "truncated") or (error.reason == "unreadable" and ": HTTP 4" not in error.detail)
            with self._lock:
                self._broken = self._broken + 1 if lost else 0
            return Reply(reason=UNREACHABLE if lost else REFUSED, detail=error.detail)
        reply = read_reply(data, len(body) - len(encoded) + (0 if chat.picture is None else 4 * PICTURE_TOKENS))
        with self._lock:
            self._broken, self.spent = 0, self.spent + reply.tokens
        return reply

    def _post(self, body: bytes, headers: dict[str, str]) -> bytes:
        self._wait()
        return self._web.post(f"{self.options.url.rstrip('/')}/chat/completions", body, headers)

    def _wait(self) -> None:
        """Sleep until this request may be made: requests are spread evenly over a minute."""
        if self.options.requests_per_minute is None:
            return
        with self._lock:
            at = max(self._next, time.monotonic())
            self._next = at + 60.0 / self.options.requests_per_minute
        time.sleep(max(0.0, at - time.monotonic()))


def authorisation(key_variable: str | None) -> dict[str, str]:
    """The header with the key; empty without a variable.

    Raises:
        KeyError: the variable is not set or holds what no key can be. The message does not hold its value.
    """
    if key_variable is None:
        return {}
    key = os.environ.get(key_variable, "")
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise KeyError(f"the environment variable {key_variable} holds no key")
    return {"Authorization": f"Bearer {key}"}


def read_reply(data: bytes, asked: int) -> Reply:
    """The first choice of a response.

    Args:
        asked: bytes of the request, four for each token of a picture, from which tokens are estimated if the response does not count them.
    """
    try:
        response: Any = json.loads(data)
        text = response["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return Reply(tokens=asked // 4, reason=NO_ANSWER, detail="the response is not that of a chat")
    usage = response.get("usage")
    total = usage.get("total_tokens") if isinstance(usage, dict) else None
    if not isinstance(text, str):
        return Reply(tokens=asked // 4, reason=NO_ANSWER, detail="the response has no text")
    tokens = total if isinstance(total, int) and not isinstance(total, bool) and total >= 0 else (asked + len(text.encode())) // 4
    return Reply(text, tokens=tokens)
