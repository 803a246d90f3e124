//! Small translations between values and what people read.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes that are mostly text: a string in JSON where they are UTF-8, `{"hex": "..."}` otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MostlyText(pub Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    Text(String),
    Hex { hex: String },
}

impl Serialize for MostlyText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => text.serialize(serializer),
            Err(_) => Form::Hex { hex: data_encoding::HEXLOWER.encode(&self.0) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for MostlyText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Form::deserialize(deserializer)? {
            Form::Text(text) => Ok(Self(text.into_bytes())),
            Form::Hex { hex } => {
                let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes());
                bytes.map(Self).map_err(serde::de::Error::custom)
            }
        }
    }
}

/// Bytes for a terminal: text as it is, everything else escaped.
pub fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_string(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// `30s`, `5m`, `2h`, `7d`, `2w` or a number of seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration: write it like 30s, 5m, 2h, 7d");
    let (number, unit) = match text.char_indices().last() {
        Some((at, unit)) if unit.is_ascii_alphabetic() => (&text[..at], unit),
        _ => (text, 's'),
    };
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match number.checked_mul(seconds) {
        Some(total) if total > 0 => Ok(Duration::from_secs(total)),
        _ => Err(wrong()),
    }
}

/// A number of bytes for people.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
        for bad in ["", "d", "7y", "-1s", "0s", "1.5h", "99999999999999999w"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bytes_survive_json_whether_text_or_not() {
        for bytes in [&b"a/b"[..], b"\xff\x00", b""] {
            let json = serde_json::to_string(&MostlyText(bytes.to_vec())).unwrap();
            assert_eq!(serde_json::from_str::<MostlyText>(&json).unwrap().0, bytes);
        }
    }

    #[test]
    fn sizes_and_keys_are_readable() {
        assert_eq!((size(17), size(1536), size(3 << 30)), ("17 B".into(), "1.5 KiB".into(), "3.0 GiB".into()));
        assert_eq!((shown("grün".as_bytes()), shown(b"a\nb")), ("grün".into(), "a\\nb".into()));
    }
}
