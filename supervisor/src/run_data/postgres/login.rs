//! Passwords of login roles. They are not kept: each is made anew from a key that only the server for runs has, so that
//! every supervisor says the same, and the server is told a verifier, so that no statement shows one.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// Rounds of the verifier; what PostgreSQL itself takes.
const ROUNDS: u32 = 4096;
/// What passwords begin with, so that they are known as secrets wherever they turn up.
const PREFIX: &str = "aprd_";

/// What passwords are made of.
pub(super) struct Key(Vec<u8>);

impl Key {
    pub(super) const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The password of a login.
    pub(super) fn password(&self, login: &str) -> String {
        format!("{PREFIX}{}", hex::encode(mac(&self.0, &[b"password\0", login.as_bytes()])))
    }

    /// What the server is told instead (RFC 5803).
    pub(super) fn verifier(&self, login: &str) -> String {
        let salt = mac(&self.0, &[b"salt\0", login.as_bytes()]);
        verifier(self.password(login).as_bytes(), &salt[..16])
    }
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn verifier(password: &[u8], salt: &[u8]) -> String {
    let mut block = mac(password, &[salt, &1_u32.to_be_bytes()]);
    let mut salted = block;
    for _ in 1..ROUNDS {
        block = mac(password, &[&block]);
        for (sum, byte) in salted.iter_mut().zip(block) {
            *sum ^= byte;
        }
    }
    let stored = Sha256::digest(mac(&salted, &[b"Client Key"]));
    let server = mac(&salted, &[b"Server Key"]);
    let text = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
    format!("SCRAM-SHA-256${ROUNDS}:{}${}:{}", text(salt), text(&stored), text(&server))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_told_apart_and_not_in_their_verifier() {
        let key = Key::new(vec![7; 32]);
        let (first, second) = (key.password("ap_0_e1"), key.password("ap_0_e2"));
        assert_ne!(first, second);
        assert_eq!(first, Key::new(vec![7; 32]).password("ap_0_e1"), "every supervisor says the same");
        assert_ne!(first, Key::new(vec![8; 32]).password("ap_0_e1"));
        assert_eq!(first.len(), PREFIX.len() + 64);
        assert!(!key.verifier("ap_0_e1").contains(&first));
        assert!(!autopack_shared::domain::secret::redact(&first).contains(&first[5..]));
    }

    #[test]
    fn the_verifier_is_that_of_rfc_7677() {
        // The example of the RFC: user "user", password "pencil".
        let salt = BASE64_STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let told = verifier(b"pencil", &salt);
        let wanted = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                      wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        assert_eq!(told, wanted);
    }
}
