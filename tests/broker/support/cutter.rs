//! A relay that knows the boundaries of the client's frames and cuts the connection at one of them.
//!
//! The frames of all connections that come through it are counted together, so that a number names one moment of a
//! whole script. It cuts once; what comes later passes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lapin::uri::AMQPUri;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::frames::Frame;
use super::wire::through;

/// How long the broker's answer to the last frame is waited for: then it is sure that the broker has dealt with it.
/// Not every frame is answered.
const DEALT_WITH: Duration = Duration::from_millis(25);
/// How long the broker may take to close its side.
const GOODBYE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The broker never sees the frame.
    Before,
    /// The broker gets the first half of it.
    Midway,
    /// The broker has dealt with it; the client never gets the answer.
    After,
}

/// At the frame of that number, counted from 1.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    pub frame: u64,
    pub when: When,
}

#[derive(Clone, Copy, Debug)]
enum Plan {
    Nothing,
    Cut(Cut),
    /// No channel.close arrives.
    SwallowChannelCloses,
}

struct Shared {
    plan: Plan,
    frames: u64,
    struck: Option<String>,
}

pub struct Cutter {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    task: JoinHandle<()>,
}

/// What becomes of a frame.
enum Fate {
    Pass,
    Cut(When),
    Swallow,
}

impl Cutter {
    pub async fn cutting(url: &str, cut: Option<Cut>) -> Self {
        Self::with(url, cut.map_or(Plan::Nothing, Plan::Cut)).await
    }

    /// A client whose end the broker does not hear of, as with a dead node: its channels seem to stay open.
    pub async fn swallowing_channel_closes(url: &str) -> Self {
        Self::with(url, Plan::SwallowChannelCloses).await
    }

    async fn with(url: &str, plan: Plan) -> Self {
        let uri: AMQPUri = url.parse().unwrap();
        let broker = (uri.authority.host, uri.authority.port);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Mutex::new(Shared { plan, frames: 0, struck: None }));
        let book = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let mut relays = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(broker.clone()).await else { continue };
                near.set_nodelay(true).and(far.set_nodelay(true)).unwrap();
                relays.spawn(relay(near, far, Arc::clone(&book)));
            }
        });
        Self { address, shared, task }
    }

    pub fn url(&self, url: &str) -> String {
        through(self.address, url)
    }

    /// How many frames the client has sent.
    pub fn frames(&self) -> u64 {
        self.shared.lock().frames
    }

    /// The frame at which it struck, if it has.
    pub fn struck(&self) -> Option<String> {
        self.shared.lock().struck.clone()
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn fate(&mut self, frame: &Frame) -> Fate {
        if frame.is_heartbeat() {
            return Fate::Pass;
        }
        self.frames += 1;
        let fate = match self.plan {
            Plan::Cut(cut) if cut.frame == self.frames => Fate::Cut(cut.when),
            Plan::SwallowChannelCloses if frame.is_channel_close() => Fate::Swallow,
            _ => return Fate::Pass,
        };
        self.struck = Some(frame.name());
        fate
    }
}

/// The broker's side of a connection.
#[derive(Default)]
struct Downstream {
    /// Nothing is passed on any more.
    mute: AtomicBool,
    /// Something came from the broker while mute.
    heard: Notify,
    /// The client's side is to be closed.
    cut: Notify,
}

async fn relay(near: TcpStream, far: TcpStream, shared: Arc<Mutex<Shared>>) {
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    let downstream = Arc::new(Downstream::default());
    let mut down = tokio::spawn(pass_down(far_read, near_write, Arc::clone(&downstream)));
    let far_write = tokio::select! {
        // The broker has closed.
        _ = &mut down => return,
        far_write = pass_up(near_read, far_write, &shared, &downstream) => far_write,
    };
    // The broker gets all that it was sent, and then the end; closing at once would throw away what it has not read.
    downstream.mute.store(true, Ordering::SeqCst);
    downstream.cut.notify_one();
    if let Some(mut far_write) = far_write {
        let _ = far_write.shutdown().await;
        let _ = timeout(GOODBYE, &mut down).await;
    }
    down.abort();
}

/// Until the client has closed or is cut off.
async fn pass_up(
    mut near: OwnedReadHalf,
    mut far: OwnedWriteHalf,
    shared: &Mutex<Shared>,
    downstream: &Downstream,
) -> Option<OwnedWriteHalf> {
    let mut first = true;
    while let Ok(Some(frame)) = Frame::read(&mut near, first).await {
        first = false;
        let fate = shared.lock().fate(&frame);
        match fate {
            Fate::Pass => far.write_all(&frame.bytes).await.ok()?,
            Fate::Cut(When::Before) => return Some(far),
            Fate::Cut(When::Midway) => {
                far.write_all(&frame.bytes[..frame.bytes.len() / 2]).await.ok()?;
                return Some(far);
            }
            Fate::Cut(When::After) => {
                downstream.mute.store(true, Ordering::SeqCst);
                far.write_all(&frame.bytes).await.ok()?;
                let _ = timeout(DEALT_WITH, downstream.heard.notified()).await;
                return Some(far);
            }
            Fate::Swallow => {}
        }
    }
    Some(far)
}

async fn pass_down(mut far: OwnedReadHalf, near: OwnedWriteHalf, downstream: Arc<Downstream>) {
    let mut near = Some(near);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = tokio::select! {
            () = downstream.cut.notified() => {
                near = None;
                continue;
            }
            read = far.read(&mut buffer) => read,
        };
        let Ok(count @ 1..) = read else { return };
        if downstream.mute.load(Ordering::SeqCst) {
            downstream.heard.notify_one();
        } else if let Some(open) = near.as_mut()
            && open.write_all(&buffer[..count]).await.is_err()
        {
            near = None;
        }
    }
}
