//! What the conformance suite does not know of QUIC: ports, sockets, certificates, saved state.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{net::UdpSocket, sync::Arc, time::Duration};

use sync_core::{
    PeerAddress,
    model::SecretKey,
    testing::{skipped, tap::Tap},
    transport::{
        CloseReason, Connection, DIAL_DEADLINE, Incoming, SyncTransport, TransportBuilder, TransportContext,
        TransportErrorKind, TransportState,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc::Receiver,
    time::timeout,
};
use transport_quic::{QuicBuilder, QuicTransport, STATE_KIND, Windows};

const SOON: Duration = Duration::from_secs(20);

type Accepted = Receiver<Box<dyn Connection>>;

fn loopback() -> QuicBuilder {
    QuicTransport::builder().bind("127.0.0.1:0".parse().unwrap())
}

async fn build(builder: QuicBuilder, state: Option<TransportState>) -> Arc<dyn SyncTransport> {
    let context = TransportContext { node_key: SecretKey::generate(), state };
    Box::new(builder).build(context).await.unwrap()
}

async fn listening(builder: QuicBuilder) -> (Arc<dyn SyncTransport>, PeerAddress, Accepted) {
    let transport = build(builder, None).await;
    let (incoming, accepted) = Incoming::channel();
    let addresses = transport.listen(incoming).await.unwrap();
    (transport, addresses[0].clone(), accepted)
}

/// Sends some bytes there and back: both directions of a new stream work.
async fn echo(from: &dyn Connection, to: &dyn Connection) {
    let mut here = from.open().await.unwrap();
    here.write_all(b"question").await.unwrap();
    here.shutdown().await.unwrap();
    let mut there = to.accept().await.unwrap();
    let mut text = String::new();
    there.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "question");
    there.write_all(b"answer").await.unwrap();
    there.shutdown().await.unwrap();
    text.clear();
    here.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "answer");
}

fn port(address: &PeerAddress) -> u16 {
    address.url().port().unwrap()
}

fn port_is_free(port: u16) -> bool {
    UdpSocket::bind(("127.0.0.1", port)).is_ok()
}

#[tokio::test]
async fn a_connection_carries_streams_both_ways_and_both_ends_share_a_binding() {
    let (server, address, mut accepted) = listening(loopback()).await;
    let client = build(loopback(), None).await;
    let first = client.dial(&address).await.unwrap();
    let second = client.dial(&address).await.unwrap();
    let (first_there, second_there) = (accepted.recv().await.unwrap(), accepted.recv().await.unwrap());
    echo(&*first, &*first_there).await;
    echo(&*first_there, &*first).await;
    assert_eq!(first.channel_binding(), first_there.channel_binding());
    assert_eq!(second.channel_binding(), second_there.channel_binding());
    assert_ne!(first.channel_binding(), second.channel_binding());
    client.close().await;
    server.close().await;
}

#[tokio::test]
async fn b3_stopping_without_connections_frees_the_port_at_once_and_listening_again_takes_it() {
    let (server, address, _accepted) = listening(loopback()).await;
    assert!(!port_is_free(port(&address)));
    server.stop_listening().await.unwrap();
    assert!(port_is_free(port(&address)));
    assert_eq!(server.stop_listening().await.unwrap_err().kind, TransportErrorKind::NotListening);

    let (incoming, mut accepted) = Incoming::channel();
    assert_eq!(server.listen(incoming).await.unwrap(), std::slice::from_ref(&address));
    let (second, _) = Incoming::channel();
    assert_eq!(server.listen(second).await.unwrap_err().kind, TransportErrorKind::AlreadyListening);
    let dialled = server.dial(&address).await.unwrap();
    echo(&*dialled, &*accepted.recv().await.unwrap()).await;
}

