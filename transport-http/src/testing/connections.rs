//! Bytes into an HTTP connection: requests, upgrades and WebSocket frames, well-formed and not, cut anywhere.

use std::time::Duration;

use sync_core::testing::{fuzz::Input, random::Random};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{PLACES, SERVER, Server};
use crate::listen;

/// Nothing of ours waits so long when the other side has ended.
const HUNG: Duration = Duration::from_secs(60);

const HEALTH: &[u8] = b"GET /v1/health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

/// Whatever is said on a connection, it ends when the other side ends; what it answers is HTTP, and no failure of the
/// node; its place is free again; and whoever comes next is served.
pub fn connections(data: &[u8]) {
    SERVER.with_borrow_mut(|server| {
        let mut input = Input::new(data);
        let random = Random::new(input.long());
        let bytes = conversation(&mut input);
        let answer = server.run(talk(server, &bytes, random));
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{}", answer.escape_ascii());
        for line in answer.split(|byte| *byte == b'\n') {
            assert!(!line.starts_with(b"HTTP/1.1 500"), "the node fails over {}", bytes.escape_ascii());
        }
        while server.accepted.try_recv().is_ok() {}
        server.run(async {
            for _ in 0..100 {
                if server.hub.free_places() == Some(PLACES) {
                    return;
                }
                tokio::task::yield_now().await;
            }
            panic!("a connection that has ended keeps its place");
        });
        let health = server.run(talk(server, HEALTH, Random::new(0)));
        assert!(health.starts_with(b"HTTP/1.1 200"), "{}", health.escape_ascii());
    });
}

/// Says it in pieces, ends, and reads all that is answered.
async fn talk(server: &Server, bytes: &[u8], mut random: Random) -> Vec<u8> {
    let (here, there) = tokio::io::duplex(16 * 1024);
    let (mut read, mut write) = tokio::io::split(here);
    let say = async {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(1 + random.below(rest.len()));
            // It may be cut off in the middle of it.
            if write.write_all(now).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
            rest = later;
        }
        let _ = write.shutdown().await;
    };
    let hear = async {
        let mut answer = Vec::new();
        let _ = read.read_to_end(&mut answer).await;
        answer
    };
    let all = async { tokio::join!(listen::answer_pipe(&server.router, there), say, hear).2 };
    tokio::time::timeout(HUNG, all).await.expect("a connection ends when the other side has ended")
}

fn conversation(input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..1 + input.below(4) {
        match input.below(8) {
            0 => bytes.extend_from_slice(input.bytes(255)),
            1 => bytes.extend_from_slice(input.pick(&[
                HEALTH,
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
                b"\r\n\r\n\r\n",
                b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
                b"GET /v1/health\r\n",
            ])),
            2..=4 => request(&mut bytes, input),
            _ => {
                upgrade(&mut bytes, input);
                for _ in 0..input.below(6) {
                    frame(&mut bytes, input);
                }
            }
        }
    }
    // Here and there a byte is another.
    for _ in 0..input.below(4) {
        let at = usize::from(input.short()) % bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(at) {
            *byte = input.byte();
        }
    }
    bytes.extend_from_slice(input.rest());
    bytes
}

