//! Keys in paths and queries: percent-encoded bytes.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sync_core::model::ReplicaId;

use super::KeyQuery;
use crate::limits::{DEFAULT_KEYS, MAX_KEYS};

/// What stays as it is in a path: the unreserved characters of RFC 3986, and the slash.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// The key as it stands in a path.
pub(crate) fn encode(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) => utf8_percent_encode(text, ENCODED).to_string(),
        Err(_) => percent_encoding::percent_encode(key, ENCODED).to_string(),
    }
}

/// The bytes of a part of a path.
pub(super) fn decode(part: &str) -> Vec<u8> {
    percent_decode_str(part).collect()
}

/// The replica and the rest of `.../v1/replicas/{id}/{kind}{rest}`. The path may lie below another.
pub(super) fn locate<'a>(path: &'a str, kind: &str) -> Option<(ReplicaId, &'a str)> {
    let (_, below) = path.split_once("/v1/replicas/")?;
    let (id, rest) = below.split_once('/')?;
    Some((id.parse().ok()?, rest.strip_prefix(kind)?))
}

/// Which keys the query of a URL asks for.
pub(crate) fn keys(query: &str) -> Result<KeyQuery, String> {
    let mut asked = KeyQuery { prefix: Vec::new(), after: None, limit: DEFAULT_KEYS };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        // As a browser's form writes it.
        let bytes = decode(&value.replace('+', " "));
        match name {
            "prefix" => asked.prefix = bytes,
            "after" => asked.after = Some(bytes),
            "limit" => match value.parse() {
                Ok(limit @ 1..=MAX_KEYS) => asked.limit = limit,
                _ => return Err(format!("`limit` is a number from 1 to {MAX_KEYS}, not `{value}`")),
            },
            // Others are for later versions.
            _ => {}
        }
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_a_path() {
        for key in [&b"notes/today.txt"[..], b"a b+c%d?e#f&g=h", "größe".as_bytes(), &[0xFF, 0x00, 0x80, b'/']] {
            assert_eq!(decode(&encode(key)), key);
            assert!(encode(key).bytes().all(|byte| byte.is_ascii_graphic() && !b"?#&+ ".contains(&byte)));
        }
    }

    #[test]
    fn a_path_below_another_is_found() {
        let id = "ab".repeat(32);
        let path = format!("/notes/v1/replicas/{id}/values/a/b");
        let (replica, rest) = locate(&path, "values/").unwrap();
        assert_eq!((replica.to_string(), rest), (id, "a/b"));
        assert_eq!(locate("/v1/replicas/abc/values/a", "values/"), None);
    }

    #[test]
    fn limits_hold_to_the_number() {
        let limit = |text: &str| keys(text).map(|query| query.limit);
        assert_eq!(limit(""), Ok(DEFAULT_KEYS));
        assert_eq!(limit("limit=1000"), Ok(1000));
        for wrong in ["limit=0", "limit=1001", "limit=", "limit=-1", "limit=99999999999999999999999"] {
            assert!(limit(wrong).is_err(), "{wrong}");
        }
        let asked = keys("prefix=a%2Fb+c&after=%FF&later=1").unwrap();
        assert_eq!((asked.prefix, asked.after), (b"a/b c".to_vec(), Some(vec![0xFF])));
    }
}
