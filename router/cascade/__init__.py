"""One request: student, accepted?, teacher, record, audit."""