fn line(bytes: &mut Vec<u8>, parts: &[&[u8]], input: &mut Input<'_>) {
    bytes.extend(parts.iter().copied().flatten());
    bytes.extend_from_slice(input.pick(&[b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"]));
}

fn request(bytes: &mut Vec<u8>, input: &mut Input<'_>) {
    let method: &[u8] =
        input.pick(&[&b"GET"[..], b"GET", b"HEAD", b"POST", b"PUT", b"OPTIONS", b"CONNECT", b"get", b""]);
    let path: &[u8] = match input.below(10) {
        0 => input.bytes(60),
        number => [
            &b"/v1/health"[..],
            b"/v1/node",
            b"/v1/status",
            b"/v1/replicas",
            b"/v1/replicas/0303030303030303030303030303030303030303030303030303030303030303/keys?prefix=a&limit=2",
            b"/v1/replicas/0303030303030303030303030303030303030303030303030303030303030303/values/large",
            b"/v1/sync",
            b"http://elsewhere/v1/health",
            b"*",
        ][number - 1],
    };
    let version: &[u8] = input.pick(&[&b"HTTP/1.1"[..], b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b""]);
    line(bytes, &[method, b" ", path, b" ", version], input);
    let body = input.bytes(200);
    let mut is_chunked = false;
    for _ in 0..input.below(6) {
        match input.below(10) {
            0 => line(bytes, &[b"host: a"], input),
            1 => line(bytes, &[b"authorization: Bearer ", input.pick(&[&b"all"[..], b"notes", b"x", b"\xff"])], input),
            2 => line(bytes, &[b"content-length: ", body.len().to_string().as_bytes()], input),
            3 => {
                let len: &[u8] =
                    input.pick(&[&b"0"[..], b"1", b"-1", b"18446744073709551615", b"99999999999999999999", b"1,1"]);
                line(bytes, &[b"content-length: ", len], input);
            }
            4 | 5 => {
                is_chunked = true;
                line(
                    bytes,
                    &[b"transfer-encoding: ", input.pick(&[&b"chunked"[..], b"gzip, chunked", b"chunked, x"])],
                    input,
                );
            }
            6 => line(bytes, &[b"expect: 100-continue"], input),
            7 => line(bytes, &[b"range: bytes=", input.pick(&[&b"0-5"[..], b"-1", b"65535-65537", b"5-1"])], input),
            8 => line(bytes, &[input.bytes(20), b": ", input.bytes(40)], input),
            // Too long, or too many.
            _ if input.one_in(2) => line(bytes, &[b"x: ", &vec![b'y'; 1 << input.below(16)]], input),
            _ => (0..input.byte()).for_each(|_| bytes.extend_from_slice(b"z: 1\r\n")),
        }
    }
    line(bytes, &[], input);
    if !is_chunked {
        bytes.extend_from_slice(body);
        return;
    }
    for piece in body.chunks(1 + input.below(80)) {
        let len = match input.below(8) {
            0 => "ffffffffffffffff".to_owned(),
            1 => "fffffffffffffffff".to_owned(),
            2 => format!("{:x};name=\"v\"", piece.len()),
            3 => format!("{:x}", piece.len() + 1),
            _ => format!("{:x}", piece.len()),
        };
        line(bytes, &[len.as_bytes()], input);
        line(bytes, &[piece], input);
    }
    line(bytes, &[b"0"], input);
    if input.one_in(4) {
        line(bytes, &[b"trailer: ", input.bytes(20)], input);
    }
    line(bytes, &[], input);
}

fn upgrade(bytes: &mut Vec<u8>, input: &mut Input<'_>) {
    bytes.extend_from_slice(
        b"GET /v1/sync HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
          sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
    );
    if input.one_in(8) {
        line(bytes, &[b"sec-websocket-extensions: permessage-deflate; ", input.bytes(20)], input);
    }
    bytes.extend_from_slice(b"\r\n");
}

/// A WebSocket frame, with what a Noise handshake begins with, or anything.
fn frame(bytes: &mut Vec<u8>, input: &mut Input<'_>) {
    let mut payload = match input.below(4) {
        0 => [&[0, 32][..], &[9; 32]].concat(),
        1 => [&input.short().to_be_bytes()[..], input.bytes(255)].concat(),
        2 => vec![7; usize::from(input.short())],
        _ => input.bytes(130).to_vec(),
    };
    // Binary, all of it, most of the time; also text, parts, close, ping, pong, and what is reserved.
    bytes.push(if input.one_in(3) { input.byte() } else { 0x82 });
    let mask = if input.one_in(8) { 0 } else { 0x80 };
    match (input.below(8), payload.len()) {
        (0, _) => {
            bytes.push(mask | 127);
            bytes.extend_from_slice(&input.long().to_be_bytes());
        }
        (1, _) => {
            bytes.push(mask | 126);
            bytes.extend_from_slice(&input.short().to_be_bytes());
        }
        (_, len @ 0..126) => bytes.push(mask | len as u8),
        (_, len) => {
            bytes.push(mask | 126);
            bytes.extend_from_slice(&(len as u16).to_be_bytes());
        }
    }
    if mask != 0 {
        let key = [input.byte(), input.byte(), 0, 0];
        bytes.extend_from_slice(&key);
        payload.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    }
    bytes.extend_from_slice(&payload);
}
