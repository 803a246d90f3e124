//! A node of an attacker's own: what it needs to say anything at all.

use std::sync::Arc;

use bytes::Bytes;
use sync_core::{
    machine::{
        Event, Role, Transcript,
        wire::{Hello, Message, StreamKind},
    },
    manager::SyncManager,
    model::{PeerId, SecretKey},
    store::StoreId,
    transport::{ByteStream, Connection, SyncTransport},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::*;

/// What a hostile node dials with.
pub struct Hostile {
    pub transport: Arc<dyn SyncTransport>,
    pub key: SecretKey,
}

impl Hostile {
    pub async fn new(world: &World) -> Self {
        Self { transport: world.transport(world.wire, "hostile").await, key: SecretKey::generate() }
    }

    pub async fn dial(&self, victim: &SyncManager) -> Box<dyn Connection> {
        self.transport.dial(&victim.addresses().await.unwrap()[0]).await.unwrap()
    }

    pub async fn control(&self, connection: &dyn Connection) -> ByteStream {
        let mut stream = connection.open().await.unwrap();
        stream.write_all(&[StreamKind::Control as u8]).await.unwrap();
        stream
    }

    pub fn hello(&self, oldest: u16, newest: u16) -> Bytes {
        let peer = PeerId(self.key.public());
        let store = StoreId([7; 16]);
        let (nonce, addresses) = ([3; 32], Vec::new());
        Message::Hello(Hello { oldest, newest, peer, store, incarnation: 1, nonce, addresses }).encode()
    }

    /// Shakes hands as a node should.
    pub async fn shake(&self, connection: &dyn Connection) -> ByteStream {
        let mut control = self.control(connection).await;
        let hello = self.hello(1, 1);
        send(&mut control, &hello).await.unwrap();
        let acceptor = receive(&mut control).await.unwrap();
        let transcript = Transcript { dialer: hello, acceptor, binding: connection.channel_binding() };
        let proof = transcript.prove(&self.key, Role::Dialer);
        send(&mut control, &Message::Proof(proof).encode()).await.unwrap();
        let proof = receive(&mut control).await.unwrap();
        assert!(matches!(Message::decode(proof), Ok(Some(Message::Proof(_)))));
        control
    }
}

pub async fn send(stream: &mut ByteStream, frame: &[u8]) -> std::io::Result<()> {
    stream.write_all(&u32::try_from(frame.len()).unwrap().to_be_bytes()).await?;
    stream.write_all(frame).await?;
    stream.flush().await
}

pub async fn receive(stream: &mut ByteStream) -> std::io::Result<Bytes> {
    let len = stream.read_u32().await?;
    let mut frame = vec![0; len as usize];
    stream.read_exact(&mut frame).await?;
    Ok(frame.into())
}

/// That the victim ends the connection.
pub async fn ends(what: &str, connection: &dyn Connection) {
    soon(&format!("the victim ends the link: {what}"), connection.closed()).await;
}

/// That the honest pair never noticed anything.
pub async fn unharmed(pair: &Pair, events: &mut tokio::sync::broadcast::Receiver<Event>) {
    fill(&pair.left, "still ", 3).await;
    fill(&pair.right, "here ", 3).await;
    equal(&[&pair.left, &pair.right]).await;
    let down = past(events).into_iter().find(|event| *event == Event::PeerDown { peer: pair.b.node_id() });
    assert!(down.is_none(), "the honest link never ended");
}
