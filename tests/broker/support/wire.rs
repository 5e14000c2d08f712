//! A TCP relay to the broker whose connections can be cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lapin::uri::AMQPUri;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub struct Wire {
    address: SocketAddr,
    cuts: watch::Sender<u64>,
    blocked: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Wire {
    pub async fn to(url: &str) -> Self {
        let uri: AMQPUri = url.parse().unwrap();
        let broker = (uri.authority.host, uri.authority.port);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cuts, seen) = watch::channel(0);
        let blocked = Arc::new(AtomicBool::new(false));
        let closed = Arc::clone(&blocked);
        let task = tokio::spawn(async move {
            let mut relays = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                if closed.load(Ordering::SeqCst) {
                    continue;
                }
                let (broker, mut seen) = (broker.clone(), seen.clone());
                seen.mark_unchanged();
                relays.spawn(async move {
                    let Ok(mut far) = TcpStream::connect(broker).await else { return };
                    near.set_nodelay(true).and(far.set_nodelay(true)).unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = seen.changed() => {}
                    }
                });
            }
        });
        Self { address, cuts, blocked, task }
    }

    pub fn url(&self, url: &str) -> String {
        through(self.address, url)
    }

    /// Cuts, and lets nobody through until it is opened again.
    pub fn block(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::SeqCst);
        if blocked {
            self.cut();
        }
    }

    /// Closes every connection that stands.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The same broker, user and virtual host by way of a relay.
pub fn through(relay: SocketAddr, url: &str) -> String {
    let uri: AMQPUri = url.parse().unwrap();
    let (user, vhost) = (uri.authority.userinfo, uri.vhost.replace('/', "%2f"));
    format!("amqp://{}:{}@{relay}/{vhost}", user.username, user.password)
}
