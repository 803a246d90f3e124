//! What the routes, the listener and the transport share.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use axum::{
    Extension, Router,
    extract::{Request, State, WebSocketUpgrade},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::any,
};
use sync_core::{
    model::PeerId,
    transport::{
        Connection, Incoming, TransportError,
        upgrade::{Role, upgrade},
    },
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    address::SYNC_PATH,
    connection::{Place, Registry},
    listen::Caller,
    rest::{self, NodeApi, Refusal},
    websocket::{ServerPipe, limit},
};

/// It exists from the builder on, so that an application can mount the routes before the transport is built.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    node: OnceLock<Node>,
    api: OnceLock<Arc<dyn NodeApi>>,
    incoming: Mutex<Option<Incoming>>,
    connections: Registry,
    closed: CancellationToken,
}

/// What is known once the transport is built.
#[derive(Debug)]
struct Node {
    id: PeerId,
    places: Arc<Semaphore>,
}

impl Hub {
    /// The transport of `id` is built; it accepts at most `max_connections`.
    pub fn start(&self, id: PeerId, max_connections: usize) {
        let node = Node { id, places: Arc::new(Semaphore::new(max_connections)) };
        self.node.set(node).expect("a builder builds once");
    }

    /// The first `api` that is given stays.
    pub fn serve(&self, api: Arc<dyn NodeApi>) {
        self.api.set(api).expect("a builder is given one REST interface");
    }

    /// What answers the REST requests, if anything.
    pub fn api(&self) -> Option<&Arc<dyn NodeApi>> {
        self.api.get()
    }

    /// The node's id, once the transport is built.
    pub fn node_id(&self) -> Option<PeerId> {
        self.node.get().map(|node| node.id)
    }

    /// Where accepted connections go, while the transport listens.
    pub fn incoming(&self) -> Option<Incoming> {
        self.slot().clone()
    }

    /// From now on accepted connections go there, or nowhere.
    pub fn set_incoming(&self, incoming: Option<Incoming>) {
        *self.slot() = incoming;
    }

    /// Cancelled when the transport is closed.
    pub fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Ends everything that the hub knows of.
    pub fn close(&self) {
        self.closed.cancel();
        self.set_incoming(None);
        self.connections.close();
    }

    /// Remembers a connection; it ends when the transport is closed.
    pub fn hold(&self, connection: Box<dyn Connection>, place: Option<Place>) -> Box<dyn Connection> {
        let connection = self.connections.hold(connection, place);
        // Whoever was just being held while it closed is not forgotten.
        if self.closed.is_cancelled() {
            self.connections.close();
        }
        connection
    }

    /// How many more connections it takes.
    #[cfg(feature = "testing")]
    pub fn free_places(&self) -> Option<usize> {
        self.node.get().map(|node| node.places.available_permits())
    }

    fn place(&self, caller: Option<Arc<Caller>>) -> Option<Place> {
        let permit = self.node.get()?.places.clone().try_acquire_owned().ok()?;
        Some(Place { _permit: permit, _caller: caller })
    }

    fn slot(&self) -> MutexGuard<'_, Option<Incoming>> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The routes: they answer while the transport listens.
pub(crate) fn router(hub: &Arc<Hub>) -> Router {
    Router::new()
        .route(SYNC_PATH, any(accept))
        .merge(rest::routes())
        .layer(middleware::from_fn_with_state(hub.clone(), while_listening))
        .with_state(hub.clone())
}

async fn while_listening(State(hub): State<Arc<Hub>>, request: Request, next: Next) -> Response {
    match hub.incoming() {
        Some(_) => next.run(request).await,
        None => Refusal::Unavailable("the node takes no connections at the moment").into_response(),
    }
}

/// Makes a connection of a request.
async fn accept(
    State(hub): State<Arc<Hub>>,
    caller: Option<Extension<Arc<Caller>>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let Some(place) = hub.place(caller.map(|Extension(caller)| caller)) else {
        return Refusal::Unavailable("the node has as many connections as it takes").into_response();
    };
    limit(upgrade).on_upgrade(move |socket| async move {
        let outcome = tokio::select! {
            outcome = hand_over(&hub, ServerPipe::new(socket), place) => outcome,
            () = hub.closed().cancelled() => return,
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, "a dialler did not become a connection");
        }
    })
}

async fn hand_over(hub: &Hub, pipe: ServerPipe, place: Place) -> Result<(), TransportError> {
    let connection = hub.hold(upgrade(pipe, Role::Listener).await?, Some(place));
    if let Some(incoming) = hub.incoming() {
        incoming.offer(connection);
    }
    Ok(())
}
