//! Breakers: a builder whose surroundings fail again and again is left alone for a while, then tried by one attempt.
//! And credentials: one that a provider has told to wait is not used before that is over.

use serde::{Deserialize, Serialize};

use super::ids::{Digest, ProjectId, RunId, Timestamp};
use super::run_file::BuilderSpec;

mod word;

pub use word::{Word, was_not_asked, word_of};

/// Reasons of failures that say something of the builder's surroundings and nothing of its work.
const SURROUNDINGS: &[&str] =
    &["provider_unavailable", "provider_malformed", "builder_unavailable", "timeout", "panicked", "workspace", "io"];

/// How long a credential rests when its provider does not say; twice as long each time in a row.
const REST_SECONDS: i64 = 30;
/// The longest such rest.
const LONGEST_REST: i64 = 900;
/// The longest that a provider is believed.
const LONGEST_TOLD: i64 = 86_400;

/// Whether a failure says something of the builder's surroundings.
#[must_use]
pub fn is_of_surroundings(reason: &str) -> bool {
    SURROUNDINGS.contains(&reason)
}

/// Whether a failure is the provider's alone: nothing is held against the builder's work.
#[must_use]
pub fn is_of_provider(reason: &str) -> bool {
    matches!(reason, "provider_unavailable" | "provider_malformed" | "provider_rate_limited")
}

/// What breakers know a builder by: its kind, and its name, preset or model. A command line without a name is known by
/// its digest.
#[must_use]
pub fn builder_key(spec: &BuilderSpec) -> String {
    let key = match spec {
        BuilderSpec::Command { name: Some(name), .. } => format!("command:{name}"),
        BuilderSpec::Command { name: None, argv } => {
            let digest = Digest::of(argv.join("\u{0}").as_bytes()).to_hex();
            format!("command:#{}", digest.get(..12).unwrap_or_default())
        }
        BuilderSpec::Agent { preset } => format!("agent:{preset}"),
        BuilderSpec::Llm { model } => format!("llm:{model}"),
        BuilderSpec::Patch { .. } => "patch".to_owned(),
        BuilderSpec::Landing { .. } => "landing".to_owned(),
        BuilderSpec::Remediation { gap_type, .. } => format!("remediation:{gap_type}"),
    };
    key.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// When a breaker opens and when it tries again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Failures in a row that open it.
    pub failures: u32,
    /// Seconds until one attempt is let through.
    pub cooldown_seconds: i64,
    /// How many attempts may use one credential at once.
    pub credential_uses: u32,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self { failures: 5, cooldown_seconds: 300, credential_uses: 8 }
    }
}

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Its builder is used.
    #[default]
    Closed,
    /// Its builder is left alone.
    Open,
    /// One attempt tries whether it works again.
    HalfOpen,
}

impl BreakerState {
    /// Its stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// The breaker of one builder of one project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaker {
    /// The project.
    pub project: ProjectId,
    /// The builder.
    pub builder: String,
    /// Rises with every write.
    pub version: u64,
    /// Where it stands.
    #[serde(default)]
    pub state: BreakerState,
    /// Failures in a row.
    #[serde(default)]
    pub failures: u32,
    /// Since when it is not closed.
    #[serde(default)]
    pub opened_at: Option<Timestamp>,
    /// When it tries next.
    #[serde(default)]
    pub probes_at: Option<Timestamp>,
    /// The run that tries.
    #[serde(default)]
    pub probe: Option<RunId>,
    /// The last failure.
    #[serde(default)]
    pub reason: Option<String>,
    /// The credential that this builder was last seen to use.
    #[serde(default)]
    pub credential: Option<String>,
}

/// Whether a breaker lets an attempt through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Yes.
    Free,
    /// As the one that tries.
    Probe,
    /// No.
    Refused,
}

impl Breaker {
    /// A closed one.
    #[must_use]
    pub const fn new(project: ProjectId, builder: String) -> Self {
        Self {
            project,
            builder,
            version: 0,
            state: BreakerState::Closed,
            failures: 0,
            opened_at: None,
            probes_at: None,
            probe: None,
            reason: None,
            credential: None,
        }
    }

