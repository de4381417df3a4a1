//! Where a project's hub is: a path beside the supervisors, or the address of a git server. What reaches a git command
//! line or a log is checked here first: no options, no helpers that run commands, no passwords.

use std::fmt;
use std::path::PathBuf;

use super::HubError;

/// The longest address.
const MAX: usize = 2048;

/// Where a hub is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A repository that the supervisors reach by its path.
    Path(PathBuf),
    /// A repository on a git server.
    Server(Address),
}

impl Place {
    /// Reads what a person or the store says.
    ///
    /// # Errors
    /// [`HubError::Address`] when it is neither an absolute path nor an address that can be used safely.
    pub fn parse(text: &str) -> Result<Self, HubError> {
        if text.starts_with('/') {
            sound(text).map_err(|why| refused(text, why))?;
            return Ok(Self::Path(PathBuf::from(text)));
        }
        Address::parse(text).map(Self::Server)
    }

    /// `local` or `remote`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Path(_) => "local",
            Self::Server(_) => "remote",
        }
    }
}

/// How a git server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// `https://`.
    Https,
    /// `ssh://`, or `host:path`.
    Ssh,
    /// `git://`: in the clear, and for everybody who can reach it.
    Git,
    /// `file://`: git's own receiver on this host.
    File,
}

impl Transport {
    /// The name in `protocol.<name>.allow`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Ssh => "ssh",
            Self::Git => "git",
            Self::File => "file",
        }
    }
}

/// The address of a repository on a git server; holds no secret, so it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    text: String,
    transport: Transport,
}

impl Address {
    /// Checks an address.
    ///
    /// # Errors
    /// [`HubError::Address`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, HubError> {
        let transport = transport(text).map_err(|why| refused(text, why))?;
        Ok(Self { text: text.to_owned(), transport })
    }

    /// As git takes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How it is spoken to.
    #[must_use]
    pub const fn transport(&self) -> Transport {
        self.transport
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn refused(text: &str, why: &'static str) -> HubError {
    HubError::Address { address: redacted(text), why }
}

/// What may be shown of something that was refused: it may well be refused for the password in it.
fn redacted(text: &str) -> String {
    // A token in a query, too.
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let shown = match text.rsplit_once('@') {
        Some((before, after)) => {
            let scheme = before.split_once("://").map_or(String::new(), |(scheme, _)| format!("{scheme}://"));
            format!("{scheme}***@{after}")
        }
        None => text.to_owned(),
    };
    shown.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// What no path and no address may have.
fn sound(text: &str) -> Result<(), &'static str> {
    if text.len() > MAX {
        return Err("it is too long");
    }
    if text.chars().any(char::is_control) {
        return Err("it has a control character");
    }
    Ok(())
}

fn transport(text: &str) -> Result<Transport, &'static str> {
    const NEITHER: &str = "it is neither an absolute path nor an https, ssh, git or file address";
    sound(text)?;
    if text.contains([' ', '?', '#', '\\', '"', '\'']) {
        return Err("it has a character that addresses of repositories do not have");
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return if text.contains("::") { Err(NEITHER) } else { scp_like(text).ok_or(NEITHER) };
    };
    let transport = match scheme {
        "https" => Transport::Https,
        "ssh" => Transport::Ssh,
        "git" => Transport::Git,
        "file" => Transport::File,
        "http" => return Err("http is in the clear: use https"),
        _ => return Err(NEITHER),
    };
    let (authority, path) = rest.split_once('/').ok_or("it has no path")?;
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if user.contains(':') {
        return Err("it has a password: put it in a file of --hub-credentials");
    }
    let local = transport == Transport::File;
    if local != host.is_empty() || (local && !user.is_empty()) {
        return Err(if local { "a file address names no host" } else { "it has no host" });
    }
    if dashed(host) || dashed(user) || path.trim_matches('/').is_empty() {
        return Err("it has no usable host or path");
    }
    Ok(transport)
}

/// `[user@]host:path`, as ssh people write it.
fn scp_like(text: &str) -> Option<Transport> {
    let (authority, path) = text.split_once(':')?;
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let plain = |part: &str| part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    let fits = !host.is_empty() && plain(host) && plain(user) && !path.is_empty();
    (fits && ![host, user, path].into_iter().any(dashed)).then_some(Transport::Ssh)
}

/// What a command could take for an option.
fn dashed(part: &str) -> bool {
    part.starts_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_addresses_are_told_apart() {
        for (text, transport) in [
            ("https://git.example.com/shop.git", Transport::Https),
            ("https://bot@git.example.com:8443/team/shop.git", Transport::Https),
            ("ssh://git@git.example.com/~/shop.git", Transport::Ssh),
            ("git@git.example.com:team/shop.git", Transport::Ssh),
            ("git://127.0.0.1:9418/shop.git", Transport::Git),
            ("file:///srv/hubs/shop.git", Transport::File),
        ] {
            let place = Place::parse(text).unwrap();
            assert!(
                matches!(&place, Place::Server(at) if at.transport() == transport && at.as_str() == text),
                "{text}"
            );
            assert_eq!(place.kind(), "remote");
        }
        assert_eq!(Place::parse("/srv/hubs/shop.git").unwrap(), Place::Path("/srv/hubs/shop.git".into()));
    }

    #[test]
    fn what_would_run_something_or_hold_a_secret_is_refused() {
        for text in [
            "",
            "shop.git",
            "./shop.git",
            "-oProxyCommand=x",
            "--upload-pack=touch /tmp/x",
            "ext::sh -c touch% /tmp/x",
            "fd::17",
            "ssh://-oProxyCommand=x/y",
            "ssh://-x@host/y",
            "-host:path",
            "host:-path",
            "host:",
            "user@-host:path",
            "https://host",
            "https:///path",
            "https://host/",
            "http://host/shop.git",
            "ftp://host/shop.git",
            "file://host/srv/shop.git",
            "file://-x/srv",
            "https://host/a b.git",
            "https://host/shop.git?access_token=s3cret",
            "https://host/shop.git\n",
            "/srv/hubs/\u{1b}[31m.git",
        ] {
            assert!(matches!(Place::parse(text), Err(HubError::Address { .. })), "{text:?}");
        }
        let error = Place::parse("https://bot:s3cret@host/shop.git").unwrap_err().to_string();
        assert!(!error.contains("s3cret") && error.contains("https://***@host/shop.git"), "{error}");
        let error = Place::parse("https://host/shop.git?access_token=s3cret").unwrap_err().to_string();
        assert!(error.contains("character") && !error.contains("s3cret"), "{error}");
    }
}
