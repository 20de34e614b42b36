"""An evaluation as one HTML page that needs nothing else: no script, no font, no file beside it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from distiller.evaluation.charts import COLOURS, IntervalLine, curves, intervals, percent, reliability
from distiller.pages import framed

STYLE = Path(__file__).with_name("page.css")
LOOKS = {"score": "Before the answer", "accept": "With the answer seen"}
SIGNALS = {"score": "the scorer, before the answer", "accept": "the second look"}

Values = Mapping[str, Any]


def page(report: Values) -> str:
    """The page of what ``distiller.evaluation.report.report`` made."""
    parts = [
        _header(report),
        _figures(report),
        _gate(report.get("gate")),
        _retention(report["retention"]),
        _forgetting(report["forgetting"], report["student"]["parent"]),
        _adversarial(report["adversarial"]),
        _calibration(report["calibration"]),
        _deferral(report["deferral"]),
        _labels(report.get("labels")),
        _training(report.get("training")),
        _footer(report),
    ]
    return framed("Locum evaluation", STYLE, parts)


def _header(report: Values) -> str:
    student, questions = report["student"], report["questions"]
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(report["at"]))
    about = f"{questions['graded']:,} of {questions['asked']:,} questions judged, from {report['source']}; {when}."
    served = f"{student['model']} as {student['form']} on {student['engine']}, policy {report['policy']}"
    return (
        f"<header><h1>How good is {escape(student['name'])}?</h1>"
        f'<p class="soft">{escape(served)}. {escape(about)}</p></header>'
    )


def _figures(report: Values) -> str:
    serving, best = report["serving"], next(iter(report["deferral"]), None)
    cards = [_figure("Retention", report["retention"][0]["acceptable"], "answers as good as the teacher's")]
    if (lost := report["forgetting"]) is not None:
        cards.append(
            _figure("Against the parent", lost["slices"][0]["difference"], "more answers as good", signed=True)
        )
    if best is not None:
        words = f"tells its good answers, by {SIGNALS.get(best['name'], best['name'])}"
        cards.append(_card("Deferral AUROC", _number(best["auroc"][0], 3), _range(best["auroc"], _three), words))
    if report["calibration"]:
        looked = report["calibration"][-1]
        detail = f"Brier {looked['brier']:.3f}"
        cards.append(_card("Calibration error", f"{looked['ece']:.3f}", detail, LOOKS[looked["name"]].lower()))
    teacher = serving["teacher_usd_per_request"]
    beside = "" if teacher is None else f"teacher {_usd(teacher)}"
    cards.append(_card("Cost per 1,000", _usd(serving["usd_per_request"]), beside, "by the policy's prices"))
    seconds = f"p95 {serving['seconds_p95']:.2f} s"
    flight = f"whole answers, {serving['in_flight']} at once"
    cards.append(_card("Latency p50", f"{serving['seconds_p50']:.2f} s", seconds, flight))
    return f'<section class="grid">{"".join(cards)}</section>'


def _figure(name: str, limits: Sequence[float | None], words: str, *, signed: bool = False) -> str:
    sign = "+" if signed and (limits[0] or 0) > 0 else ""
    return _card(name, sign + percent(limits[0]), _range(limits, percent), words)


def _card(name: str, value: str, limits: str, words: str) -> str:
    return (
        f'<div class="card figure"><p class="small">{escape(name)}</p><p class="value">{escape(value)}</p>'
        f'<p class="limits">{escape(limits) or "&nbsp;"}</p><p class="soft small">{escape(words)}</p></div>'
    )


def _gate(gate: Values | None) -> str:
    if not gate:
        return ""
    rows = [
        [
            v["form"] or "as served", v["name"], f"{v['n']:,}", percent(v["incumbent"]), percent(v["candidate"]),
            percent(v["lower_bound"]), percent(-v["margin"]), "held" if v["passed"] else "failed",
        ]
        for v in gate.get("slices", ())
    ]  # fmt: skip
    said = "".join(f"<li>{escape(reason)}</li>" for reason in gate["reasons"])
    heads = ["form", "slice", "n", "before", "after", "lower bound", "must be", ""]
    table = _table(heads, rows, bad=lambda row: row[-1] == "failed") if rows else ""
    return _card_of(f"Gate: {'promoted' if gate['promoted'] else 'rejected'}", "", f"<ul>{said}</ul>{table}")


def _retention(rows: Sequence[Values]) -> str:
    lines = [IntervalLine(r["name"], r["acceptable"], f"{percent(r['acceptable'][0])}  n={r['n']:,}") for r in rows]
    body = intervals(lines, _floor(r["acceptable"][1] for r in rows), 1.0)
    known = [r for r in rows if "right_ratio" in r]
    if known:
        told = [
            [
                r["name"],
                f"{r['right_known']:,}",
                *(_told(r[n]) for n in ("student_right", "teacher_right", "right_ratio")),
            ]
            for r in known
        ]
        body += _table(["", "known", "student right", "teacher right", "student's over teacher's"], told)
    return _card_of("Retention", "How often the answer is as good as the teacher's, by slice; bars hold 95%.", body)


def _forgetting(found: Values | None, parent: str | None) -> str:
    if found is None:
        return ""
    rows = found["slices"]
    lines = [_difference(r, f"−{r['forgotten']} +{r['gained']}  n={r['n']:,}") for r in rows]
    words = (
        f"Acceptable answers now less those of {parent}, on the same questions; beside it how many were lost and won."
    )
    return _card_of("Forgetting", words, intervals(lines, *_around(r["difference"] for r in rows), mark=0.0))


def _adversarial(rows: Sequence[Values]) -> str:
    if not rows:
        return ""
    lines = [
        _difference(r, f"{percent(r['original'][0], 0)} → {percent(r['perturbed'][0], 0)}  n={r['n']}") for r in rows
    ]
    words = (
        "What a changed prompt costs: acceptable answers to it, less those to the original; both are held against the "
        "teacher's answer to the original."
    )
    return _card_of("Adversarial", words, intervals(lines, *_around(r["difference"] for r in rows), mark=0.0))


def _difference(row: Values, note: str) -> IntervalLine:
    high = row["difference"][2]
    name = str(row["name"]).removeprefix("adversarial=")
    return IntervalLine(name, row["difference"], note, bad=high is not None and high < 0)


def _calibration(rows: Sequence[Values]) -> str:
    if not rows:
        return ""
    drawn = "".join(
        f"<div><h2>{LOOKS[r['name']]}</h2><p class='soft small'>calibration error {r['ece']:.3f}, "
        f"Brier {r['brier']:.3f}, n={r['n']:,}</p>{reliability(r['bins'])}</div>"
        for r in rows
    )
    words = "What share of the answers was acceptable beside the probability that was said; on the line is perfect."
    return _card_of("Calibration", words, f'<div class="pairs">{drawn}</div>')


def _deferral(rows: Sequence[Values]) -> str:
    if not rows:
        return ""
    dots = [f'<i style="background:{colour}"></i>' for colour in COLOURS]
    told = [
        [str(SIGNALS.get(r["name"], r["name"])), _number(r["auroc"][0], 3), _range(r["auroc"], _three)] for r in rows
    ]
    drawn = curves({r["name"]: r["curve"] for r in rows}, "share of the traffic kept, surest first")
    table = _table(["signal", "AUROC", "95%"], told, marks=dots)
    words = (
        "The share that is acceptable of what the student keeps, by each signal, and how well it tells the two apart."
    )
    return (
        f'<section class="charts"><div class="card chart"><h2>Deferral</h2><p class="soft small">{words}</p>'
        f'{drawn}</div><div class="card"><h2>AUROC</h2><div class="scroll">{table}</div></div></section>'
    )


def _labels(found: Values | None) -> str:
    """How far whom the student learnt from agrees with whom it stands in for."""
    if not found:
        return ""
    lines = [
        IntervalLine(r["name"], [r["share"], r["low"], r["high"]], f"{percent(r['share'])}  n={r['n']:,}")
        for r in found["agreement"]
        if r["n"]
    ]
    words = (
        f"{found['teacher']} answered {found['rows']:,} of {found['wanted']:,} prompts so that they are learnt from, "
        f"for {found['cost_usd']} USD. How often it says what {found['served']} said, by the policy's judge, on "
        "prompts that were trained on (audited ones are never sent). Errors that are drawn a student averages out; "
        "what the label teacher never gets right it does not learn. Bars hold 95%."
    )
    out = _table(["left out", ""], [[why, f"{n:,}"] for why, n in found["out"].items()]) if found["out"] else ""
    drawn = intervals(lines, _floor(line.limits[1] for line in lines), 1.0) if lines else ""
    return _card_of("Label teacher", words, drawn + out)


def _training(found: Values | None) -> str:
    if not found:
        return ""
    rows = [
        [name.replace("_", " "), _plain(value)] for name, value in found.items() if not isinstance(value, list | dict)
    ]
    return _card_of("Training", "", _table(["", ""], rows))


def _footer(report: Values) -> str:
    text = (
        "Intervals of 95% by the bootstrap over questions (BCa for shares and differences, percentiles for AUROC), "
        "exact where nothing varies, and in the reliability diagrams. Costs: input tokens are estimates, output tokens "
        "the engine's own count. "
        f"Seed {report['seed']}."
    )
    return f'<footer class="soft small">{escape(text)}</footer>'


def _card_of(title: str, words: str, body: str) -> str:
    about = f'<p class="soft small">{escape(words)}</p>' if words else ""
    return f'<section class="card chart"><h2>{escape(title)}</h2>{about}<div class="scroll">{body}</div></section>'


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, marks: Sequence[str] = (), bad: Any = None) -> str:
    head = "".join(f"<th>{escape(h)}</th>" for h in heads) if any(heads) else ""
    lines = []
    for i, row in enumerate(rows):
        kind = ' class="bad"' if bad is not None and bad(row) else ""
        first = marks[i] if i < len(marks) else ""
        cells = "".join(f"<td{kind}>{first if j == 0 else ''}{escape(cell)}</td>" for j, cell in enumerate(row))
        lines.append(f"<tr>{cells}</tr>")
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{''.join(lines)}</table>"


def _floor(lows: Any) -> float:
    """A round share below all of them, so that near 1 the chart shows what there is."""
    return max(0.0, int(min((x for x in lows if x is not None), default=0.0) * 10) / 10)


def _around(differences: Any) -> tuple[float, float]:
    ends = [abs(x) for limits in differences for x in limits if x is not None]
    most = max([0.05, *ends])
    edge = min(1.0, int(most * 20 + 1) / 20)
    return -edge, edge


def _told(limits: Sequence[float | None]) -> str:
    return f"{percent(limits[0])} ({_range(limits, percent)})"


def _range(limits: Sequence[float | None], say: Any) -> str:
    return "" if limits[1] is None or limits[2] is None else f"{say(limits[1])} – {say(limits[2])}"


def _three(value: float | None) -> str:
    return _number(value, 3)


def _number(value: float | None, decimals: int) -> str:
    return "–" if value is None else f"{value:.{decimals}f}"


def _usd(per_request: float | None) -> str:
    return "–" if per_request is None else f"${1000 * per_request:.3g}"


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
