"""A few trials of each endurance script; by hand they make thousands (docs/reliability.md)."""

import json
import sys

from tests.endurance import fuzz

# Those that need no TensorFlow, and one that does.
FUZZED = "records,examples,index,rank_table,hccn_conf,run_json,rendezvous,environment,flags,csv,checkpoints"


def results(monkeypatch, tmp_path, script, *arguments):
    """The result of a script, which failed in no trial."""
    result = tmp_path / "result.json"
    monkeypatch.setattr(sys, "argv", [script.__name__, *arguments, "--json", str(result)])
    code = script.main()
    found = json.loads(result.read_text())
    assert code == 0, found["failures"]
    return found


def test_spoiled_inputs_end_in_words_or_in_the_right_result(monkeypatch, tmp_path):
    found = results(monkeypatch, tmp_path, fuzz, "--trials", "15", "--kinds", FUZZED)
    assert sum(found["trials"].values()) == 15 * len(FUZZED.split(","))
    assert found["outcomes"]["environment"].get("accepted"), "not all is refused"


def test_an_error_without_words_is_a_failure(tmp_path):
    class Broken(fuzz.SUBJECTS["csv"]):
        def attempt(self, chance):
            raise KeyError("found")

    with open(tmp_path / "log", "wb") as log:
        outcome, reason = fuzz.answer(Broken(str(tmp_path)), None, log.fileno())
    assert outcome == "failed"
    assert "KeyError: 'found'" in reason