#[tokio::test]
async fn an_accepted_connection_outlives_the_listener_and_the_port_is_free_after_it() {
    let (server, address, mut accepted) = listening(loopback()).await;
    let client = build(loopback(), None).await;
    let dialled = client.dial(&address).await.unwrap();
    let there = accepted.recv().await.unwrap();

    server.stop_listening().await.unwrap();
    echo(&*dialled, &*there).await;
    assert_eq!(client.dial(&address).await.unwrap_err().kind, TransportErrorKind::Refused);

    let (incoming, mut accepted) = Incoming::channel();
    assert_eq!(server.listen(incoming).await.unwrap(), std::slice::from_ref(&address));
    let again = client.dial(&address).await.unwrap();
    echo(&*again, &*accepted.recv().await.unwrap()).await;
    echo(&*dialled, &*there).await;

    server.stop_listening().await.unwrap();
    dialled.close(CloseReason::Done);
    again.close(CloseReason::Done);
    timeout(SOON, async {
        while !port_is_free(port(&address)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the last connection has ended");
}

#[tokio::test]
async fn b16_closing_frees_the_port_though_the_application_keeps_connections_and_streams() {
    let (server, address, mut accepted) = listening(loopback()).await;
    let client = build(loopback(), None).await;
    let dialled = client.dial(&address).await.unwrap();
    let there = accepted.recv().await.unwrap();
    let mut stream = dialled.open().await.unwrap();
    stream.write_all(b"x").await.unwrap();
    let mut stream_there = there.accept().await.unwrap();

    timeout(SOON, server.close()).await.unwrap();
    assert!(port_is_free(port(&address)));
    assert_eq!(there.closed().await.kind, TransportErrorKind::Closed);
    let ended = timeout(SOON, dialled.closed()).await.expect("the other end was told");
    assert_eq!(ended.kind, TransportErrorKind::ConnectionLost);
    assert!(stream_there.read_to_end(&mut Vec::new()).await.is_err());
    assert!(stream.read_u8().await.is_err());

    let (incoming, _) = Incoming::channel();
    for kind in [
        server.listen(incoming).await.unwrap_err().kind,
        server.dial(&address).await.unwrap_err().kind,
        server.stop_listening().await.unwrap_err().kind,
    ] {
        assert_eq!(kind, TransportErrorKind::Closed);
    }
    server.close().await;
}

#[tokio::test]
async fn b16_dropping_closes_connections_and_frees_the_port() {
    let (server, address, mut accepted) = listening(loopback()).await;
    let client = build(loopback(), None).await;
    let dialled = client.dial(&address).await.unwrap();
    let there = accepted.recv().await.unwrap();
    let dialled_by_server = {
        let (other, other_address, mut other_accepted) = listening(loopback()).await;
        let dialled = server.dial(&other_address).await.unwrap();
        (other, other_accepted.recv().await.unwrap(), dialled)
    };

    drop(server);
    for connection in [&dialled, &there, &dialled_by_server.1, &dialled_by_server.2] {
        timeout(SOON, connection.closed()).await.expect("every connection ends");
    }
    timeout(SOON, async {
        while !port_is_free(port(&address)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the port is free");
}

#[tokio::test]
async fn b6_state_gives_the_same_port_again_and_two_transports_have_their_own() {
    let (server, address, _accepted) = listening(loopback()).await;
    let state = server.state().unwrap();
    assert_eq!(state.kind, STATE_KIND);
    server.close().await;

    let server = build(loopback(), Some(state.clone())).await;
    let (incoming, _accepted) = Incoming::channel();
    assert_eq!(server.listen(incoming).await.unwrap(), std::slice::from_ref(&address));
    assert_eq!(server.state(), Some(state));

    let (other, other_address, _accepted) = listening(loopback()).await;
    assert_ne!(address, other_address);
    assert_ne!(server.state(), other.state());
}

#[tokio::test]
async fn a_remembered_port_that_is_taken_is_given_up_but_a_demanded_one_is_an_error() {
    let (first, address, _accepted) = listening(loopback()).await;
    let second = build(loopback(), first.state()).await;
    let (incoming, _accepted) = Incoming::channel();
    assert_ne!(second.listen(incoming).await.unwrap(), std::slice::from_ref(&address));

    let demanding = QuicTransport::builder().bind(format!("127.0.0.1:{}", port(&address)).parse().unwrap());
    let (incoming, _accepted) = Incoming::channel();
    let error = build(demanding, None).await.listen(incoming).await.unwrap_err();
    assert_eq!(error.kind, TransportErrorKind::CannotListen);
    assert!(error.to_string().contains(&port(&address).to_string()), "{error}");
}

#[tokio::test]
async fn b6_state_of_another_kind_and_damaged_state_are_mismatches() {
    let good = build(loopback(), None).await.state().unwrap();
    let foreign = TransportState { kind: "iroh/1".into(), ..good.clone() };
    let cut = TransportState { bytes: good.bytes[..good.bytes.len() / 2].to_vec(), ..good.clone() };
    let zeros = TransportState { bytes: vec![0; 40], ..good };
    for state in [foreign, cut, zeros] {
        let context = TransportContext { node_key: SecretKey::generate(), state: Some(state) };
        let error = Box::new(loopback()).build(context).await.unwrap_err();
        assert_eq!(error.kind, TransportErrorKind::StateMismatch, "{error}");
    }
}

#[tokio::test]
async fn b7_a_client_only_transport_listens_without_an_address_and_has_no_state() {
    let client = build(loopback().client_only(), None).await;
    assert!(client.state().is_none());
    let (incoming, _) = Incoming::channel();
    assert!(client.listen(incoming.clone()).await.unwrap().is_empty());
    assert_eq!(client.listen(incoming).await.unwrap_err().kind, TransportErrorKind::AlreadyListening);
    client.stop_listening().await.unwrap();
    let (_server, address, mut accepted) = listening(loopback()).await;
    let dialled = client.dial(&address).await.unwrap();
    echo(&*dialled, &*accepted.recv().await.unwrap()).await;
}

#[tokio::test]
async fn garbage_at_the_port_does_no_harm() {
    let (_server, address, mut accepted) = listening(loopback()).await;
    let client = build(loopback(), None).await;
    let dialled = client.dial(&address).await.unwrap();
    let there = accepted.recv().await.unwrap();
    let noise = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    for round in 0..2000 {
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as u8
        })
        .take(round % 1500)
        .collect();
        noise.send_to(&bytes, ("127.0.0.1", port(&address))).unwrap();
        // A long header of version 1, so that the parser goes further.
        let mut first = vec![0xC0 | (round as u8 & 0x3F), 0, 0, 0, 1];
        first.extend_from_slice(&bytes);
        first.resize(first.len().max(1200), 0);
        noise.send_to(&first, ("127.0.0.1", port(&address))).unwrap();
    }
    echo(&*dialled, &*there).await;
    let another = client.dial(&address).await.unwrap();
    echo(&*another, &*accepted.recv().await.unwrap()).await;
}

#[tokio::test]
async fn b9_a_silent_address_is_a_timeout_within_the_deadline() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address: PeerAddress = format!("quic://{}", silent.local_addr().unwrap()).parse().unwrap();
    let client = build(loopback(), None).await;
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    let error = client.dial(&address).await.unwrap_err();
    assert_eq!(error.kind, TransportErrorKind::TimedOut);
    assert!(begun.elapsed() < DIAL_DEADLINE);
    assert!(error.is_temporary());
    assert!(error.to_string().contains(address.as_str()), "{error}");
}

#[tokio::test]
async fn b16_closing_ends_a_dial_under_way_and_does_not_wait_for_it() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address: PeerAddress = format!("quic://{}", silent.local_addr().unwrap()).parse().unwrap();
    let client = build(loopback(), None).await;
    let dial = tokio::spawn({
        let client = client.clone();
        async move { client.dial(&address).await.unwrap_err().kind }
    });
    // The dial has begun when its first packet is there.
    silent.set_nonblocking(true).unwrap();
    let silent = tokio::net::UdpSocket::from_std(silent).unwrap();
    silent.readable().await.unwrap();
    timeout(SOON, client.close()).await.expect("nothing is left to be told");
    assert_eq!(timeout(SOON, dial).await.unwrap().unwrap(), TransportErrorKind::Closed);
}

#[tokio::test]
async fn b9_a_name_without_an_address_is_unreachable_and_a_foreign_scheme_is_unsupported() {
    let client = build(loopback(), None).await;
    let nowhere = client.dial(&"quic://nowhere.invalid:4433".parse().unwrap()).await.unwrap_err();
    // A machine's own resolver may take longer to say so than a dial may.
    assert!(matches!(nowhere.kind, TransportErrorKind::Unreachable | TransportErrorKind::TimedOut), "{nowhere}");
    let foreign = client.dial(&"https://127.0.0.1:4433".parse().unwrap()).await.unwrap_err();
    assert_eq!(foreign.kind, TransportErrorKind::UnsupportedAddress, "{foreign}");
}

/// `localhost` may resolve to `::1` first, where nobody answers: the second candidate must not wait for it.
#[tokio::test]
async fn b9_a_name_with_several_addresses_is_dialled_at_the_one_that_answers() {
    let (_server, address, mut accepted) = listening(loopback()).await;
    let client = build(loopback(), None).await;
    let by_name = format!("quic://localhost:{}", port(&address)).parse().unwrap();
    let dialled = timeout(SOON, client.dial(&by_name)).await.unwrap().unwrap();
    echo(&*dialled, &*accepted.recv().await.unwrap()).await;
}

#[tokio::test]
async fn b9_a_server_of_another_protocol_is_refused_with_what_it_said() {
    let key = rcgen::generate_simple_self_signed(["other".to_owned()]).unwrap();
    let secret = rustls::pki_types::PrivatePkcs8KeyDer::from(key.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.into()], secret.into())
        .unwrap();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let tls = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    let other = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    let address = format!("quic://{}", other.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move {
        while let Some(arrived) = other.accept().await {
            let _ = arrived.await;
        }
    });
    let error = build(loopback(), None).await.dial(&address).await.unwrap_err();
    assert_eq!(error.kind, TransportErrorKind::Refused, "{error}");
}

#[tokio::test]
async fn one_connection_more_than_allowed_is_refused_and_harms_none() {
    let (_server, address, mut accepted) = listening(loopback().max_connections(2)).await;
    let client = build(loopback(), None).await;
    let first = client.dial(&address).await.unwrap();
    let first_there = accepted.recv().await.unwrap();
    let _second = client.dial(&address).await.unwrap();
    assert_eq!(client.dial(&address).await.unwrap_err().kind, TransportErrorKind::Refused);
    echo(&*first, &*first_there).await;
}

/// Beyond `VALIDATE_FROM` handshakes at a time who dials must come back with a token, unseen by the caller.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_dials_at_once_all_succeed() {
    let (_server, address, mut accepted) = listening(loopback()).await;
    let (pass, mut taken) = tokio::sync::mpsc::unbounded_channel::<Box<dyn Connection>>();
    tokio::spawn(async move {
        while let Some(connection) = accepted.recv().await {
            let _ = pass.send(connection);
        }
    });
    let client = build(loopback(), None).await;
    let mut dials = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (client, address) = (client.clone(), address.clone());
        dials.spawn(async move {
            match client.dial(&address).await {
                // A busy machine may take longer for a hundred of them than one may take.
                Err(error) if error.kind == TransportErrorKind::TimedOut => client.dial(&address).await.unwrap(),
                dialled => dialled.unwrap(),
            }
        });
    }
    let dialled = dials.join_all().await;
    let bindings = dialled.iter().map(|connection| connection.channel_binding());
    let mut wanted: std::collections::HashSet<_> = bindings.collect();
    assert_eq!(wanted.len(), 100);
    // A dial that came too late may have been accepted too.
    let all_are_taken = async {
        while !wanted.is_empty() {
            wanted.remove(&taken.recv().await.unwrap().channel_binding());
        }
    };
    timeout(SOON, all_are_taken).await.unwrap();
}

