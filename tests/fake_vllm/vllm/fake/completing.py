"""POST /v1/completions: as a whole, and as a stream."""

from __future__ import annotations

import json
import queue
import select
import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from vllm.fake import answers
from vllm.fake.client import Core, EngineDeadError, Pieces
from vllm.fake.weights import config

if TYPE_CHECKING:
    from vllm.fake.server import Handler


class Refused(Exception):  # it says what happened
    """The request is wrong."""

    def __init__(self, status: int, message: str, kind: str | None = None, param: str | None = None) -> None:
        """Say why, and which parameter it is about."""
        super().__init__(message)
        self.status, self.kind, self.param = status, kind, param


def invalid(kind: str, place: tuple[str | int, ...], said: str, param: str, **more: object) -> Refused:
    """What a body is refused with that does not fit its model."""
    found = {"type": kind, "loc": place, "msg": said, "input": {}, **more}
    return Refused(HTTPStatus.BAD_REQUEST, f"1 validation error:\n  {found}", HTTPStatus.BAD_REQUEST.phrase, param)


class Cut(Exception):  # it says what to do
    """The connection is to end here, in the middle; or the client has gone."""


class Completing:
    """One request for a completion."""

    def __init__(self, handler: Handler) -> None:
        """Answer through this connection."""
        self._handler, self._service = handler, handler.service
        self._id = f"cmpl-{uuid.uuid4().hex[:16]}"

    def run(self, body: bytes) -> None:
        """Check it, hand it to a core, and tell what comes."""
        asked = self._checked(body)
        core, number, pieces = self._service.engine.add(asked["prompt"], asked["max_tokens"])
        drop = True
        try:
            if asked.get("stream"):
                self._stream(asked, core, pieces)
            else:
                self._whole(asked, core, pieces)
            drop = False
        except Cut:
            self._handler.close_connection = True
        finally:
            self._service.engine.done(core, number, drop=drop)

    def _checked(self, body: bytes) -> dict[str, Any]:
        try:
            found = json.loads(body or b"null")
        except json.JSONDecodeError as error:
            kind, said, ctx = "json_invalid", "JSON decode error", {"error": error.msg}
            raise invalid(kind, ("body", error.pos), said, f"body.{error.pos}", ctx=ctx) from None
        asked: dict[str, Any] = found if isinstance(found, dict) else {}
        self._handler.wants_model(asked)
        prompt, length = asked.get("prompt"), self._service.length
        if isinstance(prompt, str):
            prompt = [3 + letter for letter in prompt.encode()]
        if not prompt or not isinstance(prompt, list):
            kind, message = (
                "value_error",
                "Value error, Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)",
            )
            raise invalid(kind, ("body",), message, "prompt")
        tokens = int(asked.get("max_tokens") or 16)
        if len(prompt) + tokens > length:
            message = f"This model's maximum context length is {length} tokens. However, you requested {tokens} output tokens and your prompt contains {len(prompt)} input tokens, for a total of {len(prompt) + tokens} tokens."  # noqa: E501 # vLLM's line
            raise Refused(400, message, param="input_tokens")
        vocabulary = int(config(self._service.root).get("vocab_size", 32_000))
        if max(prompt) >= vocabulary:
            message = f"Token id {max(prompt)} is out of vocabulary"
            raise Refused(400, message)
        return asked | {"prompt": prompt, "max_tokens": tokens}

    def _next(self, core: Core, pieces: Pieces) -> dict[str, Any]:
        """What comes next.

        Raises:
            EngineDeadError: the core has ended.
            Cut: the core says so, or the client has gone.
            Refused: the core refused it.
        """
        while True:
            try:
                answer = pieces.get(timeout=0.2)
                break
            except queue.Empty:
                gone, _, _ = select.select([self._handler.connection], [], [], 0)
                if gone:  # it sends nothing more before it has our answer: that is its end
                    raise Cut from None
        if "dead" in answer or core.dead.is_set():
            raise EngineDeadError
        if "cut" in answer:
            raise Cut
        if "error" in answer:
            raise Refused(answer.get("status", 500), answer["error"])
        return answer

    def _whole(self, asked: dict[str, Any], core: Core, pieces: Pieces) -> None:
        tokens, numbers, finish = list[int](), list[float](), None
        while finish is None:
            answer = self._next(core, pieces)
            finish = answer.get("finish")
            if "token" in answer:
                tokens.append(answer["token"])
                numbers.append(answer["logprob"])
        one = answers.choice(tokens, numbers, finish, asked)
        self._handler.json(answers.completion(self._id, self._service.name, one, asked, len(tokens)))

    def _stream(self, asked: dict[str, Any], core: Core, pieces: Pieces) -> None:
        handler = self._handler
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream; charset=utf-8")
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        finish = None
        try:
            while finish is None:
                answer = self._next(core, pieces)
                finish = answer.get("finish")
                tokens, numbers = ([answer["token"]], [answer["logprob"]]) if "token" in answer else ([], [])
                one = answers.choice(tokens, numbers, finish, asked)
                handler.chunk(answers.piece(self._id, self._service.name, one))
        except EngineDeadError as error:
            handler.chunk(b"data: " + json.dumps(answers.error(500, str(error))).encode() + b"\n\n")
            self._service.died.set()
        except Refused as refused:
            handler.chunk(b"data: " + json.dumps(answers.error(refused.status, str(refused))).encode() + b"\n\n")
        handler.chunk(b"data: [DONE]\n\n")
        handler.chunk(b"")
