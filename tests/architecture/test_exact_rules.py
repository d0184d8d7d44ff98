"""What the system promises in one sentence each, and the tests that hold it to that."""

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

RULES: Final[Mapping[str, tuple[str, ...]]] = {
    # ---- requests
    "A topic's lane is the most urgent that its requests can have; `priority` only lowers it.": (
        "unit/schemas_requests/test_priority.py::test_the_lane_is_the_ceiling_and_priority_may_only_lower_it",
        "unit/engine/test_engine.py::test_the_lane_is_the_ceiling_and_priority_may_only_lower_it",
    ),
    "`deadlinems` counts from `time`, or from the record's timestamp if `time` cannot be right.": (
        "unit/routing/test_budget.py::test_the_budget_runs_from_time",
        "unit/routing/test_budget.py::test_the_budget_runs_from_the_records_timestamp_where_time_is_missing",
        "unit/routing/test_budget.py::test_a_time_more_than_60_s_ahead_is_not_believed",
    ),
    "A request needs `id`, `type` and `data`; everything else has a default.": (
        "unit/schemas_requests/test_requests.py::test_only_id_type_and_data_are_demanded",
        "unit/engine/test_parse.py::test_missing_attributes_have_their_defaults_and_unknown_extensions_are_ignored",
        "unit/engine/test_engine.py::test_tenant_is_the_source_where_none_is_named",
    ),
    "Each limit can be used up exactly, and one more is refused.": (
        "unit/engine/test_parse.py::test_a_limit_is_accepted_and_one_more_is_refused",
        "unit/engine/test_parse.py::test_what_is_just_within_the_limits_is_accepted",
    ),
    "Typed integers fit into a double.": (
        "unit/engine/test_parse.py::test_a_limit_is_accepted_and_one_more_is_refused",
        "unit/schemas/test_json_schemas.py::test_integers_of_messages_stay_within_what_a_double_holds_exactly",
    ),
    "`id`, `type` and `data` stand once.": (
        "unit/engine/test_parse.py::test_a_key_that_stands_twice_is_refused",
        "unit/engine/test_parse.py::test_only_the_three_keys_of_the_outermost_object_must_be_unique",
    ),
    "Empty lists and empty texts are refused.": (
        "unit/engine/test_parse.py::test_a_wrong_field_is_named_by_its_path",
    ),
    "A model or version that is not served is refused.": (
        "unit/engine/test_engine.py::test_an_unknown_model_is_refused_with_those_that_are_served",
    ),
    "Texts become NFC; of the control characters only tab and line ends stay; NUL is refused.": (
        "unit/engine/test_sanitise.py::test_a_sanitised_text_is_nfc_and_sanitising_it_again_changes_nothing",
        "unit/engine/test_sanitise.py::test_tab_newline_and_carriage_return_stay_and_other_control_characters_become_a_space",
        "unit/engine/test_sanitise.py::test_nul_is_refused_with_its_place",
        "unit/engine/test_sanitise.py::test_texts_and_labels_are_sanitised",
    ),
    # ---- models
    "`minilm` is int8 and the default; `minilm-fp32` is float.": (
        "unit/registry/test_pull.py::test_minilm_is_int8_and_the_default_and_minilm_fp32_is_float",
        "integration/models/test_accuracy.py::test_minilm_multiplies_integers_and_minilm_fp32_does_not",
    ),
    "A version is named by `name@version`; a name alone means the latest.": (
        "unit/engine/test_engine.py::test_a_model_is_found_by_name_and_by_name_and_version",
        "unit/registry/test_store.py::test_a_name_alone_means_the_latest_version_and_ten_is_later_than_nine",
        "unit/bootstrap/test_worker.py::test_a_name_alone_means_the_latest_of_the_served_versions_in_whatever_order",
    ),
    "MiniLM reads 256 tokens, the other models 512; a longer text is cut and says so.": (
        "unit/registry/test_pull.py::test_minilm_reads_256_tokens_and_the_others_512_and_e5_is_told_the_role_of_a_text",
        "unit/engine/test_engine.py::test_a_text_longer_than_the_model_reads_is_truncated_and_says_so",
    ),
    "`input_type` chooses the prefix with which a model was trained; without it, the passage's.": (
        "unit/registry/test_pull.py::test_minilm_reads_256_tokens_and_the_others_512_and_e5_is_told_the_role_of_a_text",
        "unit/engine/test_engine.py::test_a_model_trained_with_prefixes_reads_them_by_input_type",
    ),
    "`tokens` is what ran, special tokens included.": (
        "unit/inference/test_tokenizer.py::test_each_text_becomes_a_row_between_its_special_tokens",
        "unit/engine/test_engine.py::test_an_embed_request_is_answered_in_input_order_as_base64_by_default",
        "integration/models/test_accuracy.py::test_a_text_has_the_tokens_of_the_original",
    ),
    "The digest covers every file of a version.": (
        "unit/registry/test_trust.py::test_a_digest_depends_on_every_file_and_on_how_the_model_is_run",
        "unit/registry/test_trust.py::test_one_changed_byte_in_any_file_is_found",
        "unit/registry/test_trust.py::test_a_file_that_the_manifest_does_not_list_is_refused",
    ),
    # ---- answers
    "An outcome is structured JSON, whatever the request was.": (
        "unit/engine/test_engine.py::test_a_binary_request_is_answered_by_a_structured_outcome",
        "unit/delivery/test_outcome.py::test_what_is_encoded_is_what_the_schema_promises",
    ),
    "`data.request_id` is always there, null when it could not be read.": (
        "unit/delivery/test_outcome.py::test_an_unreadable_request_id_is_null_and_the_subject_absent",
        "unit/engine/test_engine.py::test_a_record_whose_id_cannot_be_read_is_known_by_its_place",
    ),
    "What carries a replay id has an outcome id of its own.": (
        "unit/engine/test_engine.py::test_a_replay_is_answered_apart_with_an_outcome_id_of_its_own",
        "unit/engine/test_engine.py::test_a_redrive_is_answered_to_everybody_with_an_outcome_id_of_its_own",
        "unit/engine/test_engine.py::test_what_a_client_says_about_replays_is_not_believed",
    ),
    "A replay leaves the workers' offsets and the live results alone; a kill repeats, and counts once.": (
        "integration/replay/test_answers.py::test_500_requests_have_500_outcomes_of_the_replay_and_none_on_the_live_topic",
        "integration/replay/test_injection.py::test_every_record_is_put_back_as_it_was_and_the_live_group_is_not_touched",
        "integration/replay/test_answers.py::test_killed_ten_times_each_record_is_put_back_and_each_request_reported_once",
        "integration/replay/test_injection.py::test_a_replay_cancelled_from_elsewhere_ends_within_five_seconds",
        "integration/replay/test_injection.py::test_the_rate_is_kept_within_a_tenth",
    ),
    "A cut-over that passed its gate changes what a name means in every worker, now and later.": (
        "integration/replay/test_cut_over.py::test_an_open_gate_switches_running_workers_and_later_ones_and_a_switch_leads_back",
        "integration/replay/test_cut_over.py::test_a_worker_without_that_version_keeps_its_own_and_says_so",
        "integration/replay/test_reports.py::test_a_closed_gate_publishes_nothing_and_says_which_figure_fails",
        "unit/engine/test_switch.py::test_a_switch_changes_what_the_name_alone_means_and_nothing_else",
    ),
    "An outcome that is too large becomes a dead letter and holds nobody up.": (
        "unit/engine/test_engine.py::test_an_outcome_that_is_too_large_becomes_a_dead_letter",
        "integration/agents/test_acknowledgement.py::test_an_outcome_that_does_not_fit_is_replaced_and_blocks_nobody",
    ),
    "A dead letter keeps key, value and headers, and has thirteen headers of ours.": (
        "unit/delivery/test_dead_letter.py::test_headers_tell_what_went_wrong_and_where_the_record_was",
        "unit/delivery/test_dead_letter.py::test_key_value_and_headers_are_what_they_were",
    ),
    "A redriven letter is the original byte for byte, has an outcome of its own, and is sent once.": (
        "unit/dead_letters/test_redrive.py::test_the_original_arrives_byte_for_byte",
        "unit/dead_letters/test_redrive.py::test_the_replay_id_is_that_of_the_letter_and_the_turn",
        "integration/cli/test_dead_letters.py::test_a_letter_that_was_redriven_is_left_alone_until_it_is_asked_for_again",
        "acceptance/test_redrive.py::test_n_letters_give_n_requests_with_one_outcome_each",
        "acceptance/test_redrive.py::test_a_redrive_that_is_killed_and_repeated_gives_one_outcome_each",
    ),
    "A message has 8 KiB at most.": (
        "unit/delivery/test_dead_letter.py::test_the_message_is_bounded",
        "unit/engine/test_engine.py::test_a_message_has_8_kib_at_most_unless_set_otherwise",
    ),
    "Lake gets the vectors of a request that has a subject, under that key.": (
        "unit/engine/test_engine.py::test_lake_gets_an_embedding_only_when_the_request_has_a_subject_which_is_its_key",
        "unit/engine/test_engine.py::test_a_classification_with_a_subject_gives_lake_nothing",
        "unit/delivery/test_outcome.py::test_a_lake_vector_is_what_its_schema_promises",
    ),
    # ---- events
    "Events take effect in order, subject by subject.": (
        "integration/agents/test_order_and_isolation.py::test_the_events_of_a_subject_take_effect_in_their_order",
        "unit/agents/test_intake.py::test_while_an_event_cannot_be_published_no_later_one_of_its_partition_is",
    ),
    "Changed and deleted documents and published models make caches forget.": (
        "unit/engine/test_events.py::test_an_event_makes_every_cache_forget_what_it_is_about",
        "acceptance/test_requests.py::test_a_changed_document_makes_every_cache_forget_it",
    ),
    "Every event below `stream.` is accepted, others are refused.": (
        "unit/engine/test_events.py::test_events_of_stream_are_accepted_whatever_their_data",
        "unit/engine/test_events.py::test_an_unknown_event_is_refused_with_those_that_are_handled",
    ),
    # ---- topics and the group
    "Lanes have 4 partitions in dev and 12 in prod.": (
        "unit/topics/test_catalogue.py::test_topics_lanes_have_4_partitions_in_dev_and_12_in_prod",
    ),
    "Requests and results are kept 7 days, dead letters 30.": (
        "unit/topics/test_catalogue.py::test_requests_and_results_are_kept_7_days_and_dead_letters_30",
    ),
    "A record has 1 copy in dev; in prod 3, of which 2 must confirm.": (
        "unit/topics/test_catalogue.py::test_a_record_is_on_1_broker_in_dev_and_on_3_of_which_2_must_confirm_in_prod",
        "unit/kafka/test_producer.py::test_a_record_counts_as_sent_once_every_in_sync_replica_has_it",
    ),
    "Requests, results and dead letters may weigh 8 MiB.": (
        "unit/topics/test_catalogue.py::test_requests_results_and_dead_letters_may_weigh_8_mib",
        "integration/kafka/test_producer.py::test_the_largest_record_passes_even_if_it_does_not_compress",
        "integration/devstack/test_kafka.py::test_a_record_of_eight_mebibytes_passes",
    ),
    "The dev stack creates no topic by itself.": (
        "integration/devstack/test_kafka.py::test_a_topic_that_nobody_created_does_not_appear",
    ),
    "Without its topics a worker exits with 2 and names `topics apply`.": (
        "integration/agents/test_process.py::test_missing_topics_end_it_with_code_2_and_name_the_repair",
        "acceptance/test_faults.py::test_a_worker_started_before_its_topics_exist_exits_2_and_says_what_to_do",
    ),
    "The group carries the prefix; membership is dynamic unless an instance is named.": (
        "unit/agents/test_faust_settings.py::test_membership_is_dynamic_unless_an_instance_is_named_and_the_group_has_the_prefix",
    ),
    "A kind of workers, those that host the same stages, is a group of its own.": (
        "unit/kernel/test_worker_settings.py::test_each_kind_of_workers_is_a_group_of_its_own",
    ),
    # ---- pipelines and workers that share the stages
    "The first pipeline that fits type, priority and tenant answers; `standard` fits everything.": (
        "unit/routing/test_pipeline.py::test_the_first_pipeline_whose_type_priority_and_tenant_fit_answers",
        "unit/routing/test_pipeline_file.py::test_standard_comes_last_wherever_it_stands_and_the_file_may_define_it_anew",
    ),
    "A pipeline has 100 work items of a lane in its stages and 30 s a stage, but for `standard`.": (
        "unit/routing/test_pipeline.py::test_realtime_takes_100_at_once_and_30_s_a_stage_and_standard_waits_without_a_limit",
        "unit/routing/test_pipeline_file.py::test_a_pipeline_allows_100_at_once_and_30_s_a_stage_unless_it_says_otherwise",
        "unit/engine/test_limits.py::test_a_pipeline_has_so_many_requests_of_a_lane_at_the_models_and_the_rest_waits",
        "unit/engine/test_limits.py::test_a_stage_beyond_its_time_is_tried_again_and_then_a_dead_letter",
    ),
    "An answer is the same whether one worker hosts all stages or several share them.": (
        "unit/engine/test_handover.py::test_it_ends_as_in_one_worker_wherever_its_stages_run",
        "acceptance/test_split.py::test_split_workers_answer_as_fused_ones_do",
    ),
    "A hand-over keeps key, value and headers, lane, tries, and what is left of the deadline.": (
        "unit/engine/test_handover.py::test_what_was_handed_over_arrives_bit_by_bit",
        "unit/engine/test_handover.py::test_it_keeps_its_lane_key_headers_and_bytes",
        "unit/engine/test_handover.py::test_what_is_left_of_a_deadline_goes_on_running_between_workers",
        "acceptance/test_split.py::test_split_workers_keep_deadlines_and_lose_nothing_when_killed",
    ),
    "A hand-over that cannot be read is a dead letter with the original bytes.": (
        "unit/engine/test_handover.py::test_a_hand_over_that_contradicts_itself_is_a_dead_letter_with_the_original_bytes",
    ),
    # ---- failures
    "A failure that may heal is tried again at once, then after 10, 15 and 22.5 s, then dead-lettered.": (
        "unit/delivery/test_retry.py::test_it_is_tried_twice_more_at_once_then_three_times_later_then_given_up",
        "unit/engine/test_retries.py::test_it_is_answered_by_the_attempt_that_succeeds",
        "unit/engine/test_retries.py::test_one_that_always_fails_ends_as_a_dead_letter_of_the_first_record",
        "acceptance/test_retries.py::test_a_request_that_always_fails_is_a_dead_letter_after_its_last_retry",
    ),
    "No retry begins before it is due, or is due after the deadline or 300 s after the first failure.": (
        "unit/delivery/test_retry.py::test_every_retry_is_due_in_time_and_every_request_is_given_up_in_the_end",
        "unit/agents/test_intake.py::test_a_retry_begins_at_its_time_and_not_before",
        "unit/engine/test_retries.py::test_it_is_due_at_its_time_and_never_held_longer_than_was_decided",
    ),
    "Retries are a fifth of the traffic at most, beside a burst.": (
        "unit/delivery/test_retry.py::test_over_any_stretch_of_time_retries_are_a_share_of_the_traffic_and_a_burst",
        "unit/engine/test_retries.py::test_when_the_budget_is_used_up_a_failure_is_a_dead_letter_that_says_so",
    ),
    "A retry goes on in its lane; it waits in no worker that stops.": (
        "unit/engine/test_retries.py::test_it_goes_on_in_the_lane_it_came_from",
        "unit/agents/test_intake.py::test_retries_that_wait_hold_up_no_drain_and_stay_unfinished",
        "acceptance/test_retries.py::test_a_worker_that_stops_while_a_request_waits_leaves_it_to_the_next",
    ),
    # ---- the process
    "Ready means models, partitions and a producer; a draining worker is not.": (
        "unit/bootstrap/test_status.py::test_a_worker_is_ready_with_models_partitions_and_a_producer",
        "unit/bootstrap/test_status.py::test_whatever_is_missing_makes_it_unready_and_is_named",
        "integration/agents/test_process.py::test_readiness_follows_the_partitions_and_the_end",
    ),
    "A producer that lost its sequence is rebuilt once; then the process ends, unacknowledged.": (
        "integration/kafka/test_producer.py::test_a_client_that_lost_its_sequence_is_replaced_and_the_records_are_sent_again",
        "integration/kafka/test_producer.py::test_a_second_loss_in_a_row_is_fatal",
        "integration/agents/test_fatal_producer.py::test_a_producer_that_stays_fatal_ends_the_process_and_acknowledges_nothing",
    ),
    "A stuck run is a dead letter; its process turns unready, drains, and ends as failed.": (
        "unit/scheduling/test_dispatcher.py::test_a_stuck_run_fails_its_rows_and_the_other_runner_goes_on",
        "integration/agents/test_stuck_run.py::test_a_stuck_run_is_a_dead_letter_and_its_process_drains_and_ends_by_itself",
    ),
    "What does not get on is named within seconds, by partition, and ends its process in time.": (
        "unit/kafka/test_progress.py::test_it_always_fires_at_the_first_look_after_the_time",
        "integration/agents/test_progress.py::test_a_broker_that_freezes_for_15_s_is_noticed_within_10_s_and_back_within_10_s",
        "integration/agents/test_progress.py::test_a_broker_that_stays_away_ends_the_process_which_says_why",
        "integration/agents/test_progress.py::test_one_silent_partition_is_named_and_ends_the_process_although_others_get_on",
    ),
    "What merely waits is no stall: idle partitions, full lanes, records in flight, a stopped process.": (
        "unit/kafka/test_progress.py::test_it_never_fires_while_every_step_is_made_within_its_time",
        "integration/agents/test_progress.py::test_idle_partitions_full_lanes_and_long_waits_are_no_stalls",
        "integration/agents/test_progress.py::test_a_process_that_was_stopped_for_longer_than_the_timeout_goes_on",
    ),
    "A static member that is back within the session timeout costs the others no rebalance.": (
        "integration/agents/test_static_members.py::test_a_static_member_back_within_the_session_timeout_costs_the_others_no_rebalance",
        "integration/agents/test_static_members.py::test_a_static_member_that_stays_away_loses_its_partitions_to_the_others",
    ),
    "Pages are open to this machine, elsewhere they need a token; to change things they always do.": (
        "unit/web/test_guard.py::test_this_machine_reads_every_page_without_a_token",
        "unit/web/test_guard.py::test_elsewhere_a_page_needs_the_token",
        "unit/web/test_guard.py::test_listening_elsewhere_without_a_token_is_refused",
        "unit/web/test_guard.py::test_nothing_but_reading_is_allowed",
        "unit/web/test_forms.py::test_without_the_token_the_form_is_shown_again_as_it_was_filled_in",
        "unit/web/test_forms.py::test_where_no_token_is_set_nothing_can_be_changed_and_the_setting_is_named",
        "unit/web/test_forms.py::test_a_form_of_another_site_is_refused_even_with_the_token",
    ),
    "Kafka is reached by TLS with a password from environment or file.": (
        "unit/kafka/test_security.py::test_a_password_file_wins_and_its_line_end_is_not_part_of_it",
        "integration/kafka/test_secure.py::test_every_client_works_over_tls_with_a_password",
        "integration/agents/test_security.py::test_requests_are_answered_over_tls_with_a_password",
    ),
}
"""From the rule to its tests, as `<path below tests>::<function>`."""


@cache
def functions_of(path: Path) -> frozenset[str]:
    if not path.is_file():
        return frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(each.name for each in tree.body if isinstance(each, functions))


def test_every_rule_is_held_by_tests_that_exist(repository: Path) -> None:
    named = [test.partition("::") for tests in RULES.values() for test in tests]

    missing = [
        f"{path}::{name}"
        for path, _, name in named
        if not name.startswith("test_") or name not in functions_of(repository / "tests" / path)
    ]

    assert all(RULES.values())
    assert missing == []
