"""Teacher answers that are not to be learnt from: users disliked them, a judge found them wrong, or they break the
schema that was asked for. Only where somebody can tell without comparing: a doubt takes no row away."""

from __future__ import annotations

import orjson

from distiller.data.rows import Skip
from router.contracts.decision import Tier
from router.contracts.judges import verdict_of
from router.contracts.records import Record
from router.scoring.judges.judge import Judges
from router.scoring.judges.pair import Pair, text
from router.scoring.schema import fits, schema_of


def fault(record: Record, judges: Judges) -> Skip | None:
    """Why the teacher's answer in this record must not be trained on; None where nothing speaks against it."""
    teacher = record.answer_of(Tier.TEACHER)
    if teacher is None or teacher.message is None:
        return None
    if record.tier is Tier.TEACHER and verdict_of(record.feedback) is False:
        return Skip.BAD_FEEDBACK
    if record.right(Tier.TEACHER) is False:
        return Skip.JUDGED_WRONG
    if _breaks_schema(record, text(teacher.message)):
        return Skip.BREAKS_SCHEMA
    alone = Pair(teacher.message, teacher.message, record.request, record.task, record.request_id)
    found = judges.now(alone) if judges.absolute(record.task) else None
    return Skip.JUDGED_WRONG if found is not None and found.teacher_acceptable is False else None


def _breaks_schema(record: Record, answer: str) -> bool:
    schema = schema_of(record.request or {})
    if schema is None:
        return False
    try:
        return fits(orjson.loads(answer), schema) is False
    except orjson.JSONDecodeError:
        return True
