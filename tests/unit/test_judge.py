"""The judge asks each question once, gives up with a remedy, and reads a rating from what it is told."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pandas as pd
import pytest

from mmie import judge, tables

PROMPTS = pd.DataFrame({"prompt_id": ["p0", "p1", "p2"], "family": ["a", "a", "b"], "text": ["one", "two", "three"]})
GENERATIONS = pd.DataFrame(
    {
        "arm": "lora",
        "seed": 0,
        "variant": "plain",
        "prompt_id": ["p0", "p1", "p2"],
        "sample": 0,
        "text": ["x", "y", "z"],
    }
)


@pytest.fixture
def endpoint():
    """A chat endpoint on this host; ``asked`` is what it was asked, ``answers`` what it says next."""

    class Handler(BaseHTTPRequestHandler):
        asked: ClassVar[list] = []
        status = 200

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            Handler.asked.append((self.path, self.headers["Authorization"], body))
            self.send_response(Handler.status)
            self.end_headers()
            said = {"choices": [{"message": {"content": "I say 4."}}]} if Handler.status == 200 else {"error": "no"}
            self.wfile.write(json.dumps(said).encode())

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Handler.url = f"http://127.0.0.1:{server.server_port}/v1"
    Handler.asked = []
    yield Handler
    server.shutdown()
    server.server_close()


def settings(endpoint):
    return {"endpoint": endpoint.url, "model": "m", "key": "MMIE_JUDGE_KEY", "prompts": 1, "max_tokens": 8, "seed": 0}


def test_answers_are_kept(endpoint, tmp_path):
    chosen = judge.choose(GENERATIONS, PROMPTS, 1)
    assert len(chosen) == 2 and set(chosen["family"]) == {"a", "b"}
    first = list(judge.judged_rows(chosen, settings(endpoint), tmp_path, "secret"))
    again = list(judge.judged_rows(chosen, settings(endpoint), tmp_path, "secret"))
    assert first == again and len(endpoint.asked) == 2
    path, authorisation, body = endpoint.asked[0]
    assert path == "/v1/chat/completions" and authorisation == "Bearer secret"
    assert body["temperature"] == 0 and body["seed"] == 0 and "secret" not in json.dumps(body)
    assert not any("secret" in file.read_text() for file in tmp_path.iterdir())
    tables.write(first, tmp_path / "j.parquet", tables.JUDGE)
    assert set(tables.read(tmp_path / "j.parquet", tables.JUDGE)["rating"]) == {4}
    list(judge.judged_rows(chosen, {**settings(endpoint), "model": "other"}, tmp_path, "secret"))
    assert len(endpoint.asked) == 4, "another model is another judge"


def test_a_refusal_names_the_endpoint_and_keeps_nothing(endpoint, tmp_path):
    endpoint.status = 401
    with pytest.raises(ValueError, match=r"config `judge.endpoint`: http.*answers 401"):
        list(judge.judged_rows(judge.choose(GENERATIONS, PROMPTS, 1), settings(endpoint), tmp_path, "k"))
    assert not list(tmp_path.iterdir())
    endpoint.status = 200


def test_a_key_comes_from_the_environment_or_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MMIE_TEST_KEY", raising=False)
    with pytest.raises(ValueError, match="MMIE_TEST_KEY"):
        judge.read_key("MMIE_TEST_KEY")
    (tmp_path / ".env").write_text("MMIE_TEST_KEY=abc\n")
    assert judge.read_key("MMIE_TEST_KEY") == "abc"
    monkeypatch.delenv("MMIE_TEST_KEY", raising=False)


@pytest.mark.parametrize(("answer", "expected"), [("4", 4), ("**3**", 3), ("I say 5.", 5), ("45", None), ("", None)])
def test_ratings(answer, expected):
    assert judge.rating(answer) == expected
