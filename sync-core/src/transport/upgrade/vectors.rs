//! `vectors/pipes.json`: the Noise handshake over a pipe of bytes, and the messages after it, between ends with fixed keys.

use std::{future::poll_fn, io};

use futures_util::io::{AsyncReadExt as _, AsyncWriteExt as _};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::{
    Role,
    handshake::{PATTERN, PROLOGUE, Secured, exchange},
    noise::{Data, NoisePipe},
};
use crate::{
    golden::{bytes, golden, hex, list, text},
    transport::{CloseReason, TransportErrorKind},
};

const PROLOGUE_OF_THE_PAGE: &[u8] = b"syncline v1 noise yamux\0";

/// An end whose keys are so many equal bytes.
fn end(role: Role, prologue: &[u8]) -> snow::HandshakeState {
    let (secret, ephemeral) = match role {
        Role::Dialer => ([1; 32], [2; 32]),
        Role::Listener => ([3; 32], [4; 32]),
    };
    let builder = snow::Builder::new(PATTERN.parse().unwrap()).prologue(prologue).unwrap();
    let builder = builder.local_private_key(&secret).unwrap().fixed_ephemeral_key_for_testing_only(&ephemeral);
    match role {
        Role::Dialer => builder.build_initiator(),
        Role::Listener => builder.build_responder(),
    }
    .unwrap()
}

fn behind_length(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes()[..], message].concat()
}

/// The hash of a handshake, and its dialer and its listener.
type Shaken = (Vec<u8>, snow::TransportState, snow::TransportState);

/// The three messages of a handshake by Noise alone, and what it gives.
fn by_noise(prologues: [&[u8]; 2]) -> ([Vec<u8>; 3], Option<Shaken>) {
    let (mut dialer, mut listener) = (end(Role::Dialer, prologues[0]), end(Role::Listener, prologues[1]));
    let mut messages = [Vec::new(), Vec::new(), Vec::new()];
    let (mut buffer, mut payload) = ([0; 256], [0; 256]);
    for (at, message) in messages.iter_mut().enumerate() {
        let (from, to) = if at % 2 == 0 { (&mut dialer, &mut listener) } else { (&mut listener, &mut dialer) };
        let len = from.write_message(&[], &mut buffer).unwrap();
        *message = buffer[..len].to_vec();
        if to.read_message(message, &mut payload).is_err() {
            return (messages, None);
        }
    }
    let hash = dialer.get_handshake_hash().to_vec();
    (messages, Some((hash, dialer.into_transport_mode().unwrap(), listener.into_transport_mode().unwrap())))
}

fn sealed(noise: &mut snow::TransportState, plain: &[u8]) -> Vec<u8> {
    let mut message = vec![0; plain.len() + 16];
    let len = noise.write_message(plain, &mut message).unwrap();
    behind_length(&message[..len])
}

/// What one end says to what it hears, and what it has then.
async fn shake(role: Role, heard: &[u8]) -> (Vec<u8>, Result<Secured, TransportErrorKind>) {
    let (mut here, mut there) = duplex(64 * 1024);
    there.write_all(heard).await.unwrap();
    there.shutdown().await.unwrap();
    let outcome = exchange(&mut here, end(role, PROLOGUE)).await.map_err(|error| error.kind);
    drop(here);
    let mut said = Vec::new();
    there.read_to_end(&mut said).await.unwrap();
    (said, outcome)
}

/// The data that a listener reads from messages of the dialer, and how it ends.
async fn hear(messages: &[u8]) -> (Vec<u8>, Result<(), io::ErrorKind>, Option<CloseReason>) {
    let (_, Some((_, _, noise))) = by_noise([PROLOGUE; 2]) else { panic!("the ends understand each other") };
    let (here, mut there) = duplex(64 * 1024);
    there.write_all(messages).await.unwrap();
    there.shutdown().await.unwrap();
    let pipe = std::sync::Arc::new(NoisePipe::new(here, noise));
    let (mut data, mut buffer) = (Vec::new(), [0; 1024]);
    let mut reader = Data(pipe.clone());
    let end = loop {
        match reader.read(&mut buffer).await {
            Ok(0) => break Ok(()),
            Ok(len) => data.extend_from_slice(&buffer[..len]),
            Err(error) => break Err(error.kind()),
        }
    };
    (data, end, pipe.farewell())
}

