//! One suite a port, run on every implementation. A new engine adds a [`lab::Lab`] and a line here; the cases do not
//! change.

#![expect(clippy::unwrap_used, reason = "a case that unwraps fails with what it met")]

#[path = "conformance/applies.rs"]
mod applies;
#[path = "conformance/coordinator.rs"]
mod coordinator;
#[path = "conformance/crash.rs"]
mod crash;
#[path = "conformance/crowd.rs"]
mod crowd;
#[path = "conformance/fences.rs"]
mod fences;
#[path = "conformance/fixtures.rs"]
mod fixtures;
#[path = "conformance/journal.rs"]
mod journal;
#[path = "conformance/lab.rs"]
mod lab;
#[path = "conformance/moves.rs"]
mod moves;
#[path = "conformance/requests.rs"]
mod requests;
#[path = "conformance/rows.rs"]
mod rows;
#[path = "conformance/time.rs"]
mod time;

use autopack_supervisor::store::facts::FenceRow;
use autopack_supervisor::store::{Store, Tx};

/// Every case, once for each engine.
macro_rules! store_suite {
    ($($engine:ident = $lab:ty),+ $(,)?) => {
        $(mod $engine {
            store_suite! { @cases $lab;
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
                time {
                    the_clock_follows_the_wall_but_never_back a_commit_survives_a_restart
                    a_dropped_transaction_leaves_nothing a_view_stays_as_it_was_and_cannot_write
                    commits_are_announced_and_nothing_else
                }
                crowd {
                    every_writer_gets_its_turn a_version_has_one_winner only_the_newest_director_writes
                }
            }
        })+
    };
    (@cases $lab:ty; $($module:ident { $($case:ident)+ })+) => {
        $(mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let mut lab = <$lab as $crate::lab::Lab>::start().await;
                $crate::$module::$case(&mut lab).await;
            })+
        })+
    };
}

store_suite! { sqlite = crate::lab::SqliteLab }

/// The same for coordinators.
macro_rules! coordinator_suite {
    ($cluster:ty; $($case:ident)+) => {
        $(#[tokio::test]
        async fn $case() {
            $crate::coordinator::$case(&<$cluster as $crate::coordinator::Cluster>::start()).await;
        })+
    };
}

mod files {
    coordinator_suite! { crate::coordinator::Files;
        there_is_one_director a_worker_has_one_session locks_are_taken_all_or_none a_lock_is_evidence_for_one_epoch
        a_session_takes_its_locks_along a_member_that_ends_gives_everything_back
    }
}
