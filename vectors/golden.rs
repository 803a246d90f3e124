//! What the tests share that hold the files of this directory against the code of their crate: its `lib.rs`, or the test, leads here.
//!
//! A test makes its file from the code, and then checks what stands in it. A file that differs from what would be made now
//! is a change of a format. When that is meant, the test writes it anew, run with `SYNCLINE_WRITE_VECTORS=1`.

#![allow(dead_code, clippy::unwrap_used, reason = "each crate's tests take what they need, and may panic")]

use std::path::PathBuf;

use serde_json::Value as Json;

/// The file of this name, which must be what `made` is now.
pub fn golden(name: &str, made: &Json) -> Json {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "vectors", name].iter().collect();
    if std::env::var_os("SYNCLINE_WRITE_VECTORS").is_some() {
        std::fs::write(&path, serde_json::to_string_pretty(made).unwrap() + "\n").unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let kept: Json = serde_json::from_str(&kept).unwrap();
    assert!(kept == *made, "{} is not what the code says now; see vectors/golden.rs", path.display());
    kept
}

/// Bytes as the files have them: hexadecimal, long runs as `61*1024`, parts behind spaces.
pub fn hex(bytes: impl AsRef<[u8]>) -> Json {
    let bytes = bytes.as_ref();
    let mut parts: Vec<String> = vec![String::new()];
    let mut at = 0;
    while at < bytes.len() {
        let run = bytes[at..].iter().take_while(|byte| **byte == bytes[at]).count();
        let digits = format!("{:02x}", bytes[at]);
        if run >= 64 {
            parts.push(format!("{digits}*{run}"));
            parts.push(String::new());
            at += run;
        } else {
            parts.last_mut().unwrap().push_str(&digits);
            at += 1;
        }
    }
    parts.retain(|part| !part.is_empty());
    parts.join(" ").into()
}

/// Reads what [`hex`] wrote.
pub fn bytes(json: &Json) -> Vec<u8> {
    let text = json.as_str().unwrap_or_else(|| panic!("{json} is not text"));
    let mut result = Vec::new();
    for part in text.split_whitespace() {
        let (digits, times) = part.split_once('*').unwrap_or((part, "1"));
        let digits: Vec<u8> =
            (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect();
        result.extend(digits.repeat(times.parse().unwrap()));
    }
    result
}

pub fn text(json: &Json) -> &str {
    json.as_str().unwrap_or_else(|| panic!("{json} is not text"))
}

pub fn list(json: &Json) -> &[Json] {
    json.as_array().unwrap_or_else(|| panic!("{json} is not a list"))
}

/// A number as postcard has it: seven bits a byte, the lowest first.
pub fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// Bytes or text as postcard has them: behind their length.
pub fn sized(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    [&varint(bytes.as_ref().len() as u64), bytes.as_ref()].concat()
}
