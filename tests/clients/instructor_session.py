"""A session of ``instructor`` with each tier: prints what it found, as JSON. Run by test_instructor.py."""

import json
import os
from typing import Any

import instructor
from instructor import Mode
from instructor.core import InstructorRetryException
from openai import OpenAI
from pydantic import BaseModel

MODES = (Mode.TOOLS, Mode.JSON, Mode.JSON_SCHEMA, Mode.RESPONSES_TOOLS)


class Weather(BaseModel):
    """The weather in a city."""

    city: str
    celsius: int


def session(openai: OpenAI, model: str) -> dict[str, Any]:
    asked: Any = {"model": model, "max_retries": 1, "response_model": Weather}
    said: Any = [{"role": "user", "content": "the weather in Oslo?"}]
    found = {}
    for mode in MODES:
        client = instructor.from_openai(openai, mode=mode)
        found[mode.name] = client.create(messages=said, **asked).model_dump()
    client = instructor.from_openai(openai)
    streamed = [part.model_dump() for part in client.create_partial(messages=said, **asked)]
    try:
        client.create(messages=[{"role": "user", "content": "too long"}], **asked)
    except InstructorRetryException as error:
        return {"found": found, "streamed": streamed, "error": str(error)}
    raise AssertionError("it should have failed")


def main() -> None:
    url, key = f"{os.environ['LOCUM_URL']}/v1", os.environ["LOCUM_KEY"]
    openai = OpenAI(base_url=url, api_key=key, max_retries=0, timeout=10)
    print(json.dumps([session(openai, f"locum/{tier}") for tier in ("student", "teacher")]))


if __name__ == "__main__":
    main()
