"""A few trials of each endurance script; by hand they make thousands (docs/reliability.md)."""

import json
import sys

import pytest

from tests.endurance import disk, fuzz, kill, memory, trials

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


def test_a_run_holds_no_more_in_the_end_than_early_on(monkeypatch, tmp_path):
    found = results(monkeypatch, tmp_path, memory, "--steps", "300", "--allowed_megabytes", "64")
    assert {"bytes", "files", "threads"} < set(found["facts"])


def test_what_a_run_keeps_for_each_step_is_found():
    with pytest.raises(trials.Failed, match="bytes grew"):
        memory.judge([(10**8 + 400_000 * number, 14, 30) for number in range(100)], 20_000, {})
    with pytest.raises(trials.Failed, match="files grew"):
        memory.judge([(10**8, 14 + number // 50, 30) for number in range(100)], 20_000, {})
    memory.judge([(10**8, 14, 30)] * 100, 20_000, {})


def test_processes_that_die_or_are_asked_to_stop_cost_nothing(monkeypatch, tmp_path):
    chosen = ("--kinds", "kill_group,signal_all", "--trials", "1", "--ranks", "1", "--harms", "1")
    found = results(monkeypatch, tmp_path, kill, *chosen)
    assert sum(found["facts"]["harm by moment"].values()) > 0, "it happened while the run went on"


def test_a_call_of_the_disk_that_fails_costs_no_checkpoint(monkeypatch, tmp_path):
    found = results(monkeypatch, tmp_path, disk, "--kinds", "save", "--trials", "25")
    assert set(found["outcomes"]["save"]) == {"saved", "refused"}


def test_a_run_whose_disk_fails_goes_on_afterwards(monkeypatch, tmp_path):
    results(monkeypatch, tmp_path, disk, "--kinds", "call", "--trials", "1")
