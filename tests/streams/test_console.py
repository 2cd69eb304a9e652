"""What others have written is printed as it is: no markup, no emoji, nothing that moves the cursor."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from contracts.intake import Inbound, refuse
from contracts.visible import visible
from streams import dead_letter_commands
from streams.console import wide_console
from streams.dead_letters import dead_letter, read_dead_letter
from streams.topic_commands import show_findings
from streams.topics import Finding


@pytest.mark.parametrize("text", ["[/foo]", "[red]shoes[/red]", "[compact,delete]", ":shoe:", "an [open"])
def test_brackets_and_colons_are_printed_as_they_are(text, capsys):
    wide_console().print(text)
    assert capsys.readouterr().out == f"{text}\n"


def test_a_remedy_with_brackets_can_be_copied(capsys):
    remedy = "--add-config cleanup.policy=[compact,delete]"
    show_findings("Topics", [Finding("warning", "decisions", "wrong", remedy)], as_json=False)
    assert remedy in capsys.readouterr().out


def test_a_dead_letter_that_quotes_brackets_is_listed(monkeypatch):
    error = refuse("bad_field", "Invalid value '[/foo]\x1b[31m'")
    key, value, headers = dead_letter(Inbound(-1, 1, 17, None, None, b"u", b"{}", 0), error, "views", 3, 1_000)
    letter = read_dead_letter(key, value, headers, "3/40")
    monkeypatch.setattr(dead_letter_commands, "_dead_letters", lambda *_: iter([letter]))
    result = CliRunner().invoke(dead_letter_commands.dlq, ["list"], catch_exceptions=False)
    assert "Invalid value '[/foo]\\x1b[31m'" in result.output


def test_control_characters_are_written_out_and_nothing_else_is():
    assert visible("a\x1b[31m\r\x9b\x00é 😀") == "a\\x1b[31m\\x0d\\x9b\\x00é 😀"
