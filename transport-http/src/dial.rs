//! Dialling: a request to become a WebSocket, and what became of it.

use reqwest::{Client, Response, StatusCode, header, redirect};
use sync_core::{
    PeerAddress,
    transport::{
        Connection, TransportError, TransportErrorKind,
        upgrade::{Role, upgrade},
    },
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::handshake::{client::generate_key, derive_accept_key},
    tungstenite::protocol,
};

use crate::{
    address::sync_url,
    error::request_failed,
    limits::{CONNECT_TIMEOUT, DIAL_TIMEOUT},
    tls,
    websocket::{ClientPipe, config},
};

/// The client of a transport, that trusts the system's certificates and those of `roots`.
pub(crate) fn client(roots: &[Vec<u8>]) -> Result<Client, TransportError> {
    Client::builder()
        .tls_backend_preconfigured(tls::client(roots)?)
        .http1_only()
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        // Every connection becomes a WebSocket: there is nothing to pool.
        .pool_max_idle_per_host(0)
        // An address means the node that it names, not whom that one names.
        .redirect(redirect::Policy::none())
        .build()
        .map_err(|error| TransportError::because(TransportErrorKind::CannotListen, "preparing the HTTP client", error))
}

/// Dials `address`, within [`DIAL_TIMEOUT`].
pub(crate) async fn dial(client: &Client, address: &PeerAddress) -> Result<Box<dyn Connection>, TransportError> {
    match tokio::time::timeout(DIAL_TIMEOUT, attempt(client, address)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(TransportError::new(
            TransportErrorKind::TimedOut,
            format!("dialling {address}: it does not answer within {} s", DIAL_TIMEOUT.as_secs()),
        )),
    }
}

async fn attempt(client: &Client, address: &PeerAddress) -> Result<Box<dyn Connection>, TransportError> {
    let url = sync_url(address)?;
    let key = generate_key();
    let request = client
        .get(url)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, &key);
    let response = request.send().await.map_err(|error| request_failed(address, error))?;
    check(address, &key, &response)?;
    let upgraded = response.upgrade().await.map_err(|error| request_failed(address, error))?;
    let socket = WebSocketStream::from_raw_socket(upgraded, protocol::Role::Client, Some(config())).await;
    upgrade(ClientPipe::new(socket), Role::Dialer)
        .await
        .map_err(|error| TransportError { context: format!("dialling {address}: {}", error.context), ..error })
}

/// Whether the answer is that of a WebSocket server, and to this very request (RFC 6455, section 4.1): a cache or a
/// confused proxy is not taken for a peer.
fn check(address: &PeerAddress, key: &str, response: &Response) -> Result<(), TransportError> {
    let refused = |why: String| {
        let context = format!("dialling {address}: {why}");
        Err(TransportError::new(TransportErrorKind::Refused, context))
    };
    match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => {}
        StatusCode::SERVICE_UNAVAILABLE => {
            return refused("the node there takes no connections at the moment; try again later".into());
        }
        status => {
            return refused(format!("it answers {status} and not with a WebSocket; is the path of the address right?"));
        }
    }
    let accept = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
    if accept.map(|accept| accept.as_bytes()) != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
        return refused("its answer is not to this request; is a cache in between?".into());
    }
    let upgrade = response.headers().get(header::UPGRADE);
    if !upgrade.is_some_and(|upgrade| upgrade.as_bytes().eq_ignore_ascii_case(b"websocket")) {
        return refused("it switches to another protocol than WebSocket".into());
    }
    Ok(())
}
