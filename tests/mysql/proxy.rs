//! What stands between a store and its server: it counts, and it can cut an answer short.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::mysql_server::MysqlServer;

/// Commands that the server does not answer.
const QUIT: u8 = 0x01;
const SEND_LONG_DATA: u8 = 0x18;
const CLOSE_STATEMENT: u8 = 0x19;

#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    to: u16,
    trips: Arc<AtomicUsize>,
    /// How many more bytes of answers get through before the connection is cut.
    pub(crate) left: Arc<AtomicU64>,
}

impl Proxy {
    pub(crate) async fn start(server: &MysqlServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            to: server.port(),
            trips: Arc::default(),
            left: Arc::new(u64::MAX.into()),
        };
        let this = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(this.clone().serve(client));
            }
        });
        proxy
    }

    /// The trips since the last time.
    pub(crate) fn trips(&self) -> usize {
        self.trips.swap(0, Ordering::SeqCst)
    }

    async fn serve(self, client: TcpStream) -> io::Result<()> {
        let server = TcpStream::connect(("127.0.0.1", self.to)).await?;
        let (from_server, to_server) = server.into_split();
        let (from_client, to_client) = client.into_split();
        let asking = tokio::spawn(self.clone().ask(from_client, to_server));
        let answered = self.answer(from_server, to_client).await;
        asking.abort();
        answered
    }

    /// Counts the packets that begin a command.
    async fn ask(self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
        loop {
            let mut packet = vec![0; 4];
            from.read_exact(&mut packet).await?;
            let len = u32::from_le_bytes([packet[0], packet[1], packet[2], 0]);
            let is_first = packet[3] == 0;
            packet.resize(4 + len as usize, 0);
            from.read_exact(&mut packet[4..]).await?;
            let is_answered = !matches!(packet[4], QUIT | SEND_LONG_DATA | CLOSE_STATEMENT);
            if is_first && is_answered {
                self.trips.fetch_add(1, Ordering::SeqCst);
            }
            to.write_all(&packet).await?;
        }
    }

    async fn answer(self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
        let mut bytes = [0; 4096];
        loop {
            let n = from.read(&mut bytes).await?;
            let left = self.left.load(Ordering::SeqCst);
            let through = n.min(left.try_into().unwrap_or(usize::MAX));
            to.write_all(&bytes[..through]).await?;
            if n == 0 || through < n {
                return Ok(());
            }
            if left < u64::MAX {
                self.left.fetch_sub(through as u64, Ordering::SeqCst);
            }
        }
    }
}
