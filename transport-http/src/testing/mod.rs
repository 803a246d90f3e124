//! Fuzz targets of the HTTP side, and a node that answers REST (feature `testing`).
//!
//! Both targets hold whatever the bytes are; `fuzz/` explores them, and `tests/fuzz.rs` replays their corpora.
//!
//! | target | what it is given |
//! |---|---|
//! | [`requests`] | requests, to the routes without a socket: who may see what, and that answers are what they say |
//! | [`connections`] | bytes, in pieces, to an HTTP connection: requests, upgrades, WebSocket frames, garbage |
//!
//! What they may hold is [`REQUESTS`] and [`CONNECTIONS`].

mod connections;
pub mod node;
mod requests;

use std::{future::Future, sync::Arc};

use axum::Router;
use sync_core::{
    model::{PeerId, SecretKey},
    testing::fuzz::Bound,
    transport::{Connection, Incoming},
};
use tokio::sync::mpsc;

pub use connections::connections;
pub use node::Node;
pub use requests::requests;

use crate::hub::{self, Hub};

/// What [`requests`] may hold.
pub const REQUESTS: Bound = Bound::STRICT;

/// What [`connections`] may hold: values of 300,000 bytes come back for a request of 80, and a WebSocket has buffers of some
/// 200 KiB.
pub const CONNECTIONS: Bound = Bound { times: 4, kib: 2_048 };

/// WebSockets at a time.
const PLACES: usize = 4;

/// The routes of a [`Node`] that listens, on a runtime of this thread alone: no socket, no other thread.
struct Server {
    runtime: tokio::runtime::Runtime,
    hub: Arc<Hub>,
    router: Router,
    node: Arc<Node>,
    accepted: mpsc::Receiver<Box<dyn Connection>>,
}

impl Server {
    fn new() -> Self {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime of one thread");
        let (hub, node) = (Arc::<Hub>::default(), Arc::new(Node::new()));
        hub.serve(node.clone());
        hub.start(PeerId(SecretKey::from_bytes([1; 32]).public()), PLACES);
        let (incoming, accepted) = Incoming::channel();
        hub.set_incoming(Some(incoming));
        let router = hub::router(&hub);
        Self { runtime, hub, router, node, accepted }
    }

    fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }
}

thread_local! {
    static SERVER: std::cell::RefCell<Server> = std::cell::RefCell::new(Server::new());
}
