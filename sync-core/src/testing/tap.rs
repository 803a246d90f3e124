//! Somebody on the path who writes down what passes, to say it again later.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};

/// A port on 127.0.0.1 that leads to a listener, for one who dials, and keeps what the dialler says: packet by packet, or
/// piece by piece of a stream. It ends when it is dropped.
#[derive(Debug)]
pub struct Tap {
    address: SocketAddr,
    said: Arc<Mutex<Vec<Vec<u8>>>>,
    _ways: JoinSet<()>,
}

impl Tap {
    /// Leads packets to `target`.
    pub async fn udp(target: SocketAddr) -> io::Result<Self> {
        let near = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
        let far = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
        let (address, said) = (near.local_addr()?, Arc::<Mutex<Vec<Vec<u8>>>>::default());
        let dialler = Arc::new(OnceLock::new());
        let mut ways = JoinSet::new();
        ways.spawn({
            let (near, far, said, dialler) = (near.clone(), far.clone(), said.clone(), dialler.clone());
            async move {
                let mut packet = vec![0; 65_535];
                while let Ok((len, from)) = near.recv_from(&mut packet).await {
                    dialler.get_or_init(|| from);
                    said.lock().unwrap_or_else(PoisonError::into_inner).push(packet[..len].to_vec());
                    far.send_to(&packet[..len], target).await.ok();
                }
            }
        });
        ways.spawn(async move {
            let mut packet = vec![0; 65_535];
            while let Ok((len, _)) = far.recv_from(&mut packet).await {
                if let Some(dialler) = dialler.get() {
                    near.send_to(&packet[..len], *dialler).await.ok();
                }
            }
        });
        Ok(Self { address, said, _ways: ways })
    }

    /// Leads one connection to `target`.
    pub async fn tcp(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, said) = (listener.local_addr()?, Arc::<Mutex<Vec<Vec<u8>>>>::default());
        let mut ways = JoinSet::new();
        let kept = said.clone();
        ways.spawn(async move {
            let Ok((near, _)) = listener.accept().await else { return };
            let Ok(far) = TcpStream::connect(target).await else { return };
            let ((mut near_read, mut near_write), (mut far_read, mut far_write)) =
                (near.into_split(), far.into_split());
            let there = async {
                let mut piece = vec![0; 65_536];
                while let Ok(len @ 1..) = near_read.read(&mut piece).await {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(piece[..len].to_vec());
                    if far_write.write_all(&piece[..len]).await.is_err() {
                        return;
                    }
                }
            };
            let back = async { tokio::io::copy(&mut far_read, &mut near_write).await.ok() };
            tokio::join!(there, back);
        });
        Ok(Self { address, said, _ways: ways })
    }

    /// What is dialled instead.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the dialler has said so far, in order.
    pub fn said(&self) -> Vec<Vec<u8>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