#[tokio::test]
async fn nobody_takes_connections_so_those_beyond_the_queue_are_closed() {
    let (_server, address, accepted) = listening(loopback()).await;
    let client = build(loopback(), None).await;
    let mut ends = tokio::task::JoinSet::new();
    for _ in 0..=Incoming::CAPACITY {
        let dialled = client.dial(&address).await.unwrap();
        ends.spawn(async move { dialled.closed().await.kind });
    }
    let one = timeout(SOON, ends.join_next()).await.expect("one is closed at once");
    assert_eq!(one.unwrap().unwrap(), TransportErrorKind::ConnectionLost);
    assert_eq!(accepted.len(), Incoming::CAPACITY);
    drop(accepted);
    assert_eq!(client.dial(&address).await.unwrap_err().kind, TransportErrorKind::Refused);
}

#[tokio::test]
async fn unread_streams_hold_up_themselves_only_until_the_connections_window_is_full() {
    let windows = Windows { stream: 64 << 10, connection: 256 << 10 };
    let (_server, address, mut accepted) = listening(loopback().windows(windows)).await;
    let client = build(loopback(), None).await;
    let dialled = client.dial(&address).await.unwrap();
    let there = accepted.recv().await.unwrap();
    let mut unread = Vec::new();
    for _ in 0..3 {
        let mut stream = dialled.open().await.unwrap();
        let fill = stream.write_all(&[7; 4 << 20]);
        assert!(timeout(Duration::from_millis(200), fill).await.is_err(), "nobody reads, so it must not finish");
        unread.push((stream, there.accept().await.unwrap()));
    }
    echo(&*dialled, &*there).await;
}

