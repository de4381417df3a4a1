//! Gives a job what its commit does not hold and its operator allows: ignored files in the tree, and secrets as files
//! beside it, whose values never go into an event or a result.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use autopack_shared::domain::ids::ProjectId;
use autopack_shared::domain::provision::Provisions;

use crate::builder::BuildError;

/// The variable that names the folder of a job's secrets: each is a file of its name.
pub(crate) const VARIABLE: &str = "AUTOPACK_SECRETS";

/// The longest secret.
const MOST: u64 = 64 * 1024;

/// The shortest secret, and the shortest piece of one that is hidden: shorter ones stand in every text.
const LEAST: usize = 8;

/// What the operator of this worker provides.
#[derive(Debug, Clone, Default)]
pub struct Provision {
    /// The operator's file.
    pub given: Provisions,
    /// Where a project's ignored files are, if the file does not say: the repository that is borrowed.
    pub include: Option<PathBuf>,
}

impl Provision {
    /// The folder of a project's ignored files.
    pub(crate) fn include(&self, project: &ProjectId) -> Option<PathBuf> {
        self.given.include(project).map(Path::to_path_buf).or_else(|| self.include.clone())
    }

    /// Puts secrets into the scratch folder and hides them from here on. All that are asked for, or none.
    pub(crate) fn place(
        &self,
        project: &ProjectId,
        names: &[String],
        scratch: &Path,
        hidden: &Hidden,
    ) -> Result<(), BuildError> {
        if names.is_empty() {
            return Ok(());
        }
        let refused = |error: &(dyn std::error::Error + 'static)| BuildError::of("secret_refused", error);
        let mut values = Vec::new();
        for name in names {
            let source = self.given.secret(project, name).map_err(|error| refused(&error))?;
            let value = read(source).map_err(|why| {
                BuildError::new("secret_refused", format!("the secret {name} of this worker cannot be given: {why}"))
            })?;
            values.push((name, value));
        }
        let folder = folder(scratch);
        let place = || -> io::Result<()> {
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            DirBuilder::new().mode(0o700).create(&folder)?;
            for (name, value) in &values {
                let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.join(name))?;
                file.write_all(value)?;
            }
            Ok(())
        };
        values.iter().for_each(|(name, value)| hidden.add(name, value));
        place().map_err(|error| BuildError::of("workspace", &error))
    }
}

/// Where a job's secrets are.
pub(crate) fn folder(scratch: &Path) -> PathBuf {
    scratch.join("secrets")
}

/// Reads a secret that only this user can read; says what is wrong and nothing of the value.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: io::Error| error.to_string();
    let file = File::open(path).map_err(failed)?;
    let stat = file.metadata().map_err(failed)?;
    if !stat.is_file() {
        return Err("it is no file".to_owned());
    }
    if stat.mode() & 0o077 != 0 {
        return Err(format!("others may read its file (mode {:o}): chmod 600", stat.mode() & 0o777));
    }
    let mut value = Vec::new();
    file.take(MOST + 1).read_to_end(&mut value).map_err(failed)?;
    // A blank end is not hidden, and hides nothing.
    match (value.len(), value.trim_ascii().len()) {
        (length, _) if length as u64 > MOST => Err(format!("it has more than {MOST} bytes")),
        (_, length) if length < LEAST => Err(format!("with fewer than {LEAST} bytes it could not be hidden")),
        _ => Ok(value),
    }
}

/// The values that a job's words must not hold. Shared by all that speak for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hidden(Arc<RwLock<Vec<(String, Piece)>>>);

/// A value that is not shown, not even for debugging.
#[derive(Clone)]
struct Piece(String);

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}

impl Hidden {
    fn add(&self, name: &str, value: &[u8]) {
        let text = String::from_utf8_lossy(value);
        let whole = text.trim();
        // A long one is printed line by line.
        let lines = whole.lines().map(str::trim).filter(|line| line.len() >= LEAST && *line != whole);
        let pieces = std::iter::once(whole).chain(lines).map(|piece| (name.to_owned(), Piece(piece.to_owned())));
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.extend(pieces);
        known.sort_by_key(|(_, piece)| std::cmp::Reverse(piece.0.len()));
    }

