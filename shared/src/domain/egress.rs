//! Places that processes in a sandbox may connect to: a project's configuration asks for some, the operator of a worker
//! says which it may have, and the worker's proxy goes by what is left. A rule is `host`, `host:port`, `*.domain:port`, or
//! one of these after `private:` for an address that is not of the public network.

use core::net::{Ipv4Addr, Ipv6Addr};
use std::fmt;
use std::str::FromStr;

/// The port of a rule that names none.
const HTTPS: u16 = 443;

/// The longest name of a host.
const MAX_HOST: usize = 253;

/// The most rules of one list.
pub const MOST_RULES: usize = 100;

/// Which hosts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Hosts {
    /// Every one.
    Any,
    /// Every one below a domain, not the domain itself.
    Below(String),
    /// One.
    One(String),
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostRule {
    hosts: Hosts,
    port: u16,
    private: bool,
}

/// Not a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no host to connect to: {why}")]
pub struct InvalidHostRule {
    text: String,
    why: &'static str,
}

impl HostRule {
    /// Whether it stands for a connection to a host, in the spelling of [`host`], and a port.
    #[must_use]
    pub fn matches(&self, name: &str, port: u16) -> bool {
        self.port == port
            && match &self.hosts {
                Hosts::Any => true,
                Hosts::Below(domain) => is_below(name, domain),
                Hosts::One(one) => one == name,
            }
    }

    /// Whether everything that another rule stands for is covered by this one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let hosts = match (&self.hosts, &other.hosts) {
            (Hosts::Any, _) => true,
            (Hosts::Below(domain), Hosts::Below(name)) => name == domain || is_below(name, domain),
            (Hosts::Below(domain), Hosts::One(name)) => is_below(name, domain),
            (Hosts::One(one), Hosts::One(name)) => one == name,
            (Hosts::Below(_) | Hosts::One(_), Hosts::Any) | (Hosts::One(_), Hosts::Below(_)) => false,
        };
        hosts && self.port == other.port && (self.private || !other.private)
    }

    /// Whether it may lead to addresses that are not of the public network.
    #[must_use]
    pub const fn is_private(&self) -> bool {
        self.private
    }

    /// Whether it names no host at all, as only an operator may.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.hosts == Hosts::Any
    }
}

/// The one spelling of a host's name or address; none for what is neither.
#[must_use]
pub fn host(text: &str) -> Option<String> {
    if let Some(inner) = text.strip_prefix('[') {
        return inner.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(|address| address.to_string());
    }
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Some(address.to_string());
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !label.is_empty() && label.len() <= 63 && label.bytes().all(plain)
    };
    // What ends in a number is an address in one of its odd spellings, and has another one here.
    let last = name.rsplit('.').next().unwrap_or_default();
    let numeric = last.starts_with("0x") || last.bytes().all(|byte| byte.is_ascii_digit());
    (name.len() <= MAX_HOST && !numeric && name.split('.').all(label)).then_some(name)
}

fn is_below(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

impl FromStr for HostRule {
    type Err = InvalidHostRule;

    fn from_str(text: &str) -> Result<Self, InvalidHostRule> {
        let refuse = |why| InvalidHostRule { text: text.chars().take(80).collect(), why };
        let (rest, private) = text.strip_prefix("private:").map_or((text, false), |rest| (rest, true));
        let (name, port) = match rest.rsplit_once(':') {
            // The colons of an address in brackets are its own.
            Some((name, port)) if !port.ends_with(']') => {
                (name, port.parse().ok().filter(|port| *port != 0).ok_or_else(|| refuse("its port is none"))?)
            }
            Some(_) | None => (rest, HTTPS),
        };
        let hosts = match (name, name.strip_prefix("*.")) {
            ("*", _) => Hosts::Any,
            (_, Some(domain)) => Hosts::Below(host(domain).ok_or_else(|| refuse("no domain has this name"))?),
            (name, None) => Hosts::One(host(name).ok_or_else(|| refuse("no host has this name"))?),
        };
        Ok(Self { hosts, port, private })
    }
}

impl fmt::Display for HostRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.private {
            f.write_str("private:")?;
        }
        match &self.hosts {
            Hosts::Any => f.write_str("*")?,
            Hosts::Below(domain) => write!(f, "*.{domain}")?,
            Hosts::One(name) if name.contains(':') => write!(f, "[{name}]")?,
            Hosts::One(name) => f.write_str(name)?,
        }
        write!(f, ":{}", self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> HostRule {
        text.parse().unwrap()
    }

    #[test]
    fn rules_have_one_spelling() {
        for (text, shown) in [
            ("Crates.IO.", "crates.io:443"),
            ("*.npmjs.org:8443", "*.npmjs.org:8443"),
            ("private:127.0.0.1:9000", "private:127.0.0.1:9000"),
            ("[2001:DB8:0::1]:80", "[2001:db8::1]:80"),
            ("[::1]", "[::1]:443"),
            ("*:443", "*:443"),
        ] {
            assert_eq!(rule(text).to_string(), shown, "{text}");
            assert_eq!(rule(shown), rule(text));
        }
        for bad in [
            "",
            ":443",
            "a:0",
            "a:65536",
            "a:b",
            "a..b",
            "a b",
            "u@a",
            "http://a",
            "a/b",
            "*.",
            "*a",
            "a:443\r\nx",
            "private:",
            "127.1",
            "0x7f.0x1",
            "2130706433",
            "[::1",
            "[1]",
            "*.1",
        ] {
            assert!(bad.parse::<HostRule>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_rule_stands_for_what_it_says_and_no_more() {
        let below = rule("*.example.com");
        assert!(below.matches("a.example.com", 443) && below.matches("a.b.example.com", 443));
        for (name, port) in
            [("example.com", 443), ("badexample.com", 443), (".example.com", 443), ("a.example.com", 80)]
        {
            assert!(!below.matches(name, port), "{name}:{port}");
        }
        assert!(
            rule("a.example.com").matches("a.example.com", 443)
                && !rule("a.example.com").matches("b.a.example.com", 443)
        );
    }

    #[test]
    fn what_may_be_had_covers_what_is_asked_for() {
        for (may, asked, covered) in [
            ("crates.io", "crates.io:443", true),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "*.a.example.com", true),
            ("*.a.example.com", "*.example.com", false),
            ("a.example.com", "*.example.com", false),
            ("*:443", "*.example.com", true),
            ("*:443", "a:80", false),
            ("*:443", "private:a", false),
            ("private:127.0.0.1:1", "private:127.0.0.1:1", true),
            ("private:127.0.0.1:1", "127.0.0.1:1", true),
        ] {
            assert_eq!(rule(may).covers(&rule(asked)), covered, "{may} {asked}");
        }
    }
}
