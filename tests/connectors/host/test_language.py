"""Which language a text is in."""

from __future__ import annotations

import pytest

from connectors.host.language import language_of


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What is the weather like today?", "en"),
        ("Please explain this to me", "en"),
        ("Wie ist das Wetter heute und was soll ich anziehen?", "de"),
        ("Kannst du mir bitte die Rechnung erklären", "de"),
        ("Comment puis-je aller à la gare avec mes enfants ?", "fr"),
        ("Écris une lettre pour ma mère", "fr"),
        ("¿Dónde está la biblioteca más cercana?", "es"),
        ("Escribe una carta para mi jefe, por favor", "es"),
        ("今天天气怎么样", "zh"),
        ("请用 Python 写一个快速排序函数", "zh"),
        ("今日の天気はどうですか", "ja"),
        ("東京都の人口を教えて", "ja"),
        ("오늘 날씨가 어때요", "ko"),
        ("Какая сегодня погода?", "ru"),
        ("Яка сьогодні погода в Києві?", "uk"),
        ("كيف حالك اليوم", "ar"),
        ("Ποιος είναι ο καιρός;", "el"),
    ],
)
def test_languages_are_told_apart(text: str, language: str) -> None:
    assert language_of(text) == language


@pytest.mark.parametrize("text", ["", "ok", "42 + 17", "xyzzy frobnicate", "Berlin Paris Madrid", "😀😀", "x = y / z"])
def test_nothing_is_said_where_it_is_unsure(text: str) -> None:
    assert language_of(text) == ""


def test_fenced_code_does_not_count() -> None:
    assert language_of("为什么报错？\n```python\nthe_result = what if this is not in the list for you\n```") == "zh"
