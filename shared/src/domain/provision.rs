//! What the operator of a worker lets a project have besides its commit: a folder of ignored files, secrets by name, and
//! hosts to connect to.
//! A project's own configuration names what it wants; here stands what it may get.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::egress::HostRule;
use super::ids::ProjectId;

/// The longest name of a secret.
const MAX_NAME: usize = 64;

/// The operator's file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Provisions {
    /// `[projects.NAME]`.
    projects: BTreeMap<ProjectId, ProjectProvision>,
    /// `[secrets.NAME]`.
    secrets: BTreeMap<String, SecretSource>,
}

/// What one project may have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ProjectProvision {
    /// A folder with the ignored files that its `.worktreeinclude` names.
    include: Option<PathBuf>,
    /// The secrets that it may ask for.
    secrets: Vec<String>,
    /// The hosts that it may ask for.
    egress: Vec<String>,
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretSource {
    /// A file that only the worker's user reads.
    file: PathBuf,
}

/// Why the operator's file is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProvisionError {
    /// It is not what it should be.
    #[error("{origin}: {why}")]
    Invalid {
        /// The file.
        origin: String,
        /// What the reader says.
        why: String,
    },
    /// A project asks for a host that it may not have.
    #[error("this worker lets {project} reach no {rule}")]
    Host {
        /// The project.
        project: ProjectId,
        /// The host as it was asked for.
        rule: String,
    },
    /// A project asks for a secret that it may not have, or that this worker does not have.
    #[error("this worker gives {project} no secret {name}")]
    Refused {
        /// The project.
        project: ProjectId,
        /// The secret.
        name: String,
    },
}

impl Provisions {
    /// Reads the file. Every path in it is absolute, and every secret that a project may have exists.
    ///
    /// # Errors
    /// [`ProvisionError::Invalid`] says what is wrong.
    pub fn parse(text: &str, origin: &str) -> Result<Self, ProvisionError> {
        let invalid = |why: String| ProvisionError::Invalid { origin: origin.to_owned(), why };
        let read: Self = toml::from_str(text).map_err(|error| invalid(error.message().to_owned()))?;
        if let Some(name) = read.secrets.keys().find(|name| !is_secret_name(name)) {
            return Err(invalid(format!("{name:?} cannot name a secret")));
        }
        let paths = read.secrets.values().map(|secret| &secret.file);
        let includes = read.projects.values().filter_map(|project| project.include.as_ref());
        if let Some(path) = paths.chain(includes).find(|path| !path.is_absolute()) {
            return Err(invalid(format!("{} is not absolute", path.display())));
        }
        for (project, may) in &read.projects {
            if let Some(name) = may.secrets.iter().find(|name| !read.secrets.contains_key(*name)) {
                return Err(invalid(format!("{project} may have {name:?}, which is no secret here")));
            }
            for text in &may.egress {
                text.parse::<HostRule>().map_err(|error| invalid(format!("{project}: {error}")))?;
            }
        }
        Ok(read)
    }

    /// The folder of a project's ignored files.
    #[must_use]
    pub fn include(&self, project: &ProjectId) -> Option<&Path> {
        self.projects.get(project)?.include.as_deref()
    }

    /// The hosts that a project asks for, as rules: all of them, or none.
    ///
    /// # Errors
    /// [`ProvisionError::Host`] for one that it may not have.
    pub fn egress(&self, project: &ProjectId, asked: &[String]) -> Result<Vec<HostRule>, ProvisionError> {
        let texts = self.projects.get(project).map_or(&[][..], |may| &may.egress);
        let may: Vec<HostRule> = texts.iter().filter_map(|text| text.parse().ok()).collect();
        let one = |text: &String| {
            let rule = text.parse::<HostRule>().ok().filter(|rule| may.iter().any(|may| may.covers(rule)));
            rule.ok_or_else(|| ProvisionError::Host { project: project.clone(), rule: text.chars().take(80).collect() })
        };
        asked.iter().map(one).collect()
    }

    /// The file of a secret that a project asks for.
    ///
    /// # Errors
    /// [`ProvisionError::Refused`] where it may not have it.
    pub fn secret(&self, project: &ProjectId, name: &str) -> Result<&Path, ProvisionError> {
        let may = self.projects.get(project).is_some_and(|may| may.secrets.iter().any(|known| known == name));
        let source = self.secrets.get(name).filter(|_| may);
        source
            .map(|secret| secret.file.as_path())
            .ok_or_else(|| ProvisionError::Refused { project: project.clone(), name: name.to_owned() })
    }
}

/// Whether a text can name a secret: it is a file's name too.
#[must_use]
pub fn is_secret_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[projects.shop]\ninclude = \"/srv/shop\"\nsecrets = [\"npm\"]\n[projects.other]\n\
                        [secrets.npm]\nfile = \"/etc/npm\"\n[secrets.db]\nfile = \"/etc/db\"\n";

    fn project(name: &str) -> ProjectId {
        ProjectId::new(name).unwrap()
    }

    #[test]
    fn a_project_gets_what_its_operator_lists_and_nothing_else() {
        let read = Provisions::parse(FILE, "p.toml").unwrap();
        assert_eq!(read.include(&project("shop")), Some(Path::new("/srv/shop")));
        assert_eq!(read.include(&project("other")), None);
        assert_eq!(read.secret(&project("shop"), "npm").unwrap(), Path::new("/etc/npm"));
        for (who, name) in [("shop", "db"), ("other", "npm"), ("third", "npm"), ("shop", "../npm"), ("shop", "")] {
            let refused = read.secret(&project(who), name).unwrap_err();
            assert_eq!(refused.to_string(), format!("this worker gives {who} no secret {name}"));
        }
    }

    #[test]
    fn a_project_reaches_what_its_operator_lists_and_nothing_else() {
        let text = "[projects.shop]\negress = [\"*.npmjs.org\", \"private:127.0.0.1:80\"]\n";
        let read = Provisions::parse(text, "p").unwrap();
        let ask = |who: &str, hosts: &[&str]| {
            let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
            read.egress(&project(who), &hosts).map(|rules| rules.len()).map_err(|error| error.to_string())
        };
        assert_eq!(ask("shop", &["registry.npmjs.org", "private:127.0.0.1:80"]), Ok(2));
        assert_eq!((ask("shop", &[]), ask("other", &[])), (Ok(0), Ok(0)));
        let refused = Err("this worker lets shop reach no crates.io".to_owned());
        assert_eq!(ask("shop", &["registry.npmjs.org", "crates.io"]), refused);
        assert!(
            ask("other", &["registry.npmjs.org"]).is_err() && ask("shop", &["private:registry.npmjs.org"]).is_err()
        );
    }

    #[test]
    fn a_file_that_is_wrong_is_refused_whole() {
        for bad in [
            "[projects.shop]\nsecrets = [\"npm\"]\n",
            "[secrets.npm]\nfile = \"npm\"\n",
            "[projects.shop]\ninclude = \"../x\"\n",
            "[secrets.\"a/b\"]\nfile = \"/x\"\n",
            "[secrets.npm]\nvalue = \"s3cret\"\n",
            "[project.shop]\n",
            "[projects.shop]\negress = [\"http://x\"]\n",
        ] {
            let error = Provisions::parse(bad, "p.toml").unwrap_err().to_string();
            assert!(error.starts_with("p.toml: ") && !error.contains("s3cret"), "{error}");
        }
    }
}
