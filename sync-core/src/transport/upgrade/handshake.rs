//! The Noise handshake: three messages, one deadline.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{HANDSHAKE_DEADLINE, Role};
use crate::transport::{TransportError, TransportErrorKind};

pub(super) const PATTERN: &str = "Noise_XX_25519_ChaChaPoly_BLAKE2s";

/// Both sides mix this in: another version of these layers fails at the second message.
pub(super) const PROLOGUE: &[u8] = b"syncline v1 noise yamux\0";

/// The longest handshake message: XX without payloads has 96 bytes at most. Nothing larger is read from
/// someone who has shown nothing yet.
const MAX_MESSAGE_LEN: usize = 256;

/// What the handshake gives.
pub(super) struct Secured {
    pub noise: snow::TransportState,
    pub binding: [u8; 32],
}

/// Shakes hands over `pipe`, within the deadline.
pub(super) async fn perform<P>(pipe: &mut P, role: Role) -> Result<Secured, TransportError>
where
    P: AsyncRead + AsyncWrite + Unpin,
{
    let noise = start(role).map_err(foreign)?;
    match tokio::time::timeout(HANDSHAKE_DEADLINE, exchange(pipe, noise)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(TransportError::new(
            TransportErrorKind::TimedOut,
            format!("the Noise handshake did not end within {} s", HANDSHAKE_DEADLINE.as_secs()),
        )),
    }
}

/// Says and hears the messages of the handshake.
pub(super) async fn exchange<P>(pipe: &mut P, mut noise: snow::HandshakeState) -> Result<Secured, TransportError>
where
    P: AsyncRead + AsyncWrite + Unpin,
{
    let mut message = [0; MAX_MESSAGE_LEN];
    let mut payload = [0; MAX_MESSAGE_LEN];
    while !noise.is_handshake_finished() {
        if noise.is_my_turn() {
            let len = noise.write_message(&[], &mut message[2..]).map_err(foreign)?;
            message[..2].copy_from_slice(&u16::try_from(len).expect("a handshake message is short").to_be_bytes());
            pipe.write_all(&message[..2 + len]).await.map_err(broken)?;
            pipe.flush().await.map_err(broken)?;
        } else {
            let len = usize::from(pipe.read_u16().await.map_err(broken)?);
            if len > MAX_MESSAGE_LEN {
                return Err(TransportError::new(
                    TransportErrorKind::Protocol,
                    format!("a Noise handshake message claims {len} bytes; is the other end a Syncline node?"),
                ));
            }
            pipe.read_exact(&mut message[..len]).await.map_err(broken)?;
            noise.read_message(&message[..len], &mut payload).map_err(foreign)?;
        }
    }
    let binding = noise.get_handshake_hash().try_into().expect("BLAKE2s gives 32 bytes");
    let noise = noise.into_transport_mode().map_err(foreign)?;
    Ok(Secured { noise, binding })
}

fn start(role: Role) -> Result<snow::HandshakeState, snow::Error> {
    let pattern = || PATTERN.parse().expect("the pattern is well formed");
    let static_key = snow::Builder::new(pattern()).generate_keypair()?.private;
    let builder = snow::Builder::new(pattern()).prologue(PROLOGUE)?.local_private_key(&static_key)?;
    match role {
        Role::Dialer => builder.build_initiator(),
        Role::Listener => builder.build_responder(),
    }
}

fn foreign(error: snow::Error) -> TransportError {
    TransportError::because(
        TransportErrorKind::Protocol,
        "the Noise handshake failed; is the other end a Syncline node of the same version?",
        error,
    )
}

fn broken(error: std::io::Error) -> TransportError {
    TransportError::because(TransportErrorKind::ConnectionLost, "the pipe broke during the Noise handshake", error)
}
