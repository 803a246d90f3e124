//! Raw streams on loopback, both ends in this process: what a transport can carry at best, and how soon.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Instant,
};

use futures_util::{SinkExt, StreamExt};
use iroh::endpoint::{Endpoint, PortmapperConfig, presets};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::tungstenite::Message;
use transport_quic::limits;

use crate::{
    Result,
    child::{self, Side},
};

const CHUNK: usize = 256 << 10;

const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

pub async fn stream(mebibytes: u64, kind: String) -> Result<()> {
    let len = mebibytes << 20;
    while contest::next_round().is_some() {
        let seconds = match kind.as_str() {
            "quic" => quic(len, Settings::Default).await?,
            "quic-ours" => quic(len, Settings::Ours).await?,
            "iroh" => iroh(len).await?,
            "websocket" => websocket(len).await?,
            other => return Err(format!("no such stream: {other}").into()),
        };
        contest::report(&[("seconds", seconds), ("mb_per_s", len as f64 / 1e6 / seconds)]);
    }
    Ok(())
}

/// What quinn is set to.
#[derive(Clone, Copy, PartialEq)]
pub enum Settings {
    /// Its defaults.
    Default,
    /// What transport-quic sets: the windows, the largest datagram, the sockets' buffers, keep-alives.
    Ours,
}

fn transport(settings: Settings) -> Result<Arc<quinn::TransportConfig>> {
    let mut config = quinn::TransportConfig::default();
    config.max_concurrent_bidi_streams(limits::MAX_STREAMS.into());
    if settings == Settings::Ours {
        let windows = transport_quic::Windows::default();
        let mut discovery = quinn::MtuDiscoveryConfig::default();
        discovery.upper_bound(limits::MAX_DATAGRAM);
        config
            .stream_receive_window(windows.stream.into())
            .receive_window(windows.connection.into())
            .send_window(u64::from(windows.stream) * 4)
            .keep_alive_interval(Some(limits::KEEP_ALIVE))
            .mtu_discovery_config(Some(discovery));
    }
    Ok(Arc::new(config))
}

fn endpoint(settings: Settings, server: Option<quinn::ServerConfig>) -> Result<quinn::Endpoint> {
    let mut config = quinn::EndpointConfig::default();
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    if settings == Settings::Ours {
        config.max_udp_payload_size(limits::MAX_DATAGRAM)?;
        let buffers = socket2::SockRef::from(&socket);
        buffers.set_recv_buffer_size(limits::SOCKET_BUFFER)?;
        buffers.set_send_buffer_size(limits::SOCKET_BUFFER)?;
    }
    Ok(quinn::Endpoint::new(config, server, socket, Arc::new(quinn::TokioRuntime))?)
}

/// An endpoint that accepts, and the certificate by which others know it.
fn listener(settings: Settings) -> Result<(quinn::Endpoint, CertificateDer<'static>)> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let certificate = made.cert.der().clone();
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(VERSIONS)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    server.transport_config(transport(settings)?);
    Ok((endpoint(settings, Some(server))?, certificate))
}

fn client(settings: Settings, certificate: CertificateDer<'static>) -> Result<quinn::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate)?;
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(VERSIONS)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    client.transport_config(transport(settings)?);
    Ok(client)
}

async fn quic(len: u64, settings: Settings) -> Result<f64> {
    let (there, certificate) = listener(settings)?;
    let (here, client) = (endpoint(settings, None)?, client(settings, certificate)?);
    let address = there.local_addr()?;
    let reader = tokio::spawn(async move {
        let connection = there.accept().await.ok_or("the endpoint ended")?.await?;
        let (_, mut stream) = connection.accept_bi().await?;
        drain(&mut stream).await
    });
    let connection = here.connect_with(client, address, "localhost")?.await?;
    let started = Instant::now();
    let (mut stream, _keep) = connection.open_bi().await?;
    fill(&mut stream, len).await?;
    check(len, reader.await??)?;
    Ok(started.elapsed().as_secs_f64())
}

const SMALL: usize = 64;

/// Answers what comes with the same.
async fn echo_all(endpoint: quinn::Endpoint) -> Result<()> {
    while let Some(incoming) = endpoint.accept().await {
        let connection = incoming.await?;
        tokio::spawn(async move {
            let (mut back, mut stream) = connection.accept_bi().await?;
            let mut buffer = [0; SMALL];
            while stream.read_exact(&mut buffer).await.is_ok() {
                back.write_all(&buffer).await?;
            }
            Result::Ok(())
        });
    }
    Ok(())
}

async fn round_trip(out: &mut quinn::SendStream, back: &mut quinn::RecvStream) -> Result<()> {
    out.write_all(&[7; SMALL]).await?;
    Ok(back.read_exact(&mut [0; SMALL]).await?)
}

/// 64 bytes there and back over quinn: on an open stream, and on a connection that must be made first.
pub async fn echo() -> Result<()> {
    let (there, certificate) = listener(Settings::Ours)?;
    let (here, client) = (endpoint(Settings::Ours, None)?, client(Settings::Ours, certificate)?);
    let address = there.local_addr()?;
    tokio::spawn(echo_all(there));
    let connection = here.connect_with(client.clone(), address, "localhost")?.await?;
    let (mut out, mut back) = connection.open_bi().await?;
    while contest::next_round().is_some() {
        let (mut times, mut dials) = (Vec::new(), Vec::new());
        for _ in 0..2_000 {
            let started = Instant::now();
            round_trip(&mut out, &mut back).await?;
            times.push(started.elapsed().as_secs_f64());
        }
        for _ in 0..50 {
            let started = Instant::now();
            let connection = here.connect_with(client.clone(), address, "localhost")?.await?;
            let (mut out, mut back) = connection.open_bi().await?;
            round_trip(&mut out, &mut back).await?;
            dials.push(started.elapsed().as_secs_f64());
            connection.close(0u32.into(), b"");
        }
        let (median, p99) = contest::median_and_p99(&mut times);
        let (dial, _) = contest::median_and_p99(&mut dials);
        contest::report(&[("seconds", median), ("p99_s", p99), ("dial_s", dial)]);
    }
    Ok(())
}

