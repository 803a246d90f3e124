//! `http://host:port/path` and `https://host/path`, and which addresses a listener advertises.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sync_core::{
    PeerAddress,
    transport::{TransportError, TransportErrorKind},
};
use url::Url;

use crate::limits::MAX_ADVERTISED;

/// The schemes of this transport.
pub(crate) const SCHEMES: &[&str] = &["http", "https"];

/// Where the WebSocket is, below an address.
pub(crate) const SYNC_PATH: &str = "/v1/sync";

/// The URL of the WebSocket of the node at `address`.
pub(crate) fn sync_url(address: &PeerAddress) -> Result<Url, TransportError> {
    if !SCHEMES.contains(&address.scheme()) {
        return Err(unsupported(address, "its scheme is neither `http` nor `https`"));
    }
    let mut url = address.url().clone();
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err(unsupported(address, "there is more in it than host, port and path"));
    }
    if url.port() == Some(0) {
        return Err(unsupported(address, "port 0 cannot be dialled"));
    }
    url.set_path(&format!("{}{SYNC_PATH}", address.url().path().trim_end_matches('/')));
    Ok(url)
}

fn unsupported(address: &PeerAddress, why: &str) -> TransportError {
    TransportError::new(
        TransportErrorKind::UnsupportedAddress,
        format!("dialling {address}: {why}; write it as https://host/path or http://192.0.2.1:8080"),
    )
}

/// The addresses at which a listener bound to `local` can be dialled: itself, or those of the
/// interfaces when it is bound to all of them.
pub(crate) fn advertised(scheme: &str, local: SocketAddr) -> Vec<PeerAddress> {
    let ips = match local.ip().is_unspecified() {
        false => vec![local.ip()],
        true => choose(&interfaces(), local.is_ipv6()),
    };
    let text = |ip| format!("{scheme}://{}", SocketAddr::new(ip, local.port()));
    ips.into_iter().map(|ip| text(ip).parse().expect("a socket address is a host and a port")).collect()
}

fn interfaces() -> Vec<IpAddr> {
    match if_addrs::get_if_addrs() {
        Ok(interfaces) => interfaces.iter().map(|interface| interface.ip()).collect(),
        Err(error) => {
            tracing::warn!(%error, "cannot list the interfaces; advertising loopback only");
            Vec::new()
        }
    }
}

/// The addresses worth telling, best first: IPv4, then IPv6, then loopback, which reaches other
/// nodes on this machine. Link-local IPv6 needs a zone that means nothing elsewhere, so it is left out.
fn choose(interfaces: &[IpAddr], dual_stack: bool) -> Vec<IpAddr> {
    let mut chosen: Vec<IpAddr> = interfaces
        .iter()
        .copied()
        .filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
        .filter(|ip| match ip {
            IpAddr::V4(ip) => !ip.is_link_local(),
            IpAddr::V6(ip) => dual_stack && !ip.is_unicast_link_local(),
        })
        .collect();
    chosen.sort_by_key(IpAddr::is_ipv6);
    chosen.dedup();
    chosen.truncate(MAX_ADVERTISED - 1);
    let only_v6 = interfaces.iter().all(IpAddr::is_ipv6) && !interfaces.is_empty() && dual_stack;
    chosen.push(if only_v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() });
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Result<String, TransportErrorKind> {
        sync_url(&text.parse().unwrap()).map(|url| url.to_string()).map_err(|error| error.kind)
    }

    #[test]
    fn the_websocket_is_below_the_address() {
        assert_eq!(url("http://192.0.2.1:8080").unwrap(), "http://192.0.2.1:8080/v1/sync");
        assert_eq!(url("https://hub.example/notes").unwrap(), "https://hub.example/notes/v1/sync");
        assert_eq!(url("https://hub.example/notes/").unwrap(), "https://hub.example/notes/v1/sync");
        assert_eq!(url("http://[2001:db8::1]:80/").unwrap(), "http://[2001:db8::1]/v1/sync");
    }

    #[test]
    fn an_address_that_says_more_than_host_port_and_path_is_refused() {
        for text in ["ftp://a", "http://a/?b=c", "http://a/#b", "http://me@a/", "http://me:secret@a/", "http://a:0/"] {
            assert_eq!(url(text), Err(TransportErrorKind::UnsupportedAddress), "{text}");
        }
    }

    #[test]
    fn interfaces_are_told_in_order_with_loopback_last() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let all = [ip("::1"), ip("127.0.0.1"), ip("2001:db8::1"), ip("fe80::1"), ip("192.0.2.1")];
        assert_eq!(choose(&all, true), [ip("192.0.2.1"), ip("2001:db8::1"), ip("127.0.0.1")]);
        assert_eq!(choose(&all, false), [ip("192.0.2.1"), ip("127.0.0.1")]);
        assert_eq!(choose(&[], true), [ip("127.0.0.1")]);
        assert_eq!(choose(&[ip("::1")], true), [ip("::1")]);
        let many: Vec<IpAddr> = (1..20).map(|last| IpAddr::from([10, 0, 0, last])).collect();
        assert_eq!(choose(&many, true).len(), MAX_ADVERTISED);
    }
}
