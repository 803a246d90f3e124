//! Transports by name: registered and removed at run time, found by the scheme of an address.

use std::sync::Arc;

use crate::{
    address::PeerAddress,
    transport::{Connection, SyncTransport, TransportError, TransportErrorKind},
};

/// A registered transport.
#[derive(Debug, Clone)]
pub(super) struct Registered {
    pub name: String,
    pub transport: Arc<dyn SyncTransport>,
    /// Where, while it listens; a transport that only dials listens nowhere.
    pub listening: Option<Vec<PeerAddress>>,
}

/// The registered transports, in the order of registration: that is their priority.
#[derive(Debug, Default)]
pub(super) struct Transports(pub Vec<Registered>);

/// A transport with its local name.
type Named = (String, Arc<dyn SyncTransport>);

impl Transports {
    pub fn find(&self, name: &str) -> Option<&Registered> {
        self.0.iter().find(|registered| registered.name == name)
    }

    pub fn remove(&mut self, name: &str) -> Option<Registered> {
        let at = self.0.iter().position(|registered| registered.name == name)?;
        Some(self.0.remove(at))
    }

    pub fn names(&self) -> String {
        let names: Vec<_> = self.0.iter().map(|registered| registered.name.as_str()).collect();
        if names.is_empty() { "none".into() } else { names.join(", ") }
    }

    pub fn addresses(&self) -> Vec<PeerAddress> {
        // Round robin over transports, so that a limit on addresses leaves some of each.
        let listening: Vec<_> = self.0.iter().filter_map(|registered| registered.listening.as_ref()).collect();
        let longest = listening.iter().map(|addresses| addresses.len()).max().unwrap_or(0);
        (0..longest).flat_map(|nth| listening.iter().filter_map(move |addresses| addresses.get(nth).cloned())).collect()
    }

    /// The transports that dial addresses of this scheme, best first.
    pub fn route(&self, address: &PeerAddress) -> Result<Vec<Named>, TransportError> {
        let routes: Vec<_> = self
            .0
            .iter()
            .filter(|registered| registered.transport.schemes().contains(&address.scheme()))
            .map(|registered| (registered.name.clone(), registered.transport.clone()))
            .collect();
        if routes.is_empty() {
            let mut known: Vec<_> =
                self.0.iter().flat_map(|registered| registered.transport.schemes().iter().copied()).collect();
            known.sort_unstable();
            known.dedup();
            let known = if known.is_empty() { "none".into() } else { known.join(", ") };
            let context =
                format!("no registered transport dials `{}:` of {address}; known are: {known}", address.scheme());
            return Err(TransportError::new(TransportErrorKind::UnknownScheme, context));
        }
        Ok(routes)
    }
}

/// Dials over each route in turn until one answers.
pub(super) async fn dial(
    routes: Vec<Named>,
    address: &PeerAddress,
) -> Result<(String, Box<dyn Connection>), TransportError> {
    let mut last = None;
    for (name, transport) in routes {
        match tokio::time::timeout(crate::transport::DIAL_DEADLINE, transport.dial(address)).await {
            Ok(Ok(connection)) => return Ok((name, connection)),
            Ok(Err(error)) => last = Some(error),
            Err(_) => {
                let context = format!("{address} does not answer; check that the node there is running");
                last = Some(TransportError::new(TransportErrorKind::TimedOut, context));
            }
        }
    }
    Err(last.expect("there is at least one route"))
}