fn make() -> Json {
    let (messages, Some((hash, mut dialer, _))) = by_noise([PROLOGUE_OF_THE_PAGE; 2]) else {
        panic!("the ends understand each other")
    };
    let data = sealed(&mut dialer, b"\0hello");
    let keep_alive = sealed(&mut dialer, &[1]);
    let farewell = sealed(&mut dialer, &[2, 0, 0, 0, 3]);
    let messages = messages.map(|message| behind_length(&message));
    // With a prologue that differs the dialer cannot read the second message.
    let ([_, of_others, _], None) = by_noise([PROLOGUE_OF_THE_PAGE, b"syncline v2 noise yamux\0"]) else {
        panic!("the ends do not understand each other")
    };
    let flipped = |message: &[u8]| {
        let mut message = message.to_vec();
        *message.last_mut().unwrap() ^= 1;
        message
    };
    let cut = |message: &[u8]| message[..message.len() - 1].to_vec();
    let handshakes = [
        ("another prologue at the listener", "dialer", behind_length(&of_others), "protocol violation"),
        ("a changed bit in the second message", "dialer", flipped(&messages[1]), "protocol violation"),
        ("a second message that is cut", "dialer", cut(&messages[1]), "connection lost"),
        ("a second message that is too short", "dialer", behind_length(&messages[1][2..90]), "protocol violation"),
        ("a first message that is too short", "listener", behind_length(&messages[0][2..33]), "protocol violation"),
        ("a length of 257", "listener", vec![1, 1], "protocol violation"),
        ("a length of all ones", "dialer", vec![0xff, 0xff], "protocol violation"),
        ("nothing", "listener", vec![], "connection lost"),
        (
            "a changed bit in the third message",
            "listener",
            [&messages[0][..], &flipped(&messages[2])].concat(),
            "protocol violation",
        ),
        ("the first message twice", "listener", messages[0].repeat(2), "protocol violation"),
    ];
    let handshakes = handshakes
        .map(|(name, to, heard, error)| json!({ "name": name, "to": to, "heard": hex(heard), "error": error }));
    // After the data and the keep-alive, so that the nonces are those of their places.
    let before = [&data[..], &keep_alive].concat();
    let after = |more: &[u8]| [&before[..], more].concat();
    let rejected = [
        ("an empty plaintext", after(&behind_length(&[7; 16])), "malformed"),
        ("a length of 0", after(&[0, 0]), "malformed"),
        ("a changed bit", after(&flipped(&farewell)), "malformed"),
        ("a message that came before", after(&data), "malformed"),
        ("a message that was left out", [&data[..], &farewell].concat(), "malformed"),
        ("a message that is cut", after(&cut(&farewell)), "cut"),
        ("half a length", after(&[0]), "cut"),
    ];
    let rejected =
        rejected.map(|(name, messages, error)| json!({ "name": name, "messages": hex(messages), "error": error }));
    json!({
        "pattern": "Noise_XX_25519_ChaChaPoly_BLAKE2s", "prologue": hex(PROLOGUE_OF_THE_PAGE),
        "dialer": { "static_key": hex([1; 32]), "ephemeral_key": hex([2; 32]) },
        "listener": { "static_key": hex([3; 32]), "ephemeral_key": hex([4; 32]) },
        "accepted": {
            "handshake": messages.map(hex), "channel_binding": hex(hash),
            "by_dialer": [
                { "data": hex("hello"), "message": hex(data) },
                { "keep_alive": true, "message": hex(keep_alive) },
                { "farewell": 3, "message": hex(farewell) },
            ],
        },
        "rejected_handshakes": handshakes, "rejected": rejected,
    })
}

#[tokio::test]
async fn b61_the_vectors_of_pipes_hold() {
    let file = golden("pipes.json", &make());
    assert_eq!(hex(PROLOGUE), file["prologue"]);
    assert_eq!(PATTERN, text(&file["pattern"]));
    let accepted = &file["accepted"];
    let [first, second, third] = [0, 1, 2].map(|at| bytes(&accepted["handshake"][at]));
    let (said, listener) = shake(Role::Listener, &[&first[..], &third].concat()).await;
    assert_eq!(said, second);
    assert_eq!(hex(listener.unwrap().binding), accepted["channel_binding"]);
    let (said, dialer) = shake(Role::Dialer, &second).await;
    assert_eq!(said, [&first[..], &third].concat());
    let dialer = dialer.unwrap();
    assert_eq!(hex(dialer.binding), accepted["channel_binding"]);

    // What the dialer says after it, message by message.
    let (here, mut there) = duplex(64 * 1024);
    let pipe = std::sync::Arc::new(NoisePipe::new(here, dialer.noise));
    Data(pipe.clone()).write_all(b"hello").await.unwrap();
    poll_fn(|cx| pipe.poll_drain(cx)).await.unwrap();
    pipe.keep_alive().unwrap();
    let mut reason = Some(CloseReason::Refused);
    poll_fn(|cx| pipe.poll_farewell(cx, &mut reason)).await.unwrap();
    let mut said = Vec::new();
    there.read_to_end(&mut said).await.unwrap();
    let messages: Vec<u8> =
        list(&accepted["by_dialer"]).iter().flat_map(|message| bytes(&message["message"])).collect();
    assert_eq!(said, messages);
    let heard = hear(&messages).await;
    assert_eq!(heard, (b"hello".to_vec(), Err(io::ErrorKind::ConnectionReset), Some(CloseReason::Refused)));

    for vector in list(&file["rejected_handshakes"]) {
        let role = if vector["to"] == "dialer" { Role::Dialer } else { Role::Listener };
        let (_, outcome) = shake(role, &bytes(&vector["heard"])).await;
        let error = outcome.err().map(|kind| kind.to_string());
        assert_eq!(error.as_deref(), Some(text(&vector["error"])), "{}", vector["name"]);
    }
    for vector in list(&file["rejected"]) {
        let (_, end, farewell) = hear(&bytes(&vector["messages"])).await;
        let error = match end {
            Err(io::ErrorKind::InvalidData) => "malformed",
            Err(io::ErrorKind::UnexpectedEof) => "cut",
            other => panic!("{}: {other:?}", vector["name"]),
        };
        assert_eq!((error, farewell), (text(&vector["error"]), None), "{}", vector["name"]);
    }
}

/// A message of a kind that this version does not know is skipped, wherever it stands.
#[tokio::test]
async fn b79_a_message_of_an_unknown_kind_is_no_data() {
    let (_, Some((_, mut dialer, _))) = by_noise([PROLOGUE; 2]) else { panic!("the ends understand each other") };
    let messages = [&b"\0one"[..], &[3, 1, 2], &[0xff], b"\0two"].map(|plain| sealed(&mut dialer, plain));
    assert_eq!(hear(&messages.concat()).await, (b"onetwo".to_vec(), Ok(()), None));
}
