//! TLS by rustls: what a dialler trusts, and what a server shows.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use sync_core::transport::{TransportError, TransportErrorKind};

/// A server's certificates and key, in PEM.
#[derive(Clone)]
pub(crate) struct Identity {
    pub certificates: Vec<u8>,
    pub key: Vec<u8>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity")
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Trusts the system's certificates and those of `extra`, each in PEM.
pub(crate) fn client(extra: &[Vec<u8>]) -> Result<ClientConfig, TransportError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    if !system.errors.is_empty() {
        tracing::debug!(errors = ?system.errors, "some of the system's certificates cannot be read");
    }
    roots.add_parsable_certificates(system.certs);
    for certificate in extra.iter().flat_map(|pem| CertificateDer::pem_slice_iter(pem)) {
        let certificate = certificate.map_err(|error| unusable("a root certificate", error))?;
        roots.add(certificate).map_err(|error| unusable("a root certificate", error))?;
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable("TLS", error))?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    // A WebSocket over HTTP/1.1 is all that is asked for.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Shows `identity`.
pub(crate) fn server(identity: &Identity) -> Result<Arc<ServerConfig>, TransportError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&identity.certificates)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable("the server's certificate", error))?;
    let key =
        PrivateKeyDer::from_pem_slice(&identity.key).map_err(|error| unusable("the server's private key", error))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable("TLS", error))?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(|error| unusable("the server's certificate and key", error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn unusable(what: &str, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> TransportError {
    let context =
        format!("preparing TLS: {what} cannot be used; it must be PEM, and certificate and key must belong together");
    TransportError::because(TransportErrorKind::CannotListen, context, cause)
}