    /// Whether an attempt may start. `probing` says whether the run that tries still works on it.
    #[must_use]
    pub fn pass(&self, now: Timestamp, probing: bool) -> Pass {
        match self.state {
            BreakerState::Closed => Pass::Free,
            BreakerState::Open if self.probes_at.is_none_or(|at| now >= at) => Pass::Probe,
            BreakerState::HalfOpen if !probing => Pass::Probe,
            BreakerState::Open | BreakerState::HalfOpen => Pass::Refused,
        }
    }

    /// Lets one run try.
    pub fn try_with(&mut self, run: &RunId) {
        self.state = BreakerState::HalfOpen;
        self.probe = Some(run.clone());
    }

    /// An attempt of `run` failed for reasons of its surroundings.
    pub fn failed(&mut self, run: &RunId, reason: &str, now: Timestamp, config: &BreakerConfig) {
        self.failures = self.failures.saturating_add(1);
        self.reason = Some(reason.chars().take(300).collect());
        let opens = match self.state {
            BreakerState::Closed => self.failures >= config.failures.max(1),
            BreakerState::HalfOpen => self.probe.as_ref() == Some(run),
            // Who started before it opened brings nothing new.
            BreakerState::Open => false,
        };
        if opens {
            self.state = BreakerState::Open;
            self.opened_at.get_or_insert(now);
            self.probes_at = Some(now.plus_seconds(config.cooldown_seconds.max(1)));
            self.probe = None;
        }
    }

    /// The attempt of a run ended and says nothing: where it was the one that tried, another one may.
    pub fn untried(&mut self, run: &RunId) {
        if self.state == BreakerState::HalfOpen && self.probe.as_ref() == Some(run) {
            self.probe = None;
        }
    }

    /// An attempt came to an answer, good or bad; or an operator says that all is well.
    pub fn close(&mut self) {
        self.state = BreakerState::Closed;
        self.failures = 0;
        self.opened_at = None;
        self.probes_at = None;
        self.probe = None;
    }
}

/// One credential, shared by everybody who uses it. Its name only, never the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Its name.
    pub name: String,
    /// Rises with every write.
    pub version: u64,
    /// It is not used before.
    #[serde(default)]
    pub not_before: Option<Timestamp>,
    /// How often in a row its provider has told it to wait.
    #[serde(default)]
    pub strikes: u32,
    /// Since when it rests.
    #[serde(default)]
    pub since: Option<Timestamp>,
}

/// The longest name of a credential.
const LONGEST_NAME: usize = 100;

/// A credential's name as a worker says it; none where it is no name.
#[must_use]
pub fn credential_name(text: &str) -> Option<&str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-:/".contains(c);
    (!text.is_empty() && text.len() <= LONGEST_NAME && text.chars().all(fits)).then_some(text)
}

impl Credential {
    /// One that is free.
    #[must_use]
    pub const fn new(name: String) -> Self {
        Self { name, version: 0, not_before: None, strikes: 0, since: None }
    }

    /// Until when it may not be used.
    #[must_use]
    pub fn rests(&self, now: Timestamp) -> Option<Timestamp> {
        self.not_before.filter(|at| *at > now)
    }

    /// Its provider told somebody to wait, for so many seconds where it said.
    pub fn limited(&mut self, told_seconds: Option<i64>, now: Timestamp) {
        let doubled = REST_SECONDS.saturating_mul(1 << self.strikes.min(10)).min(LONGEST_REST);
        let seconds = told_seconds.map_or(doubled, |told| told.clamp(1, LONGEST_TOLD));
        let until = now.plus_seconds(seconds);
        // Who was told earlier to wait longer is not overruled by who was told later.
        self.not_before = Some(self.not_before.map_or(until, |old| old.max(until)));
        self.strikes = self.strikes.saturating_add(1);
        self.since.get_or_insert(now);
    }

