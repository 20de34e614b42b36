"""A session of ``instructor``: prints what it found, as JSON. Run by test_instructor.py."""

import json
import os

import instructor
from instructor.core import InstructorRetryException
from openai import OpenAI
from pydantic import BaseModel

MODEL = os.environ["LOCUM_MODEL"]


class Weather(BaseModel):
    """The weather in a city."""

    city: str
    celsius: int


def main() -> None:
    openai = OpenAI(
        base_url=f"{os.environ['LOCUM_URL']}/v1", api_key=os.environ["LOCUM_KEY"], max_retries=0, timeout=10
    )
    asked = {"model": MODEL, "max_retries": 1, "messages": [{"role": "user", "content": "the weather in Oslo?"}]}
    found = {}
    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON, instructor.Mode.JSON_SCHEMA):
        client = instructor.from_openai(openai, mode=mode)
        found[mode.name] = client.create(response_model=Weather, **asked).model_dump()
    client = instructor.from_openai(openai)
    streamed = [part.model_dump() for part in client.create_partial(response_model=Weather, **asked)]
    try:
        client.create(response_model=Weather, **asked | {"messages": [{"role": "user", "content": "too long"}]})
    except InstructorRetryException as error:
        cause = error.failed_attempts[-1].exception if error.failed_attempts else error.__cause__
        print(json.dumps({"found": found, "streamed": streamed, "error": str(error), "cause": type(cause).__name__}))


if __name__ == "__main__":
    main()
