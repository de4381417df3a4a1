//! What the fence ref holds: `incarnation epoch`, and for a hub on a git server a mark that makes each write of it
//! another one. Every reader takes both.

use autopack_shared::domain::ids::FencingToken;

/// The fence of a hub whose refs we lock ourselves.
pub(super) fn plain(token: FencingToken) -> String {
    format!("{} {}\n", token.incarnation, token.epoch)
}

/// The fence of a hub that is moved by pushes. A push checks only what it changes, so each one changes the fence; and
/// no two of them may change it to the same, or the later one would find it up to date and not check it.
pub(super) fn marked(token: FencingToken, writer: &str, count: u64) -> String {
    format!("{} {} {writer}.{count}\n", token.incarnation, token.epoch)
}

/// The mark of a cluster's hub.
pub(super) fn owner(cluster: &str) -> String {
    format!("{cluster}\n")
}

/// Reads such a mark; whatever it is, it is somebody's.
pub(super) fn parse_owner(blob: &[u8]) -> String {
    let text = String::from_utf8_lossy(blob);
    text.trim_end_matches('\n').chars().filter(|c| !c.is_control()).take(100).collect()
}

/// Reads either.
pub(super) fn parse(blob: &[u8]) -> Option<FencingToken> {
    let mut fields = std::str::from_utf8(blob).ok()?.strip_suffix('\n')?.split(' ');
    let token = FencingToken { incarnation: fields.next()?.parse().ok()?, epoch: fields.next()?.parse().ok()? };
    let (_mark, more) = (fields.next(), fields.next());
    more.is_none().then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_nothing_else() {
        let token = FencingToken { incarnation: 2, epoch: 7 };
        assert_eq!(parse(plain(token).as_bytes()), Some(token));
        assert_eq!(parse(marked(token, "hub-1", 3).as_bytes()), Some(token));
        assert_ne!(marked(token, "hub-1", 3), marked(token, "hub-1", 4));
        for bad in ["", "2 7", "2\n", "2 x\n", "2 7 a b\n", "-2 7\n"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
