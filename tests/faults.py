"""Faults that people's files, hubs and machines brought to light, each with the tests that hold it.

``python -m tests.faults`` prints them as a table, ``--run`` with how their tests end now, ``--run 15 25``
those of some.
A test is named by its function alone, so that it may move from file to file.
"""

import ast
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
WORST = ("error", "failure", "skipped")


@dataclass(frozen=True)
class Fault:
    """One fault: what went wrong, what is right, and what holds it."""

    number: str
    kind: str
    before: str
    now: str
    tests: tuple[str, ...]


FAULTS = (
    Fault(
        "1", "columns taken from the first seed",
        "KeyError after everything was measured, and in every analyse",
        "sentences over the seeds that have the column",
        ("test_seeds_with_other_checkpoints_and_columns_end_in_a_report",
         "test_a_seed_that_lacks_most_checkpoints_does_not_cost_those_of_the_others"),
    ),
    Fault(
        "2", "output path written again", "loss 6.413 for 4.888 (FalconH1), wrong in five more families",
        "compared once with the model's own logits; else its own forward, or null with its reason",
        ("test_the_loss_is_that_of_the_models_own_logits",
         "test_the_loss_is_that_of_the_models_own_logits_in_families_that_scale_them",
         "test_the_loss_is_the_model_s_own"),
    ),
    Fault(
        "3", "one odd checkpoint as the reference", "every good step failed, on reruns too",
        "the majority of measured records is the reference; the odd one is named",
        ("test_a_checkpoint_of_another_architecture_is_named_and_its_siblings_count",
         "test_a_checkpoint_that_fails_by_itself_tells_nothing_of_its_siblings",
         "test_of_as_many_of_each_kind_the_later_are_the_model"),
    ),
    Fault(
        "4", "W&B agent's variables", "two models in one run, overwriting each other",
        "run ids are tracker's own; the sweep's name is configuration",
        ("test_what_a_wandb_agent_calls_its_run_is_the_name_of_none_of_ours",),
    ),
    Fault(
        "5", "shards judged by their names", "complete sets refused",
        "the index is fetched first and its weight_map counts",
        ("test_the_index_tells_which_files_are_shards_whatever_they_are_called",
         "test_a_stale_shard_of_another_set_is_not_fetched",
         "test_an_index_that_is_none_or_names_too_much_is_one_line",
         "test_shards_that_the_index_does_not_name"),
    ),
    Fault(
        "6", "read-only caches", "a complete cache refused for its lock file",
        "whole cached commits need no lock",
        ("test_a_whole_commit_of_a_cache_that_may_only_be_read_needs_no_lock",
         "test_cache_that_cannot_be_locked_is_read"),
    ),
    Fault(
        "7", "identity of the probe", "another text column, the same results served",
        "every field that decides the token ids changes the key",
        ("test_whatever_decides_the_token_ids_belongs_to_the_key",
         "test_what_differs_in_text_or_cut_differs_in_the_label"),
    ),
    Fault(
        "8", "audit of step 0", "alarms on zero-initialised projections and on fine-tuning runs",
        "zeros there are usual; other deviations are remarks",
        ("test_zeros_and_another_start_than_declared_are_no_fault_of_step_0",),
    ),
    Fault(
        "9", "wrapped models in a training", "the callback ended the training; Rust panics reached its loop",
        "unwrapped (PEFT, DDP, compile, accelerate); nothing of tracker's ends a training",
        ("test_a_trainer_with_an_adapter_trains_to_its_end", "test_a_model_is_taken_out_of_what_wraps_it",
         "test_distributed_data_parallel_is_unwrapped", "test_a_compiled_training_is_measured",
         "test_a_panic_in_an_event_reaches_no_training",
         "test_what_breaks_behind_a_measurement_is_reported_and_training_goes_on",
         "test_a_training_that_cannot_be_monitored_goes_on"),
    ),
    Fault(
        "10", "models without a vocabulary head", "'NoneType' object is not callable; folders refused",
        "attention measured, loss null",
        ("test_without_a_vocabulary_head_attention_is_measured_and_the_loss_is_null",),
    ),
    Fault(
        "11", "names made of digits", "2024_11_20 became 20241120, 1e5 became 100000.0",
        "text fields keep what was typed",
        ("test_names_made_of_digits_stay_what_was_typed",),
    ),
    Fault(
        "12", "multimodal configurations", "'has no attention heads'", "the language model is measured",
        ("test_the_language_model_of_one_that_reads_images_is_measured",),
    ),
    Fault(
        "13", "families: sinks, hybrids, older ones", "raw exceptions",
        "measured as eager attention, sinks in a column of their own, or refused in one line",
        ("test_the_mass_of_a_learned_sink_is_a_column_of_its_own",
         "test_the_layers_of_a_hybrid_that_have_attention_are_measured",
         "test_other_families_measure_as_eager_attention",
         "test_what_cannot_be_measured_exactly_is_refused_in_one_line",
         "test_a_head_of_its_own_is_streamed_where_the_configuration_ties_it"),
    ),
    Fault(
        "14", "damaged records", "25 of 240 read back as other numbers, 25 errors without a path",
        "a digest per table; damaged records are named, left out and measured again",
        ("test_no_damaged_record_is_read_as_other_numbers",
         "test_one_flipped_bit_anywhere_in_a_record_is_named_and_the_rest_goes_on",
         "test_damaged_sums_and_lost_tables_are_damage_too_and_every_record_damaged_is_an_error",
         "test_a_record_without_sums_reads_and_shows_what_its_tables_contradict",
         "test_tables_damaged_after_the_store_was_opened_are_named",
         "test_views_say_what_is_damaged_and_a_sweep_measures_it_again"),
    ),
    Fault(
        "15", "answers without end; secrets in errors",
        "sweeps hung; a proxy's echoed token stood on the dashboard",
        "deadlines for answers and pieces of files; tokens are cut from every message",
        ("test_secrets_are_cut_from_messages", "test_a_token_that_a_proxy_echoes_is_shown_nowhere",
         "test_an_answer_that_does_not_end_is_given_up_in_time",
         "test_a_slow_file_that_goes_on_arrives_whatever_it_takes",
         "test_an_answer_larger_than_any_should_be_is_not_read_on",
         "test_a_hostile_answer_ends_in_the_right_files_or_one_line"),
    ),
    Fault(
        "16", "the dashboard's server", "hung after Ctrl-C; a thread for each idle connection; tracebacks",
        "bounded connections, ends within 2 s, one line per bad request",
        ("test_idle_connections_are_bounded_and_slow_readers_do_not_hold_up_the_end",
         "test_a_malformed_request_is_refused_without_a_traceback"),
    ),
    Fault(
        "17", "a store that goes away", "said so only at the end",
        "the sweep stops at once and says what is where",
        ("test_a_store_that_goes_away_stops_its_sweep_at_once",
         "test_a_store_that_breaks_ends_the_sweep_with_its_error"),
    ),
    Fault(
        "18", "frozen workers", "held the sweep for ever",
        "the unit goes to another worker; nothing is written twice",
        ("test_a_worker_that_freezes_loses_its_unit_to_another_and_writes_nothing_twice",
         "test_a_unit_that_hangs_while_its_process_lives_goes_to_another_worker",
         "test_a_worker_that_freezes_while_it_starts_is_replaced",
         "test_a_running_scheduler_that_freezes_ends_the_sweep_with_a_line",
         "test_a_unit_that_takes_too_long_or_whose_worker_keeps_dying_is_a_hole"),
    ),
    Fault(
        "19", "side files of the wrong shape", "TypeError, AttributeError, RecursionError as tracebacks",
        "one typed reader; what does not fit is named, set aside and made again",
        ("test_no_reader_breaks_on_a_side_file_with_one_wrong_value",
         "test_a_damaged_file_is_named_set_aside_and_made_again", "test_alerts_that_are_null_are_none"),
    ),
    Fault(
        "20", "SIGTERM and SIGHUP", "progress files and reservations left behind", "as Ctrl-C, within 5 s",
        ("test_slurms_and_a_closed_terminals_signal_end_a_sweep_as_ctrl_c_does",
         "test_a_stopped_sweep_leaves_no_process_and_goes_on"),
    ),
    Fault(
        "21", "exceptions of one checkpoint",
        "nested headers, Rust panics and absurd sizes stopped a sweep for good",
        "one boundary: each is a recorded failure, and the sweep goes on",
        ("test_whatever_loading_raises_is_a_failure_of_the_checkpoint",
         "test_a_header_or_an_index_nested_without_end_is_a_failure_of_the_checkpoint",
         "test_a_bad_checkpoint_is_recorded_with_its_reason", "test_the_sweep_goes_on_to_the_last",
         "test_no_malformed_folder_ends_otherwise"),
    ),
    Fault(
        "22", "[, * and ? in a store's path", "written and never read", "read whatever the folder is called",
        ("test_a_store_reads_back_whatever_its_folder_is_called",),
    ),
    Fault(
        "23", "W&B's ledger damaged", "taken as empty, all offline rows doubled",
        "made again; no row doubled",
        ("test_a_damaged_or_lost_ledger_is_made_again_and_doubles_no_row",
         "test_a_replay_adds_nothing_even_where_the_ledger_is_lost",
         "test_a_ledger_of_an_earlier_version_is_read"),
    ),
    Fault(
        "24", "replacing records, clocks",
        "a kill between two renames lost a record; records of the future stayed",
        "put back after a kill; what the plan saw is compared, not clocks",
        ("test_a_replacement_killed_after_any_of_its_moves_loses_no_result",
         "test_what_another_machine_left_goes_by_the_file_servers_clock_also_from_the_future",
         "test_a_unit_to_be_measured_again_counts_as_recorded_only_when_its_record_is_new",
         "test_a_retried_unit_that_another_sweep_has_recorded_since_the_plan_is_not_measured_again"),
    ),
    Fault(
        "25", "a lying hub's hashes, commits, names", "files written and removed outside the cache",
        "only whole hashes and plain names become paths; headers are held against the listing",
        ("test_a_hash_of_the_listing", "test_a_commit_of_the_listing", "test_a_name_of_the_listing",
         "test_a_header_while_a_file_is_fetched",
         "test_a_header_while_a_data_set_is_fetched", "test_a_header_where_the_listing_has_no_hash",
         "test_a_commit_beside_an_answer_that_there_is_no_such_file", "test_a_commit_of_a_branch",
         "test_a_commit_of_a_history", "test_a_claim_that_names_paths_removes_nothing",
         "test_shards_whose_names_differ_by_case_only_are_refused", "test_names_never_leave_the_store"),
    ),
    Fault(
        "26", "views and the terminal",
        "a frozen page; escape sequences obeyed; stream to a dead server ended with 0",
        "followers survive; control characters are shown; ends with 1",
        ("test_an_older_analysis_is_served_and_the_follower_survives_a_broken_one",
         "test_escape_sequences_of_names_are_shown_and_not_obeyed",
         "test_no_command_on_a_store_passes_on_control_characters",
         "test_no_command_on_a_folder_passes_on_control_characters",
         "test_stream_to_a_server_that_does_not_answer_ends_with_1",
         "test_what_a_killed_process_held_is_free_at_once"),
    ),
    Fault(
        "message", "_orig_mod., module., {'model': ...}", "refused as another architecture", "read",
        ("test_names_that_wrappers_changed_are_read", "test_weights_beside_an_optimizer_are_read"),
    ),
    Fault(
        "message", "ZeRO-3 placeholders, 408 rows for 400, remote code, a pickled module",
        "sent people the wrong way",
        "each says what it is and what to do", ("test_what_cannot_be_read_says_what_to_do",),
    ),
    Fault("message", "an adapter alone", "no weights", "adapter of BASE: merge it first",
          ("test_an_adapter_alone_names_its_model",)),
    Fault("message", "a dangling link", "no config.json", "a link to TARGET, which is gone",
          ("test_a_link_to_nothing_names_its_target",)),
    Fault("message", "tokenizer.model without sentencepiece", "another error", "install sentencepiece",
          ("test_a_tokenizer_that_needs_sentencepiece_says_so",)),
    Fault(
        "message", "steps in folders of the hub's main, and tags", "not found", "found, fetched and audited",
        ("test_each_is_found_and_only_its_files_are_fetched", "test_they_are_planned_measured_and_audited"),
    ),
    Fault(
        "message", "jsonl without text, null texts, arrays", "raw errors",
        "line, fields and probe.field; nulls skipped",
        ("test_documents_without_a_text_name_line_and_fields",
         "test_documents_are_joined_and_null_ones_skipped"),
    ),
)  # fmt: skip


