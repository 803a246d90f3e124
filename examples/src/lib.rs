//! Small programs, each showing one thing that an application does with Syncline. Run one with
//! `cargo run -p examples --bin two_nodes`; each checks its own result and ends by itself.
//!
//! | program | what it shows |
//! |---|---|
//! | `two_nodes` | two nodes in one program, a ticket, changes that arrive live |
//! | `transports_at_run_time` | transports registered, listed and removed while nodes talk |
//! | `swap_storage` | the store picked by name from a URL, and a store of one's own |
//! | `route_by_address` | the address's scheme picks the transport |
//! | `custom_transport` | the transport of [`unix`], a page long, at work |
//! | `custom_store` | the store of [`custom_store`], a page over SQLite, at work |
//! | `hub` | one node that everybody reaches by other means, and all become equal |
//! | `mount_axum` | beside the routes of an existing axum application |
//! | `mount_iroh` | on the endpoint and router of an existing iroh application |
//! | `counter` | values that merge: every author has a key of its own |

pub mod custom_store;
pub mod unix;

use sync_core::{
    PeerAddress,
    manager::Replica,
    model::{Op, Value},
};

/// What every program returns: any error ends it with its text.
pub type Outcome = Result<(), Box<dyn std::error::Error>>;

/// An address on this machine with a port that the system picks.
pub fn loopback() -> std::net::SocketAddr {
    std::net::SocketAddr::from(([127, 0, 0, 1], 0))
}

/// The text at a key, or nothing.
pub async fn text(replica: &Replica, key: &str) -> Option<String> {
    let entry = replica.get(key).await.ok()??;
    match entry.entry.op {
        Op::Put { value: Value::Inline(bytes), .. } => String::from_utf8(bytes.to_vec()).ok(),
        _ => None,
    }
}

/// Waits until the text at `key` is `wanted`.
pub async fn wait_for(replica: &Replica, key: &str, wanted: &str) -> Outcome {
    let mut changes = replica.watch(key, replica.head());
    while text(replica, key).await.as_deref() != Some(wanted) {
        changes.next().await?;
    }
    Ok(())
}

/// The address of `addresses` with this scheme.
pub fn of_scheme(addresses: &[PeerAddress], scheme: &str) -> Option<PeerAddress> {
    addresses.iter().find(|address| address.scheme() == scheme).cloned()
}
