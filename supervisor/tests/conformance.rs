//! One suite a port, run on every implementation. A new engine adds a [`lab::Lab`] and a line here; the cases do not
//! change.

#![expect(clippy::unwrap_used, reason = "a case that unwraps fails with what it met")]

/// Cases of one module that are about this engine alone.
macro_rules! cases_of {
    ($module:ident { $($case:ident)+ }) => {
        vec![$((concat!(stringify!($module), "::", stringify!($case)), Box::pin(async {
            let mut lab = <$crate::postgres::PostgresLab as $crate::lab::Lab>::start().await;
            $case(&mut lab).await;
            lab.finish().await;
        }) as std::pin::Pin<Box<dyn Future<Output = ()> + Send>>),)+]
    };
}

#[path = "conformance/applies.rs"]
mod applies;
#[path = "conformance/batches.rs"]
mod batches;
#[path = "conformance/budgets.rs"]
mod budgets;
#[path = "conformance/crash.rs"]
mod crash;
#[path = "conformance/crowd.rs"]
mod crowd;
#[path = "conformance/fences.rs"]
mod fences;
#[path = "conformance/fixtures.rs"]
mod fixtures;
#[path = "conformance/forgery.rs"]
mod forgery;
#[path = "conformance/gates.rs"]
mod gates;
#[path = "conformance/guards.rs"]
mod guards;
#[path = "conformance/journal.rs"]
mod journal;
#[path = "conformance/lab.rs"]
mod lab;
#[path = "conformance/moves.rs"]
mod moves;
#[path = "conformance/postgres.rs"]
mod postgres;
#[path = "conformance/requests.rs"]
mod requests;
#[path = "conformance/rows.rs"]
mod rows;
#[path = "conformance/run_data.rs"]
mod run_data;
#[path = "../../tests/harness/postgres.rs"]
#[allow(dead_code, reason = "the tests of a cluster use more of it")]
mod server;
#[path = "conformance/shared.rs"]
mod shared;
#[path = "conformance/surveys.rs"]
mod surveys;
#[path = "conformance/time.rs"]
mod time;
#[path = "conformance/transcripts.rs"]
mod transcripts;
#[path = "conformance/turns.rs"]
mod turns;

use autopack_supervisor::store::facts::FenceRow;
use autopack_supervisor::store::{Store, Tx};

/// Every case: `$how` is told of all of them, each as `module::case`.
macro_rules! store_cases {
    ($how:ident ! $($engine:tt)*) => {
        $how! { $($engine)*;
            fences {
                a_stale_token_is_refused a_scope_without_an_epoch_fences_everybody
                every_fence_of_a_transaction_is_checked a_bump_ends_older_tokens_at_commit_only
                a_bump_hands_its_own_transaction_the_new_fence epochs_are_counted_by_scope
                a_run_and_its_phases_are_added_without_a_fence run_state_without_a_fence_is_refused
                the_runs_own_fence_is_enough what_people_ask_for_needs_no_fence the_incarnation_only_rises
            }
            rows {
                projects_are_replaced_and_listed_by_name runs_come_back_whole_newest_first_and_filtered
                a_run_is_added_once a_write_goes_by_the_version_that_was_read every_row_with_a_life_has_a_version
                phases_and_attempts_stand_in_order a_phase_needs_its_run runs_are_found_by_the_state_of_a_phase
                one_attempt_of_a_phase_succeeds a_run_has_one_active_lease the_peak_of_leases_counts_commits
                a_gate_is_held_by_writers_only a_census_counts_by_project_and_state
                what_was_written_before_there_were_traces_is_read
            }
            moves {
                runs_move_by_the_table phases_move_by_the_table attempts_move_by_the_table
                requests_move_by_the_table leases_move_by_the_table applies_move_by_the_table
            }
            requests {
                decisions_are_kept_in_order a_subject_has_one_pending_request
                requests_are_listed_newest_first_and_filtered the_next_expiry_is_of_what_is_open
                a_principal_votes_once commands_wait_until_they_are_done
            }
            applies {
                a_branch_has_one_prepared_apply an_approval_is_used_by_one_apply windows_sum_what_was_applied
            }
            journal {
                events_are_numbered_by_run notices_are_sent_in_order an_idempotent_call_is_answered_once
                chains_grow_side_by_side an_audit_record_lives_and_dies_with_its_change a_whole_log_verifies
                a_row_that_the_log_does_not_know_is_found
            }
            surveys {
                a_question_is_open_once a_survey_is_given_to_one_worker surveys_that_are_over_are_forgotten
            }
            budgets {
                what_is_reserved_and_used_is_summed_by_scope a_reservation_is_settled_once_and_under_a_fence
                parallel_grants_never_overspend_a_day a_breaker_is_held_by_who_changes_it
                a_lease_that_ends_settles_what_was_reserved_for_it
                a_credential_rests_for_everybody
            }
            transcripts {
                a_transcript_is_kept_once_for_its_run a_transcript_needs_its_runs_fence
                transcripts_go_that_no_decision_names
            }
            gates {
                a_baseline_is_of_a_project_a_base_and_a_command old_baselines_are_forgotten flaky_tests_are_counted
            }
            time {
                the_clock_follows_the_wall_but_never_back a_commit_survives_a_restart
                a_dropped_transaction_leaves_nothing a_view_stays_as_it_was_and_cannot_write
                commits_are_announced_and_nothing_else
            }
            batches {
                rows_are_gathered_in_the_order_asked_for many_rows_are_read_at_once epochs_are_raised_together
                what_waits_is_found_and_is_there_in_the_end what_waits_and_is_refused_leaves_nothing
                no_worker_gets_more_than_its_slots
            }
            turns {
                a_turn_is_shown_its_run_and_writes_it a_turn_finds_what_it_has_written
                a_turn_without_its_fence_is_refused a_turn_of_nothing_and_one_that_is_dropped_leave_nothing
                turns_at_once_have_each_their_own_answer a_fence_that_rises_ends_the_turns_of_the_old_one
            }
            crowd {
                every_writer_gets_its_turn a_version_has_one_winner only_the_newest_director_writes
                leases_are_noted_in_the_order_of_the_log leases_that_begin_together_are_whole
            }
        }
    };
}

/// A test for each case.
macro_rules! tests {
    ($lab:ty; $($module:ident { $($case:ident)+ })+) => {
        $(mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let mut lab = <$lab as $crate::lab::Lab>::start().await;
                $crate::$module::$case(&mut lab).await;
            })+
        })+
    };
}

/// A list of all cases.
macro_rules! listed {
    ($lab:ty; $($module:ident { $($case:ident)+ })+) => {
        vec![$($((concat!(stringify!($module), "::", stringify!($case)), Box::pin(async {
            let mut lab = <$lab as $crate::lab::Lab>::start().await;
            $crate::$module::$case(&mut lab).await;
            lab.finish().await;
        }) as std::pin::Pin<Box<dyn Future<Output = ()> + Send>>),)+)+]
    };
}

mod sqlite {
    store_cases! { tests! crate::lab::SqliteLab }
}

/// One test, since a server takes longer to start than most cases take. `AUTOPACK_TEST_CASE` picks some by name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_on_postgres() {
    let mut cases: Vec<postgres::Case> = store_cases! { listed! crate::postgres::PostgresLab };
    cases.extend(shared::cases().into_iter().chain(guards::cases()).chain(forgery::cases()).chain(turns::cases()));
    postgres::run(cases).await;
}