/// What an entry and its proof take, about.
const NOTICE: usize = 256;

/// `peers` connections from one other process; a small message to each, until all of them have said that it came.
/// Nothing is decoded, verified or kept: what quinn and the kernel alone cost a hub.
pub async fn fan(peers: u64) -> Result<()> {
    let (endpoint, certificate) = listener(Settings::Ours)?;
    let alone = contest::memory_mb("VmRSS");
    let address = endpoint.local_addr()?.to_string();
    let hex: String = certificate.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut others = Side::start(["fan-in", &peers.to_string(), &address, &hex])?;
    let mut streams = Vec::new();
    for _ in 0..peers {
        let connection = endpoint.accept().await.ok_or("the endpoint ended")?.await?;
        let (out, mut back) = connection.accept_bi().await?;
        back.read_exact(&mut [0]).await?;
        streams.push((connection, out, back));
    }
    others.figures().await?;
    while contest::next_round().is_some() {
        let started = Instant::now();
        for (_, out, _) in &mut streams {
            out.write_all(&[7; NOTICE]).await?;
        }
        for (_, _, back) in &mut streams {
            back.read_exact(&mut [0]).await?;
        }
        let seconds = started.elapsed().as_secs_f64();
        let kilobytes = (contest::memory_mb("VmRSS") - alone) * 1000.0 / peers as f64;
        contest::report(&[("seconds", seconds), ("kb_per_peer", kilobytes)]);
    }
    others.end().await
}

/// The other ends of [`fan`].
pub async fn fan_in(peers: u64, address: SocketAddr, certificate: String) -> Result<()> {
    let bytes = (0..certificate.len()).step_by(2).map(|at| u8::from_str_radix(&certificate[at..at + 2], 16));
    let client = client(Settings::Ours, bytes.collect::<std::result::Result<Vec<_>, _>>()?.into())?;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..peers {
        // A socket each, as peers on other machines have.
        let here = endpoint(Settings::Ours, None)?;
        let connection = here.connect_with(client.clone(), address, "localhost")?.await?;
        let (mut out, mut back) = connection.open_bi().await?;
        out.write_all(&[0]).await?;
        tasks.spawn(async move {
            let _here = here;
            while back.read_exact(&mut [0; NOTICE]).await.is_ok() {
                out.write_all(&[0]).await?;
            }
            Result::Ok(())
        });
    }
    child::say(&[("connected", peers as f64)]);
    child::until_the_end().await;
    Ok(())
}

/// iroh with its defaults, no relay, no lookup.
async fn iroh(len: u64) -> Result<f64> {
    let endpoint = || -> Result<_> {
        Ok(Endpoint::builder(presets::Minimal)
            .clear_ip_transports()
            .bind_addr("127.0.0.1:0")?
            .portmapper_config(PortmapperConfig::Disabled)
            .alpns(vec![b"bench".to_vec()]))
    };
    let (here, there) = (endpoint()?.bind().await?, endpoint()?.bind().await?);
    let address = there.addr();
    let accepting = there.clone();
    let reader = tokio::spawn(async move {
        let connection = accepting.accept().await.ok_or("the endpoint ended")?.await?;
        let (_, mut stream) = connection.accept_bi().await?;
        drain(&mut stream).await
    });
    let connection = here.connect(address, b"bench").await?;
    let started = Instant::now();
    let (mut stream, _keep) = connection.open_bi().await?;
    fill(&mut stream, len).await?;
    check(len, reader.await??)?;
    let seconds = started.elapsed().as_secs_f64();
    here.close().await;
    there.close().await;
    Ok(seconds)
}

/// A WebSocket over TCP: neither encrypted nor divided into streams.
async fn websocket(len: u64) -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let reader = tokio::spawn(async move {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let mut socket = tokio_tungstenite::accept_async(socket).await?;
        let mut received = 0;
        while let Some(message) = socket.next().await {
            match message? {
                Message::Binary(bytes) => received += bytes.len() as u64,
                _ => break,
            }
        }
        Result::Ok(received)
    });
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let (mut socket, _) = tokio_tungstenite::client_async(format!("ws://{address}/"), socket).await?;
    let started = Instant::now();
    let chunk = tokio_tungstenite::tungstenite::Bytes::from(vec![7; 64 << 10]);
    for _ in 0..len / chunk.len() as u64 {
        socket.send(Message::Binary(chunk.clone())).await?;
    }
    socket.send(Message::Close(None)).await?;
    check(len, reader.await??)?;
    Ok(started.elapsed().as_secs_f64())
}

fn check(sent: u64, received: u64) -> Result<()> {
    if sent == received { Ok(()) } else { Err(format!("{received} of {sent} bytes came").into()) }
}

async fn fill(stream: &mut (impl AsyncWrite + Unpin), len: u64) -> Result<()> {
    let chunk = vec![7; CHUNK];
    let mut left = len;
    while left > 0 {
        let next = left.min(CHUNK as u64);
        stream.write_all(&chunk[..next as usize]).await?;
        left -= next;
    }
    Ok(stream.shutdown().await?)
}

async fn drain(stream: &mut (impl AsyncRead + Unpin)) -> Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut received = 0;
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(received),
            read => received += read as u64,
        }
    }
}
