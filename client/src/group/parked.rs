//! What the key of a record is parked as.

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// A group parks keys up to this length, in bytes; producers may use longer ones.
const LONGEST: usize = 64 << 10;

/// What a record is parked under: its key, a digest of a very long one, nothing where there is no key.
///
/// A key that happens to read like another one's digest would be parked together with it: more is
/// set aside then, nothing is passed over.
pub(super) fn name(key: Option<&Bytes>) -> Bytes {
    match key {
        Some(key) if key.len() > LONGEST => digest(key),
        Some(key) => key.clone(),
        None => Bytes::new(),
    }
}

fn digest(key: &[u8]) -> Bytes {
    let (length, digest) = (key.len(), Sha256::digest(key));
    Bytes::from(format!("{length} bytes, sha256 {digest:x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_that_a_group_would_not_park_go_by_their_digest() {
        let key = |len| Bytes::from(vec![7; len]);
        assert_eq!(name(None), "");
        assert_eq!(name(Some(&key(0))), "");
        assert_eq!(name(Some(&key(LONGEST))), key(LONGEST));
        let long = name(Some(&key(LONGEST + 1)));
        assert_eq!(long, name(Some(&key(LONGEST + 1))));
        assert_ne!(long, name(Some(&key(LONGEST + 2))));
        let text = std::str::from_utf8(&long).unwrap();
        let digest = text.strip_prefix("65537 bytes, sha256 ").unwrap();
        assert!(digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()));
    }
}
