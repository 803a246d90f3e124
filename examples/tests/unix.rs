//! The custom transport keeps the contract of all transports.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    any::Any,
    os::unix::net::UnixListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use examples::unix::UnixTransport;
use sync_core::{
    PeerAddress,
    testing::transport_suite::{SilentWay, TransportFactory},
    transport::SyncTransport,
};

struct Sockets {
    dir: tempfile::TempDir,
    next: AtomicUsize,
}

impl Sockets {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), next: AtomicUsize::new(0) }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join(self.next.fetch_add(1, Ordering::SeqCst).to_string())
    }
}

#[async_trait]
impl TransportFactory for Sockets {
    async fn transport(&self) -> Arc<dyn SyncTransport> {
        Arc::new(UnixTransport::new(self.path()))
    }

    async fn dead_addresses(&self) -> Vec<(PeerAddress, Box<dyn Any + Send>)> {
        let silent = self.path();
        let listener = UnixListener::bind(&silent).unwrap();
        let address = |path: &std::path::Path| format!("unix:{}", path.display()).parse().unwrap();
        vec![(address(&self.path()), Box::new(())), (address(&silent), Box::new(listener))]
    }

    async fn silent_way(&self, _address: &PeerAddress) -> Option<Box<dyn SilentWay>> {
        // Both ends are on one machine: the system tells at once when one is gone.
        None
    }
}

mod b15_conformance {
    sync_core::transport_suite!(super::Sockets::new());
}
