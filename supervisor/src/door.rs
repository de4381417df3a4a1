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

    /// Reads `DIGEST ROLE NAME` lines: the SHA-256 of a token, `worker` or `person`, and who has it.
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
                call.extensions_mut().insert(principal.clone());
                Ok(call)
            }
            Some(_) => Err(refused("this token is for something else")),
            None => Err(refused("this token is not known here")),
        }
    }
}
