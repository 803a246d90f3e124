//! What several tests need.
#![allow(dead_code, clippy::unwrap_used)]

use std::{
    any::Any,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use sync_core::{
    PeerAddress,
    model::SecretKey,
    testing::{
        proxy::TcpProxy,
        transport_suite::{SilentWay, TransportFactory},
    },
    transport::{Connection, Incoming, SyncTransport, TransportContext, TransportState},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};
use transport_http::{HttpBuilder, HttpTransport};

/// A context of node `number`.
pub fn context(number: u8, state: Option<TransportState>) -> TransportContext {
    TransportContext { node_key: SecretKey::from_bytes([number; 32]), state }
}

/// A transport of node 1 on loopback.
pub fn build(builder: HttpBuilder) -> HttpTransport {
    builder.bind("127.0.0.1:0".parse().unwrap()).build_transport(&context(1, None)).unwrap()
}

/// A plain HTTP client, as a person would use it.
pub fn client() -> reqwest::Client {
    // Whoever was first has set the same.
    rustls::crypto::ring::default_provider().install_default().ok();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// The same, and it trusts a certificate.
pub fn client_trusting(tls: &Certificate) -> reqwest::Client {
    rustls::crypto::ring::default_provider().install_default().ok();
    let certificate = reqwest::Certificate::from_pem(tls.certificate.as_bytes()).unwrap();
    reqwest::Client::builder().no_proxy().add_root_certificate(certificate).build().unwrap()
}

/// A self-signed certificate of this machine, and its key, in PEM.
pub struct Certificate {
    pub certificate: String,
    pub key: String,
}

impl Certificate {
    pub fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        Self { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }
}

/// Starts to listen.
pub async fn listen(transport: &dyn SyncTransport) -> (Vec<PeerAddress>, mpsc::Receiver<Box<dyn Connection>>) {
    let (incoming, accepted) = Incoming::channel();
    (transport.listen(incoming).await.unwrap(), accepted)
}

/// Sends a megabyte there and back over one stream of a fresh connection from `dialler` to `address`.
pub async fn echo(
    dialler: &dyn SyncTransport,
    address: &PeerAddress,
    accepted: &mut mpsc::Receiver<Box<dyn Connection>>,
) {
    let here = dialler.dial(address).await.unwrap();
    let there = accepted.recv().await.unwrap();
    assert_eq!(here.channel_binding(), there.channel_binding());
    let sent: Vec<u8> = (0..1_000_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
    let echo = tokio::spawn(async move {
        let stream = there.accept().await.unwrap();
        let (mut read, mut write) = (stream.read, stream.write);
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        write.shutdown().await.unwrap();
        there
    });
    let stream = here.open().await.unwrap();
    let (mut read, mut write, mut back) = (stream.read, stream.write, Vec::new());
    let all = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let (_, read) = tokio::join!(all, read.read_to_end(&mut back));
    read.unwrap();
    assert!(back == sent, "{} of {} bytes came back", back.len(), sent.len());
    echo.await.unwrap();
}

/// The socket that an address on loopback names.
pub fn socket(address: &PeerAddress) -> SocketAddr {
    address.url().socket_addrs(|| None).unwrap()[0]
}

/// A port where nobody listens.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// `future`, which must not take long.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it takes too long")
}

/// HTTP transports on loopback, with TLS or without.
pub struct HttpFactory {
    tls: Option<Certificate>,
}

impl HttpFactory {
    pub fn plain() -> Self {
        Self { tls: None }
    }

    pub fn tls() -> Self {
        Self { tls: Some(Certificate::new()) }
    }

    fn at(&self, socket: SocketAddr) -> PeerAddress {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{socket}").parse().unwrap()
    }
}

#[async_trait]
impl TransportFactory for HttpFactory {
    async fn transport(&self) -> Arc<dyn SyncTransport> {
        let builder = match &self.tls {
            None => HttpTransport::builder(),
            Some(tls) => {
                HttpTransport::builder().tls(&*tls.certificate, &*tls.key).root_certificates(&*tls.certificate)
            }
        };
        Arc::new(build(builder))
    }

    async fn dead_addresses(&self) -> Vec<(PeerAddress, Box<dyn Any + Send>)> {
        let refusing = SocketAddr::from(([127, 0, 0, 1], free_port()));
        // The kernel accepts for it and nobody ever answers.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap();
        vec![(self.at(refusing), Box::new(())), (self.at(address), Box::new(silent))]
    }

    async fn silent_way(&self, address: &PeerAddress) -> Option<Box<dyn SilentWay>> {
        let proxy = TcpProxy::start(socket(address)).await.unwrap();
        Some(Box::new(Way { address: self.at(proxy.address()), proxy }))
    }
}

struct Way {
    address: PeerAddress,
    proxy: TcpProxy,
}

impl SilentWay for Way {
    fn address(&self) -> PeerAddress {
        self.address.clone()
    }

    fn fall_silent(&mut self) {
        self.proxy.freeze();
    }
}
