//! The `Range` header (RFC 9110, section 14), for one range. Several are answered with the whole value, as
//! the standard allows.

use std::ops::Range;

/// What a request asks for of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// These bytes; not empty, and within the value.
    Bytes(Range<u64>),
    /// What is not there: status 416.
    Beyond,
}

/// Reads the header for a value of `len` bytes. What is malformed is ignored, as the standard says.
pub(super) fn parse(header: Option<&str>, len: u64) -> Part {
    let Some(spec) = header.and_then(|header| header.trim().strip_prefix("bytes=")) else { return Part::Whole };
    let Some((first, last)) = spec.split_once('-') else { return Part::Whole };
    let (first, last) = (first.trim(), last.trim());
    if first.is_empty() {
        // The last so many bytes.
        return match number(last) {
            Some(0) => Part::Beyond,
            Some(_) if len == 0 => Part::Beyond,
            Some(count) => Part::Bytes(len.saturating_sub(count)..len),
            None => Part::Whole,
        };
    }
    let Some(start) = number(first) else { return Part::Whole };
    let end = match last {
        "" => len,
        last => match number(last) {
            Some(last) if last >= start => last.saturating_add(1).min(len),
            _ => return Part::Whole,
        },
    };
    if start >= len { Part::Beyond } else { Part::Bytes(start..end) }
}

/// Digits only: no sign, as `u64::from_str` would take. What is too large means "to the end".
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        let parsed = |header, len| parse(Some(header), len);
        assert_eq!(parse(None, 10), Part::Whole);
        assert_eq!(parsed("bytes=0-0", 10), Part::Bytes(0..1));
        assert_eq!(parsed("bytes=0-9", 10), Part::Bytes(0..10));
        assert_eq!(parsed("bytes=0-10", 10), Part::Bytes(0..10));
        assert_eq!(parsed("bytes=9-", 10), Part::Bytes(9..10));
        assert_eq!(parsed("bytes=-3", 10), Part::Bytes(7..10));
        assert_eq!(parsed("bytes=-30", 10), Part::Bytes(0..10));
        assert_eq!(parsed("bytes=5-18446744073709551615", 10), Part::Bytes(5..10));
        assert_eq!(parsed("bytes=5-99999999999999999999999", 10), Part::Bytes(5..10));
        for beyond in ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert_eq!(parsed(beyond, 10), Part::Beyond, "{beyond}");
        }
        assert_eq!((parsed("bytes=0-", 0), parsed("bytes=-1", 0)), (Part::Beyond, Part::Beyond));
        for whole in ["bytes=", "bytes=-", "bytes=a-b", "bytes=5-4", "bytes=0-1,3-4", "lines=0-1", "bytes=+1-2"] {
            assert_eq!(parsed(whole, 10), Part::Whole, "{whole}");
        }
    }
}
