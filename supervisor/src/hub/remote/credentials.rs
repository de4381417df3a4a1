//! What a git server wants to see before it lets us in: files in a folder of the supervisor's own, for one project or
//! for all. Nothing of them is stored, sent to another host than they name, or printed.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::hub::HubError;
use crate::hub::local::io_error;
use crate::hub::place::{Address, Transport};

/// Names and passwords by host, a line each, as `git credential-store` keeps them.
const PASSWORDS: &str = "git-credentials";
/// The private key for ssh.
const KEY: &str = "ssh_key";
/// The keys of the servers.
const KNOWN_HOSTS: &str = "known_hosts";

/// How one hub is entered.
#[derive(Debug, Clone)]
pub(super) struct Access {
    passwords: Option<PathBuf>,
    ssh: Option<(PathBuf, PathBuf)>,
}

impl Access {
    /// Without any.
    #[cfg(test)]
    pub(super) const fn none() -> Self {
        Self { passwords: None, ssh: None }
    }

    /// What there is for a project: `<folder>/<project>/<file>`, or else `<folder>/<file>`.
    ///
    /// # Errors
    /// [`HubError::Credentials`] when ssh lacks its files, or a file can be read by others.
    pub(super) fn find(folder: Option<&Path>, project: &str, address: &Address) -> Result<Self, HubError> {
        let find = |name: &str| {
            let folder = folder?;
            [folder.join(project).join(name), folder.join(name)].into_iter().find(|path| path.is_file())
        };
        let access = match address.transport() {
            Transport::File | Transport::Git => Self { passwords: None, ssh: None },
            Transport::Https => Self { passwords: find(PASSWORDS), ssh: None },
            Transport::Ssh => {
                let need = |name: &str| {
                    find(name).ok_or_else(|| HubError::Credentials {
                        path: folder.unwrap_or_else(|| Path::new("--hub-credentials")).join(name),
                        why: "it is not there, and ssh needs it",
                    })
                };
                Self { passwords: None, ssh: Some((need(KEY)?, need(KNOWN_HOSTS)?)) }
            }
        };
        access.check()?;
        Ok(access)
    }

    /// Whether nobody else can read the secrets.
    pub(super) fn check(&self) -> Result<(), HubError> {
        for path in self.passwords.iter().chain(self.ssh.iter().map(|(key, _)| key)) {
            let mode = fs::metadata(path).map_err(io_error(path))?.mode();
            if mode & 0o077 != 0 {
                let why = "others can read it: chmod 600";
                return Err(HubError::Credentials { path: path.clone(), why });
            }
        }
        Ok(())
    }

    /// git's helper that answers from the file of passwords, and only answers: the store would also forget what a
    /// server refused once.
    pub(super) fn helper(&self) -> Option<String> {
        let file = quoted(self.passwords.as_ref()?);
        Some(format!("!f() {{ test \"$1\" = get && exec git credential-store --file={file} get; }}; f"))
    }

    /// How ssh is started: with these keys, with nobody's configuration, and without a question to anybody.
    pub(super) fn ssh(&self) -> String {
        let mut command = "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=yes -o UpdateHostKeys=no \
                           -o ConnectTimeout=10 -o ServerAliveInterval=10 -o ClearAllForwardings=yes \
                           -o IdentitiesOnly=yes -o IdentityAgent=none -o GlobalKnownHostsFile=/dev/null"
            .to_owned();
        if let Some((key, hosts)) = &self.ssh {
            let hosts = quoted(&PathBuf::from(format!("UserKnownHostsFile={}", hosts.display())));
            command.push_str(&format!(" -i {} -o {hosts}", quoted(key)));
        }
        command
    }
}

/// A path as one word of the shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use super::*;

    fn write(path: &Path, mode: u32, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_projects_own_files_come_first_and_must_be_private() {
        let dir = tempfile::tempdir().unwrap();
        let address = Address::parse("git@host:shop.git").unwrap();
        let missing = Access::find(Some(dir.path()), "shop", &address).unwrap_err();
        assert!(matches!(missing, HubError::Credentials { .. }), "{missing}");
        write(&dir.path().join("ssh_key"), 0o600, "k");
        write(&dir.path().join("known_hosts"), 0o644, "h");
        assert!(Access::find(Some(dir.path()), "shop", &address).unwrap().ssh().contains("ssh_key' -o '"));
        write(&dir.path().join("shop/ssh_key"), 0o640, "k");
        let open = Access::find(Some(dir.path()), "shop", &address).unwrap_err();
        assert!(matches!(&open, HubError::Credentials { path, .. } if path.ends_with("shop/ssh_key")), "{open}");
        assert!(Access::find(Some(dir.path()), "other", &address).is_ok());
    }

    #[test]
    fn passwords_are_told_to_their_host_only_and_never_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("it's here/git-credentials");
        let line = "https://bot:s3cret@git.example.com\n";
        write(&file, 0o600, line);
        let address = Address::parse("https://git.example.com/shop.git").unwrap();
        let access = Access::find(file.parent(), "shop", &address).unwrap();
        let ask = |verb: &str, host: &str| {
            let script = format!(
                "printf 'protocol=https\\nhost={host}\\n\\n' | git -c credential.helper= -c credential.helper=\"$H\" credential {verb}"
            );
            let mut shell = Command::new("sh");
            shell.args(["-c", &script]).env("H", access.helper().unwrap()).env("GIT_TERMINAL_PROMPT", "0");
            shell.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env_remove("GIT_ASKPASS");
            String::from_utf8(shell.output().unwrap().stdout).unwrap()
        };
        assert!(ask("fill", "git.example.com").contains("password=s3cret\n"));
        assert!(!ask("fill", "evil.example.com").contains("s3cret"));
        ask("reject", "git.example.com");
        assert_eq!(fs::read_to_string(&file).unwrap(), line);
    }
}