@cache
def places() -> dict[str, list[str]]:
    """Every test function with the files that define one of its name."""
    found: dict[str, list[str]] = {}
    for path in sorted(HERE.glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found.setdefault(node.name, []).append(path.name)
    return found


def chosen(numbers: Collection[str]) -> list[Fault]:
    """The faults of some numbers; all where there are none."""
    return [fault for fault in FAULTS if not numbers or fault.number in numbers]


def print_table(faults: Collection[Fault], results: Mapping[str, str] | None = None) -> None:
    """Print one row per fault, its tests below each other.

    Args:
        faults: in order.
        results: of tests that were run, by name.
    """
    table = Table("", "kind", "before", "now", box=None)
    table.add_column("tests" if results is None else "tests, as they ended", no_wrap=True)
    for fault in faults:
        ends = [
            ("" if results is None else f"{results.get(test, 'not run')}: ", test) for test in fault.tests
        ]
        tests = "\n".join(f"{end}{file}::{test}" for end, test in ends for file in places()[test])
        table.add_row(fault.number, fault.kind, fault.before, fault.now, tests)
    Console(width=260, markup=False, highlight=False).print(table)


def run(faults: Collection[Fault]) -> tuple[int, dict[str, str]]:
    """Run the tests of some faults, the slow ones with them.

    Returns:
        pytest's exit code, and how each test ended, by name: the worst of its cases, and seconds of all.
    """
    tests = {test for fault in faults for test in fault.tests}
    names = sorted(f"{HERE / file}::{test}" for test in tests for file in places()[test])
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-n0", "-q", "-m", "", f"--junitxml={report}", *names]
        code = subprocess.run(command, cwd=HERE.parent, check=False).returncode
        cases = list(ElementTree.parse(report).iter("testcase"))
    results = {}
    for test in tests:
        own = [case for case in cases if case.attrib["name"].partition("[")[0] == test]
        ends = {child.tag for case in own for child in case} & set(WORST)
        worst = next((end for end in WORST if end in ends), "passed")
        results[test] = f"{worst}, {sum(float(case.attrib['time']) for case in own):.1f} s"
    return code, results


def main(arguments: Collection[str]) -> int:
    """Print the table; where asked for, with how its tests end now."""
    faults = chosen([each for each in arguments if each != "--run"])
    code, results = run(faults) if "--run" in arguments else (0, None)
    print_table(faults, results)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
