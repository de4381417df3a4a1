//! The door of a supervisor that is reached over the network: a token says who calls. Tokens are kept as digests only.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tonic::{Request, Status};

use autopack_shared::domain::ids::Digest;
use autopack_shared::domain::record::Principal;

use crate::error::Error;

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// To work: nothing but the workers' service.
    Worker,
    /// To submit, steer, decide and look.
    Person,
}

/// The workers that a token is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pass(String);

impl Pass {
    /// Whether a worker may call itself so: `*` at the end stands for anything.
    fn names(&self, worker: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(start) => worker.starts_with(start),
            None => self.0 == worker,
        }
    }

    /// Refuses a worker that uses another's token.
    ///
    /// # Errors
    /// `forbidden` names both.
    pub(crate) fn check(&self, worker: &str) -> Result<(), Error> {
        if self.names(worker) {
            return Ok(());
        }
        let why = format!("this token is for the worker {}, not for {worker}", self.0);
        Err(Error::Forbidden { reason: "forbidden", why })
    }

    /// What a call came in with; the owner's door asks for no token, and is good for all.
    pub(crate) fn of<T>(call: &Request<T>) -> Self {
        call.extensions().get::<Self>().cloned().unwrap_or_else(|| Self("*".to_owned()))
    }
}

/// Who may come in.
#[derive(Debug, Clone, Default)]
pub struct Door {
    // None: the door is a socket that only its owner can open.
    tokens: Option<Arc<BTreeMap<Digest, (Role, Principal)>>>,
}

/// What a file of tokens is refused for.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The file.
    #[error("cannot read the tokens in {path}: {source}")]
    Unreadable {
        /// Which.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
    /// Others could add themselves.
    #[error("{path} can be written by others: chmod go-w it")]
    Exposed {
        /// Which.
        path: String,
    },
    /// A line.
    #[error("{path}:{line}: {why}")]
    Malformed {
        /// Which file.
        path: String,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
}

impl Door {
    /// A door that only the owner of the process can reach.
    #[must_use]
    pub fn of_the_owner() -> Self {
        Self::default()
    }

    /// Reads `DIGEST ROLE NAME` lines: the SHA-256 of a token, `worker` or `person`, and who has it. A worker's token is
    /// good for the worker of that name only; `*` or `pool-*` is good for all that fit.
    ///
    /// # Errors
    /// [`DoorError`] names the line.
    pub fn with_tokens(path: &Path) -> Result<Self, DoorError> {
        let shown = path.display().to_string();
        let unreadable = |source| DoorError::Unreadable { path: shown.clone(), source };
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).map_err(unreadable)?.permissions());
        if mode & 0o022 != 0 {
            return Err(DoorError::Exposed { path: shown });
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let mut tokens = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let malformed = |why: String| DoorError::Malformed { path: shown.clone(), line: number + 1, why };
            let words: Vec<&str> = line.split_whitespace().collect();
            let [digest, role, name] = words.as_slice() else {
                return Err(malformed("it is not DIGEST ROLE NAME".to_owned()));
            };
            let digest: Digest = digest.parse().map_err(|e| malformed(format!("{e}")))?;
            let role = match *role {
                "worker" => Role::Worker,
                "person" => Role::Person,
                other => return Err(malformed(format!("the role {other:?} is neither worker nor person"))),
            };
            let starred = name.strip_suffix('*').unwrap_or(name);
            if starred.contains('*') || (role == Role::Person && starred != *name) {
                return Err(malformed(format!("the name {name:?} has a '*' that is not at the end of a worker's")));
            }
            let principal = Principal { id: format!("token:{name}"), method: "token".to_owned() };
            tokens.insert(digest, (role, principal));
        }
        Ok(Self { tokens: Some(Arc::new(tokens)) })
    }

    /// Lets a person in and says who it is.
    ///
    /// # Errors
    /// `forbidden` without a token, or with a worker's.
    pub fn person(&self, call: Request<()>) -> Result<Request<()>, Status> {
        self.enter(call, Role::Person)
    }

    /// Lets a worker in.
    ///
    /// # Errors
    /// `forbidden` without a worker's token.
    pub fn worker(&self, call: Request<()>) -> Result<Request<()>, Status> {
        self.enter(call, Role::Worker)
    }

    fn enter(&self, mut call: Request<()>, wanted: Role) -> Result<Request<()>, Status> {
        let Some(tokens) = &self.tokens else { return Ok(call) };
        let refused = |why: &str| Status::from(Error::Forbidden { reason: "forbidden", why: why.to_owned() });
        let header = call.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let Some(token) = header.and_then(|value| value.strip_prefix("Bearer ")) else {
            return Err(refused("the call brings no token: set AUTOPACK_TOKEN or --token-file"));
        };
        // Looked up by its digest: how long that takes says nothing about a token.
        match tokens.get(&Digest::of(token.trim().as_bytes())) {
            Some((role, principal)) if *role == wanted => {
                if *role == Role::Worker {
                    call.extensions_mut().insert(Pass(principal.id.trim_start_matches("token:").to_owned()));
                }
                call.extensions_mut().insert(principal.clone());
                Ok(call)
            }
            Some(_) => Err(refused("this token is for something else")),
            None => Err(refused("this token is not known here")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(lines: &str) -> Result<(tempfile::TempDir, Door), DoorError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        std::fs::write(&path, lines).unwrap();
        Door::with_tokens(&path).map(|door| (dir, door))
    }

    fn line(token: &str, role: &str, name: &str) -> String {
        format!("{} {role} {name}\n", Digest::of(token.as_bytes()))
    }

    fn call(token: &str) -> Request<()> {
        let mut call = Request::new(());
        call.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        call
    }

    #[test]
    fn a_workers_token_is_good_for_the_workers_it_names() {
        let lines = [line("a", "worker", "w1"), line("b", "worker", "pool-*"), line("c", "worker", "*")].concat();
        let (_dir, door) = door(&lines).unwrap();
        for (token, worker, good) in [
            ("a", "w1", true),
            ("a", "w2", false),
            ("a", "w11", false),
            ("a", "", false),
            ("b", "pool-7", true),
            ("b", "pool", false),
            ("b", "w1", false),
            ("c", "anybody", true),
        ] {
            let entered = door.worker(call(token)).unwrap();
            assert_eq!(Pass::of(&entered).check(worker).is_ok(), good, "{token} as {worker}");
        }
        assert!(door.person(call("a")).is_err() && door.worker(call("d")).is_err());
        let owners = Door::of_the_owner().worker(Request::new(())).unwrap();
        assert!(Pass::of(&owners).check("w1").is_ok());
    }

    #[test]
    fn a_star_stands_only_at_the_end_of_a_workers_name() {
        for (role, name) in [("worker", "a*b"), ("worker", "**"), ("person", "*"), ("person", "an*")] {
            let refused = door(&line("a", role, name)).unwrap_err();
            assert!(refused.to_string().contains(":1:"), "{refused}");
        }
    }
}
