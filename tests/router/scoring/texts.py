"""Texts of many kinds, on which the quick way must give what the long way gives."""

import random

PLAIN = [
    "Where is my new card? It hasn't arrived -- I ordered it on 3.5.2024 (at 14:30)!",
    "don't_do that! x=3.5*foo_bar(12) && y != z; a\tb\r\n\r\nunbelievably __init__ C++ C# `code` {json: [1, 2]}",
    "Ünïcödé naïve café Łódź Ærøskøbing straße ŒUVRE ﬁne",
    "你好世界，这是一个测试。 日本語のテキスト 한국어 문장",
    "и привет, как дела? Ελληνικά ερώτηση; مرحبا שלום",
    "“curly” ‘quotes’ – and — dashes… ¿qué? ¡sí! «guillemets»",
    "https://example.com/a/b?c=d&e=f#g mail@example.com 0xDEADBEEF 1,234,567.89 AKIA0123456789",
    "x" * 99 + " " + "y" * 101 + " " + "antidisestablishmentarianism " * 3,
    "",
    " \n\t ",
]
"""What the tokenizer itself gives the same tokens for."""
MARKS = (
    "e\u0301 cafe\u0301s \u200d\u2028x.\u2028 \x00\x01\x1ca\x1d\x85!\u3000 "
    "5€ 20°C → 👨‍👩‍👧list हिन्दी में สวัสดี Ⅷ ² ½ ٣٤ [CLS] ##ing K\u212a İstanbul"
)
"""What Locum lets stand for itself: combining and invisible characters, signs that are no punctuation."""


def mixtures(n: int) -> list[str]:
    """Texts of up to 200 characters drawn from all of these: seeded."""
    rng, characters = random.Random(0), MARKS + "".join(PLAIN)
    return ["".join(rng.choices(characters, k=rng.randrange(200))) for _ in range(n)]
