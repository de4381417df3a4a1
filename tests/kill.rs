//! `kill -9` at random moments, and then the same command again: the run goes on, nothing is applied twice, no file of
//! the user's is touched, and no lock needs a hand (`coordination.md` P4, P5, P12).
//!
//! `AUTOPACK_KILL_SEED=N` draws the same moments again. What a failed round left is kept, and its folder is printed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use self::chance::Chance;
use self::fire::{Durations, Fire, Tally};
use self::site::{Site, Template};

mod chance;
mod fire;
pub(crate) mod photo;
mod site;

/// Kills that must have ended a living process.
const KILLS: usize = 240;
/// Rounds that are under way at once.
const LANES: usize = 2;
/// Rounds after which too few kills have hit anything.
const MOST_ROUNDS: u64 = 400;
/// Runs of `runs resume` that may be needed to come to the end: one for each request, and one for luck.
const RESUMES: usize = 4;

const RUN: &[&str] = &["autopilot", "run", "--enable", "--no-wait", "--run-id", "k"];
const RESUME: &[&str] = &["runs", "resume", "k", "--no-wait"];

#[test]
fn the_same_command_goes_on_after_a_kill_at_any_moment() {
    let seed = Chance::seed();
    println!("AUTOPACK_KILL_SEED={seed}");
    let template = Template::new();
    let calm = calm(&template);
    println!("undisturbed: {calm:?}");
    let tally = Tally::default();
    let rounds = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                while tally.kills() < KILLS && !tally.failed() {
                    let round = rounds.fetch_add(1, Ordering::Relaxed);
                    assert!(round < MOST_ROUNDS, "{} kills hit a process in {round} rounds", tally.kills());
                    under_fire(&template, seed.wrapping_add(round), &calm, &tally);
                }
            });
        }
    });
    println!("{} rounds\n{}", rounds.into_inner(), tally.report());
    assert!(tally.kills() >= KILLS);
}

/// One round without a kill: how long each command takes, and that the site is as it should be.
fn calm(template: &Template) -> Durations {
    let site = Site::copy(template);
    let tally = Tally::default();
    let mut fire = Fire::new(&site, Chance::new(0), Durations::default(), &tally);
    let run = fire.calmly(RUN, &[4]);
    let request = fire.pending().pop().unwrap();
    let approve = fire.calmly(&request.approval(), &[0]);
    let resume = fire.calmly(RESUME, &[0]);
    site.is_whole();
    Durations { run, approve, resume }
}

/// One round: every command is killed at least once, or ended before its kill, and then repeated until it ends.
fn under_fire(template: &Template, seed: u64, calm: &Durations, tally: &Tally) {
    let site = Site::copy(template);
    let mut fire = Fire::new(&site, Chance::new(seed), calm.clone(), tally);
    fire.step(RUN, calm.run, 4, &[4]);
    for resumes in 0.. {
        assert!(resumes < RESUMES, "the run never came to its end");
        for request in fire.pending() {
            // Not pending: it was recorded before the kill.
            let code = fire.step(&request.approval(), calm.approve, 2, &[0, 6]);
            assert!(code == 0 || fire.decided(&request), "refused, and not decided either");
        }
        if fire.step(RESUME, calm.resume, 4, &[0, 4]) == 0 {
            break;
        }
    }
    fire.calmly(RUN, &[0]);
    site.is_whole();
    fire.survived();
}

/// What a machine under load adds to any duration.
const SLACK: Duration = Duration::from_secs(60);
