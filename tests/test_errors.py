"""The table of error codes, and the errors that have them."""

import json
import re

import orjson

from graph import errors
from graph.errors import ErrorCode, GraphError, LimitExceeded

SERVER = {"INTERNAL": 500, "DATABASE_UNAVAILABLE": 503, "OVERLOADED": 503, "RATE_LIMITED": 429}


def test_each_code_has_its_status_and_one_sentence() -> None:
    assert {code.value: code.status for code in ErrorCode} == {
        code.name: SERVER.get(code.name, 400) for code in ErrorCode
    }
    assert [code for code in ErrorCode if not re.fullmatch(r"[A-Z][^.]+\.", code.meaning)] == []


def test_each_class_has_a_code_of_its_own() -> None:
    classes = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, GraphError)]
    codes = [each.code for each in classes if each is not GraphError]
    assert len(codes) == len(set(codes)) == 9


def test_an_error_carries_its_code_as_plain_text_and_details() -> None:
    extensions = LimitExceeded("Too much.", limit=5).extensions
    assert extensions == {"code": "LIMIT_EXCEEDED", "limit": 5}
    assert type(extensions["code"]) is str
    assert json.loads(orjson.dumps(extensions)) == extensions
