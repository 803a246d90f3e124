//! TLS and QUIC settings, the same for all connections of a transport.

use std::sync::Arc;

use quinn::{
    ClientConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt,
    congestion::CubicConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error as TlsError, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls13_signature},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    version::TLS13,
};

use crate::limits;

/// The application protocol that both ends must name in the TLS handshake.
pub const ALPN: &[u8] = b"syncline/1";

/// The name in the certificate and in the dialler's greeting: always the same, so that a dial
/// does not tell the network which host name was meant.
pub(crate) const SERVER_NAME: &str = "syncline";

/// How many bytes the other end may send before the application has read them.
///
/// A stream that nobody reads holds up to `stream` bytes; all streams of a connection together
/// at most `connection`. So `connection / stream` unread streams can be full before they
/// hold up the others, and throughput is at most `stream` per round trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Bytes per stream.
    pub stream: u32,
    /// Bytes per connection.
    pub connection: u32,
}

impl Default for Windows {
    /// 2 MiB and 32 MiB: 100 MB/s at 20 ms, and sixteen unread streams.
    fn default() -> Self {
        Self { stream: 2 << 20, connection: 32 << 20 }
    }
}

/// What quinn wants to know, made once.
#[derive(Clone)]
pub(crate) struct QuicConfig {
    pub client: ClientConfig,
    pub server: ServerConfig,
    pub endpoint: EndpointConfig,
}

impl QuicConfig {
    /// The settings with this certificate key (PKCS#8).
    pub fn new(key: &rcgen::KeyPair, windows: Windows) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let provider = Arc::new(ring::default_provider());
        let transport = Arc::new(transport_config(windows));
        let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client_tls(provider.clone())?)?));
        client.transport_config(transport.clone());
        let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server_tls(provider, key)?)?));
        server
            .transport_config(transport)
            .max_incoming(limits::MAX_QUEUED)
            .incoming_buffer_size(limits::MAX_QUEUED_BYTES)
            .incoming_buffer_size_total(limits::MAX_QUEUED_BYTES_TOTAL);
        Ok(Self { client, server, endpoint: endpoint_config() })
    }
}

fn endpoint_config() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(limits::MAX_DATAGRAM).expect("it is between 1,200 and 65,527");
    config
}

fn mtu_discovery() -> MtuDiscoveryConfig {
    let mut config = MtuDiscoveryConfig::default();
    config.upper_bound(limits::MAX_DATAGRAM);
    config
}

fn congestion() -> CubicConfig {
    let mut config = CubicConfig::default();
    config.initial_window(limits::INITIAL_WINDOW);
    config
}

fn transport_config(windows: Windows) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(limits::MAX_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(windows.stream))
        .receive_window(VarInt::from_u32(windows.connection))
        .send_window(u64::from(windows.stream) * 4)
        .keep_alive_interval(Some(limits::KEEP_ALIVE))
        .max_idle_timeout(Some(IdleTimeout::try_from(limits::IDLE_TIMEOUT).expect("25 s fit 62 bits of ms")))
        .congestion_controller_factory(Arc::new(congestion()))
        .mtu_discovery_config(Some(mtu_discovery()));
    config
}

fn client_tls(provider: Arc<CryptoProvider>) -> Result<rustls::ClientConfig, TlsError> {
    let mut config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn server_tls(
    provider: Arc<CryptoProvider>,
    key: &rcgen::KeyPair,
) -> Result<rustls::ServerConfig, Box<dyn std::error::Error + Send + Sync>> {
    let certificate = rcgen::CertificateParams::new([SERVER_NAME.to_owned()])?.self_signed(key)?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.into()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Accepts any certificate whose owner is at the other end.
///
/// The certificate says nothing about who that is: the handshake above proves it, over the
/// exporter of this very TLS session. The signature of the TLS handshake is checked nevertheless, so that
/// the session is what TLS 1.3 promises: keys shared with the holder of that certificate's key and nobody else.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(TlsError::General("QUIC has TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}