#[tokio::test]
async fn b13_a_listener_on_every_interface_tells_addresses_that_can_be_dialled_over_both_families() {
    let (_server, address, mut accepted) = listening(QuicTransport::builder()).await;
    let client = build(QuicTransport::builder(), None).await;
    let dialled = client.dial(&address).await.unwrap();
    echo(&*dialled, &*accepted.recv().await.unwrap()).await;
    let v4 = format!("quic://127.0.0.1:{}", port(&address)).parse().unwrap();
    let dialled = client.dial(&v4).await.unwrap();
    echo(&*dialled, &*accepted.recv().await.unwrap()).await;
    if UdpSocket::bind("[::1]:0").is_ok() {
        let v6 = format!("quic://[::1]:{}", port(&address)).parse().unwrap();
        let dialled = client.dial(&v6).await.unwrap();
        echo(&*dialled, &*accepted.recv().await.unwrap()).await;
    } else {
        skipped("this machine has no IPv6 loopback");
    }
}

#[tokio::test]
async fn an_advertised_address_replaces_those_of_the_interfaces() {
    let told: PeerAddress = "quic://hub.example:4433".parse().unwrap();
    let (_server, address, _accepted) = listening(loopback().advertise(told.clone())).await;
    assert_eq!(address, told);
}

/// The story: what a node once said is known to whoever sat on the path. Said again it is an opening like any other, and
/// ends there: it was encrypted for a handshake that is over, and there is no 0-RTT that would take its first words.
#[tokio::test]
async fn b61_an_opening_that_was_recorded_is_no_connection_when_it_is_said_again() {
    let key = SecretKey::generate();
    let build = async |state| {
        let context = TransportContext { node_key: key.clone(), state };
        Box::new(loopback()).build(context).await.unwrap()
    };
    let server = build(None).await;
    let (incoming, mut accepted) = Incoming::channel();
    let address = server.listen(incoming).await.unwrap().remove(0);
    let target = std::net::SocketAddr::from(([127, 0, 0, 1], port(&address)));
    let tap = Tap::udp(target).await.unwrap();
    let client = build(None).await;
    let here = client.dial(&format!("quic://{}", tap.address()).parse().unwrap()).await.unwrap();
    let there = accepted.recv().await.unwrap();
    echo(&*here, &*there).await;
    let opening = tap.said();
    let state = server.state();
    here.close(CloseReason::Done);
    there.closed().await;
    server.close().await;
    drop((here, there, tap, accepted, server));

    // The same node again, with its certificate and its port.
    let server = build(state).await;
    let (incoming, mut accepted) = Incoming::channel();
    assert_eq!(server.listen(incoming).await.unwrap(), std::slice::from_ref(&address));
    let replayer = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut answer = [0; 2048];
    for packet in &opening {
        replayer.send_to(packet, target).await.unwrap();
    }
    timeout(SOON, replayer.recv_from(&mut answer)).await.expect("it is answered as an opening").unwrap();
    for packet in &opening {
        replayer.send_to(packet, target).await.unwrap();
    }
    // The next that is accepted is who dials, and nobody came beside it.
    let here = client.dial(&address).await.unwrap();
    let there = accepted.recv().await.unwrap();
    assert_eq!(here.channel_binding(), there.channel_binding());
    echo(&*here, &*there).await;
    server.close().await;
    assert!(accepted.recv().await.is_none());
}