    /// A text without them: each is replaced by its name, also where the text begins or ends inside of one.
    pub(crate) fn cover(&self, text: &str) -> String {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut text = text.to_owned();
        for (name, Piece(value)) in known.iter() {
            let sign = format!("[secret {name}]");
            text = text.replace(value.as_str(), &sign);
            let cuts = || (LEAST..value.len()).rev().filter(|at| value.is_char_boundary(*at));
            if let Some(at) = cuts().find(|at| text.ends_with(&value[..*at])) {
                text.truncate(text.len() - at);
                text.push_str(&sign);
            }
            let tails = || (1..=value.len().saturating_sub(LEAST)).filter(|at| value.is_char_boundary(*at));
            if let Some(at) = tails().find(|at| text.starts_with(&value[*at..])) {
                text.replace_range(..value.len() - at, &sign);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const VALUE: &str = "s3cr3t-value-0123456789";

    fn provision(dir: &Path, mode: u32, value: &str) -> Provision {
        let file = dir.join("npm");
        fs::write(&file, value).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let text =
            format!("[projects.shop]\nsecrets = [\"npm\"]\n[secrets.npm]\nfile = {:?}\n", file.display().to_string());
        Provision { given: Provisions::parse(&text, "p").unwrap(), include: None }
    }

    fn place(provision: &Provision, scratch: &Path, names: &[&str]) -> Result<Hidden, BuildError> {
        let hidden = Hidden::default();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        provision.place(&ProjectId::new("shop").unwrap(), &names, scratch, &hidden).map(|()| hidden)
    }

    #[test]
    fn a_secret_is_a_private_file_beside_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        let provision = provision(dir.path(), 0o600, VALUE);
        for _again in 0..2 {
            let hidden = place(&provision, dir.path(), &["npm"]).unwrap();
            let file = folder(dir.path()).join("npm");
            assert_eq!(fs::read_to_string(&file).unwrap(), VALUE);
            assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
            assert_eq!(fs::metadata(folder(dir.path())).unwrap().mode() & 0o777, 0o700);
            assert!(!format!("{hidden:?}").contains(VALUE));
        }
    }

    #[test]
    fn what_is_not_allowed_or_not_private_is_not_given() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |mode, value, name: &str| {
            let error = place(&provision(dir.path(), mode, value), dir.path(), &["npm", name]).unwrap_err();
            assert_eq!(error.reason, "secret_refused");
            assert!(!folder(dir.path()).exists() && !error.message.contains("s3cr3t"), "{error}");
            error.message
        };
        assert_eq!(refused(0o600, VALUE, "db"), "this worker gives shop no secret db");
        assert!(refused(0o644, VALUE, "npm").contains("chmod 600"));
        assert!(refused(0o600, "short", "npm").contains("could not be hidden"));
        assert!(refused(0o600, "short\n\n\n\n\n", "npm").contains("could not be hidden"));
        assert!(refused(0o600, "          \n", "npm").contains("could not be hidden"));
        assert!(refused(0o600, &"s3cr3t".repeat(20_000), "npm").contains("more than"));
        assert!(place(&Provision::default(), dir.path(), &[]).is_ok() && !folder(dir.path()).exists());
    }

    #[test]
    fn no_part_of_a_value_is_told() {
        let hidden = Hidden::default();
        hidden.add("npm", format!("{VALUE}\n").as_bytes());
        hidden.add("pem", b"-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG\nabc\n-----END KEY-----\n");
        assert_eq!(hidden.cover(&format!("token={VALUE};")), "token=[secret npm];");
        assert_eq!(hidden.cover("line MIIEvQIBADANBgkqhkiG"), "line [secret pem]");
        assert_eq!(hidden.cover(&format!("cut {}", &VALUE[..12])), "cut [secret npm]");
        assert_eq!(hidden.cover(&format!("{} cut", &VALUE[9..])), "[secret npm] cut");
        assert_eq!(hidden.cover("nothing of it: abc"), "nothing of it: abc");
        for from in 0..VALUE.len() - LEAST {
            assert!(!hidden.cover(&VALUE[from..]).contains(&VALUE[from..]), "{from}");
        }
    }
}