    /// Somebody who used it got an answer. False where that changes nothing.
    pub fn answered(&mut self, now: Timestamp) -> bool {
        if self.rests(now).is_some() || (self.strikes == 0 && self.not_before.is_none()) {
            return false;
        }
        (self.strikes, self.not_before, self.since) = (0, None, None);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: BreakerConfig = BreakerConfig { failures: 2, cooldown_seconds: 60, credential_uses: 2 };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn run(id: &str) -> RunId {
        RunId::new(id).unwrap()
    }

    /// `f` fails, `p` is granted where it may be, `l` loses the probe, `n` says nothing and `m` does so of another run, `s` answers, `r` is an operator's reset; each
    /// takes ten seconds. What is said: the state, the failures, and what `p` got.
    fn play(script: &str) -> String {
        let mut breaker = Breaker::new(ProjectId::new("shop").unwrap(), "llm:m".to_owned());
        let (mut now, mut said, mut probing) = (0, Vec::new(), false);
        for step in script.chars() {
            now += 10;
            let mut word = String::new();
            match step {
                'f' => {
                    breaker.failed(&run("a"), "provider_unavailable", at(now), &CONFIG);
                    probing = false;
                }
                'o' => breaker.failed(&run("other"), "timeout", at(now), &CONFIG),
                'p' => {
                    let pass = breaker.pass(at(now), probing);
                    word = format!("{pass:?} ").to_lowercase();
                    if pass == Pass::Probe {
                        breaker.try_with(&run("a"));
                        probing = true;
                    }
                }
                'l' => probing = false,
                's' | 'r' => breaker.close(),
                'n' => {
                    breaker.untried(&run("a"));
                    probing = breaker.probe.is_some();
                }
                'm' => breaker.untried(&run("other")),
                '.' => {}
                other => panic!("{other}"),
            }
            said.push(format!("{word}{}{}", breaker.state.as_str(), breaker.failures));
        }
        said.last().cloned().unwrap_or_default()
    }

    #[test]
    fn the_table() {
        for (script, expected) in [
            ("p", "free closed0"),
            ("f", "closed1"),
            ("fs", "closed0"),
            ("fsf", "closed1"),
            ("ff", "open2"),
            ("ffp", "refused open2"),
            ("ffo", "open3"),
            ("ff.....p", "probe half_open2"),
            ("ff.....pp", "refused half_open2"),
            ("ff.....po", "half_open3"),
            ("ff.....pf", "open3"),
            ("ff.....pfp", "refused open3"),
            ("ff.....pf.....p", "probe half_open3"),
            ("ff.....ps", "closed0"),
            ("ff.....plp", "probe half_open2"),
            ("ff.....pn", "half_open2"),
            ("ff.....pnp", "probe half_open2"),
            ("ff.....pmp", "refused half_open2"),
            ("fn", "closed1"),
            ("ffr", "closed0"),
            ("ffrp", "free closed0"),
        ] {
            assert_eq!(play(script), expected, "{script}");
        }
    }

    #[test]
    fn a_builder_is_known_by_what_it_is() {
        let command =
            |argv: &[&str]| BuilderSpec::Command { name: None, argv: argv.iter().map(ToString::to_string).collect() };
        assert_ne!(builder_key(&command(&["a", "b"])), builder_key(&command(&["ab"])));
        assert_eq!(builder_key(&BuilderSpec::Llm { model: "m\n1".to_owned() }), "llm:m1");
        assert!(is_of_surroundings("timeout") && !is_of_surroundings("builder_failed"));
    }

    #[test]
    fn a_credential_rests_as_long_as_it_was_told_and_longer_each_time_it_was_not() {
        let mut key = Credential::new("main".to_owned());
        key.limited(Some(10), at(0));
        assert_eq!(key.rests(at(9)), Some(at(10)));
        assert_eq!(key.rests(at(10)), None);
        key.limited(None, at(10));
        assert_eq!(key.rests(at(10)), Some(at(70)), "the second time in a row");
        key.limited(Some(1), at(11));
        assert_eq!(key.rests(at(11)), Some(at(70)), "the longest holds");
        assert!(!key.answered(at(60)), "an answer from before it was told to rest");
        assert!(key.answered(at(70)) && !key.answered(at(71)));
        key.limited(Some(i64::MAX), at(0));
        assert_eq!(key.rests(at(0)), Some(at(LONGEST_TOLD)));
        key.strikes = u32::MAX;
        key.limited(None, at(LONGEST_TOLD));
        assert_eq!(key.rests(at(LONGEST_TOLD)), Some(at(LONGEST_TOLD + LONGEST_REST)));
    }

    #[test]
    fn what_is_no_name_is_none() {
        assert_eq!(credential_name("anthropic:main"), Some("anthropic:main"));
        for text in ["", "a b", "é", "x\n"] {
            assert_eq!(credential_name(text), None, "{text:?}");
        }
        assert_eq!(credential_name(&"a".repeat(101)), None);
    }
}
